// FedAvgM, federated averaging with server momentum, as a plug-in: Hsu et al. 2019, "Measuring the
// Effects of Non-Identical Data Distribution for Federated Visual Classification"
// (arXiv:1909.06335).
//
// Run:  build/release/bin/covey simulate examples/06_strategy_plugin/run.toml
//
// Device k: as FedAvg, contributes u_k = w_k - w^t with weight n_k.
// Server:   mean = (sum_k n_k u_k) / (sum_k n_k)
//           m   <- beta m + mean                 m: R^d, zero at the start, kept by the server
//           w   <- w + eta m

#include <cmath>
#include <covey/strategies/plugin.hpp>

namespace {

using covey::Result;
using covey::strategies::ParameterReader;
using covey::strategies::Parameters;
using covey::strategies::Registry;
using covey::strategies::ServerModel;
using covey::strategies::Strategy;
using covey::strategies::Sum;
using covey::strategies::SumStrategy;

class FedAvgM final : public SumStrategy {
 public:
  FedAvgM(double momentum, double learning_rate)
      : momentum_(momentum), learning_rate_(learning_rate) {}

  std::string_view name() const override { return "fedavgm"; }

  // Device half: plain SGD and FedAvg's contribution, which are the defaults.

  // Server half. The state is saved with every committed round, so a restarted server goes on with
  // the same momentum.
  std::size_t state_size(std::size_t num_parameters) const override { return num_parameters; }

  Result<void> apply(const Sum& sum, ServerModel model) override {
    if (!std::isfinite(sum.weight) || sum.weight <= 0) {
      return covey::failed("fedavgm: the contributions have no total weight, so there is no mean");
    }
    for (std::size_t i = 0; i < model.parameters.size(); ++i) {
      const double mean = sum.vector[i] / sum.weight;
      const double momentum = momentum_ * static_cast<double>(model.state[i]) + mean;
      const double parameter = static_cast<double>(model.parameters[i]) + learning_rate_ * momentum;
      model.state[i] = static_cast<float>(momentum);
      model.parameters[i] = static_cast<float>(parameter);
    }
    return {};
  }

 private:
  double momentum_;       // beta
  double learning_rate_;  // eta
};

Result<std::unique_ptr<Strategy>> make_fedavgm(const Parameters& parameters) {
  ParameterReader read(parameters);
  // Keys as in Flower; beta = 0.9 is the paper's, beta = 1 would never forget.
  const double momentum = read.number("server-momentum", 0.9, 0.0, 0.999);
  const double learning_rate = read.number("server-learning-rate", 1.0, 1e-6, 1e3);
  COVEY_TRY(read.finish("fedavgm"));
  return std::unique_ptr<Strategy>(std::make_unique<FedAvgM>(momentum, learning_rate));
}

Result<void> register_strategies(Registry& registry) {
  return registry.add("fedavgm", make_fedavgm);
}

}  // namespace

COVEY_STRATEGY_PLUGIN(register_strategies)
