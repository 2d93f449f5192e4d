// FedProx: Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (arXiv:1812.06127),
// Algorithm 2.
//
// Device k: SGD on h_k(w) = F_k(w) + mu/2 ||w - w^t||^2, each step w <- w - eta (g + mu (w - w^t)).
//           A device that manages only part of its epochs contributes what it has
//           (client.accept-partial-work); the proximal term keeps such work close to w^t.
// Server:   the mean weighted by n_k, as FedAvg.

#include <covey/strategies/registry.hpp>

#include "built_in.hpp"

namespace covey::strategies {
namespace {

class FedProx final : public SumStrategy {
 public:
  explicit FedProx(double proximal_mu) : proximal_mu_(proximal_mu) {}

  std::string_view name() const override { return "fedprox"; }

  LocalRule local_rule() const override {
    return {.proximal_mu = static_cast<float>(proximal_mu_), .needs_initial_loss = false};
  }

  Result<void> apply(const Sum& sum, ServerModel model) override {
    return add_weighted_mean(sum, model.parameters);
  }

 private:
  double proximal_mu_;
};

}  // namespace

Result<std::unique_ptr<Strategy>> make_fedprox(const Parameters& parameters) {
  ParameterReader read(parameters);
  // mu = 1 is the best of {0.001, 0.01, 0.1, 1} on three of the paper's five data sets
  // (section 5.3).
  const double proximal_mu = read.number("proximal-mu", 1.0, 0.0, 1e6);
  COVEY_TRY(read.finish("fedprox"));
  return std::unique_ptr<Strategy>(std::make_unique<FedProx>(proximal_mu));
}

}  // namespace covey::strategies
