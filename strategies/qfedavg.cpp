// q-FedAvg: Li et al. 2020, "Fair Resource Allocation in Federated Learning" (arXiv:1905.10497),
// Algorithm 2. Minimises sum_k p_k/(q+1) F_k(w)^{q+1}: a larger q moves the model more towards the
// devices that it serves badly. Devices are to be sampled with p proportional to n_k
// (selection.policy = "by-examples"), so n_k is in no sum.
//
// Device k: F_k = its full training loss at w^t; local SGD gives w_k. With L = 1 / learning rate:
//             g_k     = L (w^t - w_k)
//             Delta_k = F_k^q g_k
//             h_k     = q F_k^{q-1} ||g_k||^2 + L F_k^q
// Server:   w^{t+1} = w^t - (sum_k Delta_k) / (sum_k h_k).
//
// As sums: the update is u_k = w_k - w^t (float32, what every strategy sends), its weight F_k^q L,
// and h_k a scalar; then sum_k weight_k u_k = -sum_k Delta_k. With q = 0 the weights and h_k are
// all L, and the step is the plain mean of u_k.

#include <fmt/format.h>

#include <cmath>
#include <covey/strategies/registry.hpp>

#include "built_in.hpp"

namespace covey::strategies {
namespace {

// Added to F_k, as in the authors' code (github.com/litian96/fair_flearn,
// flearn/trainers/qffedavg.py): with q < 1 a loss of zero would give an infinite h_k.
constexpr double kLossFloor = 1e-10;

class QFedAvg final : public SumStrategy {
 public:
  explicit QFedAvg(double q) : q_(q) {}

  std::string_view name() const override { return "qfedavg"; }

  // ---- device half
  LocalRule local_rule() const override { return {.proximal_mu = 0, .needs_initial_loss = true}; }

  Result<Contribution> weigh(const LocalOutcome& outcome) const override {
    if (!std::isfinite(outcome.initial_loss) || outcome.initial_loss < 0) {
      return failed(fmt::format("q-FedAvg needs a loss of at least 0 at the round's model, not {}",
                                outcome.initial_loss));
    }
    if (!(outcome.learning_rate > 0)) {
      return failed(fmt::format("q-FedAvg needs a learning rate above 0, not {}: its step is 1/L",
                                outcome.learning_rate));
    }
    if (!std::isfinite(outcome.squared_norm)) {
      return failed(
          fmt::format("q-FedAvg needs a finite norm of the update, not {}: local training diverged",
                      outcome.squared_norm));
    }
    const double lipschitz = 1.0 / static_cast<double>(outcome.learning_rate);
    const double loss = outcome.initial_loss + kLossFloor;
    const double loss_to_q = std::pow(loss, q_);
    const double gradient_norm2 = lipschitz * lipschitz * outcome.squared_norm;
    const double h = q_ * std::pow(loss, q_ - 1) * gradient_norm2 + lipschitz * loss_to_q;
    return Contribution{.weight = loss_to_q * lipschitz, .scalars = {h}};
  }

  // ---- server half
  std::size_t num_scalars() const override { return 1; }

  Result<void> apply(const Sum& sum, ServerModel model) override {
    COVEY_ASSERT(sum.vector.size() == model.parameters.size() && sum.scalars.size() == 1);
    const double h = sum.scalars[0];
    if (!std::isfinite(h) || h <= 0) {
      return failed(
          fmt::format("q-FedAvg: the sum of h_k over {} contributions is {}, so it gives no "
                      "step (are all losses 0, or q = {} too large?)",
                      sum.count, h, q_));
    }
    for (std::size_t i = 0; i < model.parameters.size(); ++i) {
      model.parameters[i] =
          static_cast<float>(static_cast<double>(model.parameters[i]) + sum.vector[i] / h);
    }
    return {};
  }

 private:
  double q_;
};

}  // namespace

Result<std::unique_ptr<Strategy>> make_qfedavg(const Parameters& parameters) {
  ParameterReader read(parameters);
  // q = 1 is the paper's choice for its synthetic data; its largest is 15 (section 4.1 and
  // appendix).
  const double q = read.number("q", 1.0, 0.0, 100.0);
  COVEY_TRY(read.finish("qfedavg"));
  return std::unique_ptr<Strategy>(std::make_unique<QFedAvg>(q));
}

}  // namespace covey::strategies
