// Federated averaging: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
// Decentralized Data" (arXiv:1602.05629), Algorithm 1.
//
// Device k, n_k examples: E epochs of SGD from w^t give w_k; contributes w_k - w^t with weight n_k.
// Server:                 w^{t+1} = sum_k (n_k / n) w_k = w^t + (sum_k n_k (w_k - w^t)) / (sum_k
// n_k).

#include <covey/strategies/registry.hpp>

#include "built_in.hpp"

namespace covey::strategies {
namespace {

class FedAvg final : public SumStrategy {
 public:
  std::string_view name() const override { return "fedavg"; }

  // Device half: plain SGD, and the default contribution.

  Result<void> apply(const Sum& sum, ServerModel model) override {
    return add_weighted_mean(sum, model.parameters);
  }
};

}  // namespace

Result<std::unique_ptr<Strategy>> make_fedavg(const Parameters& parameters) {
  COVEY_TRY(ParameterReader(parameters).finish("fedavg"));
  return std::unique_ptr<Strategy>(std::make_unique<FedAvg>());
}

}  // namespace covey::strategies
