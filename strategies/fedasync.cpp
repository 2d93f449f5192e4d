// FedAsync: Xie et al. 2019, "Asynchronous Federated Optimization" (arXiv:1903.03934), Algorithm 1.
//
// Device k: local training from the model x_tau that it was given makes x_new = x_tau + Delta. The
//           paper's device minimises its loss plus a proximal term rho/2 ||x - x_tau||^2
//           (`proximal-mu`, 0: none); all devices weigh the same.
// Server:   at every update, t - tau models later,
//             x_t = (1 - alpha_t) x_{t-1} + alpha_t x_new,   alpha_t = alpha * s(t - tau)
//                 = x_{t-1} + alpha * s(t - tau) (x_tau + Delta - x_{t-1})
//
// What stands behind alpha is what enters the sum (`needs_base`), so the server needs the model
// that the update began with, and steps at every update: asynchronous.buffer = 1.

#include <fmt/format.h>

#include <covey/strategies/registry.hpp>

#include "built_in.hpp"

namespace covey::strategies {
namespace {

class FedAsync final : public SumStrategy {
 public:
  FedAsync(double alpha, double proximal_mu) : alpha_(alpha), proximal_mu_(proximal_mu) {}

  std::string_view name() const override { return "fedasync"; }

  // ---- device half
  LocalRule local_rule() const override {
    return {.proximal_mu = static_cast<float>(proximal_mu_), .needs_initial_loss = false};
  }
  Result<Contribution> weigh(const LocalOutcome&) const override {
    return Contribution{.weight = 1, .scalars = {}};
  }

  // ---- server half
  bool needs_base() const override { return true; }

  Result<void> apply(const Sum& sum, ServerModel model) override {
    COVEY_ASSERT(sum.vector.size() == model.parameters.size());
    if (sum.count != 1 || !(sum.weight > 0)) {
      return failed(
          fmt::format("FedAsync moves the model by one update of weight above 0 at a time, "
                      "not by {} of total weight {}",
                      sum.count, sum.weight));
    }
    for (std::size_t i = 0; i < model.parameters.size(); ++i) {
      model.parameters[i] = static_cast<float>(static_cast<double>(model.parameters[i]) +
                                               alpha_ * (sum.vector[i] / sum.weight));
    }
    return {};
  }

 private:
  double alpha_;
  double proximal_mu_;
};

}  // namespace

Result<std::unique_ptr<Strategy>> make_fedasync(const Parameters& parameters) {
  ParameterReader read(parameters);
  // An initial alpha of 0.6 is one of the paper's (section 6).
  const double alpha = read.number("alpha", 0.6, 0.0, 1.0);
  const double proximal_mu = read.number("proximal-mu", 0.0, 0.0, 1e6);
  COVEY_TRY(read.finish("fedasync"));
  if (alpha == 0) {
    return invalid_argument("strategy fedasync: alpha = 0 would leave the model as it is for ever");
  }
  return std::unique_ptr<Strategy>(std::make_unique<FedAsync>(alpha, proximal_mu));
}

}  // namespace covey::strategies
