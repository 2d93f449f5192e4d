// FedBuff: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation"
// (arXiv:2106.06639), Algorithm 1.
//
// Device k: E epochs of SGD from the model x^{t-tau} it was given; contributes
//           Delta_k = w_k - x^{t-tau}, tau models ago.
// Server:   when K contributions are there (asynchronous.buffer),
//             x^{t+1} = x^t + eta * (1/K) sum_k s(tau_k) Delta_k
//           The sum comes with s(tau) in it (asynchronous.staleness), the divisor K without: a
//           stale update makes the step smaller, it does not make the others count more.
//
// The paper weighs every device alike; by-examples = 1 gives device k the weight n_k, as FedAvg
// does:
//             x^{t+1} = x^t + eta * (sum_k n_k s(tau_k) Delta_k) / (sum_k n_k)
//
// In synchronous rounds every tau is 0, and this is the mean of a round's updates, times eta.

#include <fmt/format.h>

#include <cmath>
#include <covey/strategies/registry.hpp>

#include "built_in.hpp"

namespace covey::strategies {
namespace {

class FedBuff final : public SumStrategy {
 public:
  FedBuff(double eta, bool by_examples) : eta_(eta), by_examples_(by_examples) {}

  std::string_view name() const override { return "fedbuff"; }

  // ---- device half
  Result<Contribution> weigh(const LocalOutcome& outcome) const override {
    const double weight = by_examples_ ? static_cast<double>(outcome.num_examples) : 1;
    return Contribution{.weight = weight, .scalars = {}};
  }

  // ---- server half
  Result<void> apply(const Sum& sum, ServerModel model) override {
    COVEY_ASSERT(sum.vector.size() == model.parameters.size());
    if (!std::isfinite(sum.weight) || sum.weight <= 0) {
      return failed(fmt::format("{} contributions have a total weight of {}: no mean can be formed",
                                sum.count, sum.weight));
    }
    for (std::size_t i = 0; i < model.parameters.size(); ++i) {
      model.parameters[i] = static_cast<float>(static_cast<double>(model.parameters[i]) +
                                               eta_ * (sum.vector[i] / sum.weight));
    }
    return {};
  }

 private:
  double eta_;
  bool by_examples_;
};

}  // namespace

Result<std::unique_ptr<Strategy>> make_fedbuff(const Parameters& parameters) {
  ParameterReader read(parameters);
  // eta = 1 applies the mean as it is; 1e6 only keeps a slip of the keyboard out.
  const double eta = read.number("eta", 1.0, 0.0, 1e6);
  const double by_examples = read.number("by-examples", 0.0, 0.0, 1.0);
  COVEY_TRY(read.finish("fedbuff"));
  if (by_examples != 0 && by_examples != 1) {
    return invalid_argument(fmt::format(
        "strategy fedbuff: by-examples = {} is neither 0 (every update weighs the same) nor 1 "
        "(by the device's number of examples)",
        by_examples));
  }
  return std::unique_ptr<Strategy>(std::make_unique<FedBuff>(eta, by_examples == 1));
}

}  // namespace covey::strategies
