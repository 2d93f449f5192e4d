#include <fmt/format.h>

#include <cmath>
#include <covey/strategies/strategy.hpp>

namespace covey::strategies {

Result<Contribution> Strategy::contribute(const LocalOutcome& outcome,
                                          std::span<float> update) const {
  COVEY_ASSERT(outcome.initial.size() == update.size());
  COVEY_ASSERT(outcome.trained.size() == update.size());
  for (std::size_t i = 0; i < update.size(); ++i) {
    update[i] = outcome.trained[i] - outcome.initial[i];
  }
  for (std::size_t i = 0; i < update.size(); ++i) {
    if (!std::isfinite(update[i])) {
      return failed(
          fmt::format("local training diverged: parameter {} went from {} to {} in {} steps "
                      "(a smaller client.learning-rate may help)",
                      i, outcome.initial[i], outcome.trained[i], outcome.steps));
    }
  }
  return Contribution{.weight = static_cast<double>(outcome.num_examples), .scalars = {}};
}

Result<void> add_weighted_mean(const Sum& sum, std::span<float> parameters) {
  COVEY_ASSERT(sum.vector.size() == parameters.size());
  if (!std::isfinite(sum.weight) || sum.weight <= 0) {
    return failed(fmt::format("{} contributions have a total weight of {}: no mean can be formed",
                              sum.count, sum.weight));
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    parameters[i] =
        static_cast<float>(static_cast<double>(parameters[i]) + sum.vector[i] / sum.weight);
  }
  return {};
}

}  // namespace covey::strategies
