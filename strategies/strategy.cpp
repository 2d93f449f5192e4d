#include <fmt/format.h>

#include <cmath>
#include <covey/strategies/strategy.hpp>

namespace covey::strategies {

Result<Contribution> Strategy::weigh(const LocalOutcome& outcome) const {
  return Contribution{.weight = static_cast<double>(outcome.num_examples), .scalars = {}};
}

Result<void> Strategy::fill_update(const LocalOutcome&, std::span<float>) const {
  return failed(fmt::format(
      "strategy {} says that its vector is not the plain difference, but brings no fill_update",
      name()));
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
