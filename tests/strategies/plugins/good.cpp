// Brings one strategy of each kind, from an unnamed namespace as most plug-ins would.

#include <covey/strategies/plugin.hpp>

namespace {

using namespace covey::strategies;

class HalfStep final : public SumStrategy {
 public:
  std::string_view name() const override { return "half-step"; }
  std::size_t state_size(std::size_t num_parameters) const override { return num_parameters; }
  covey::Result<void> apply(const Sum& sum, ServerModel model) override {
    for (std::size_t i = 0; i < model.parameters.size(); ++i) {
      model.state[i] += 1;
      model.parameters[i] += static_cast<float>(sum.vector[i] / sum.weight / 2);
    }
    return {};
  }
};

class FirstUpdate final : public IndividualStrategy {
 public:
  std::string_view name() const override { return "first-update"; }
  covey::Result<void> aggregate(std::span<const IndividualUpdate> updates,
                                ServerModel model) override {
    for (std::size_t i = 0; i < model.parameters.size(); ++i) {
      model.parameters[i] += updates[0].update[i];
    }
    return {};
  }
};

template <typename T>
covey::Result<std::unique_ptr<Strategy>> make(const Parameters& parameters) {
  COVEY_TRY(ParameterReader(parameters).finish("test plug-in"));
  return std::unique_ptr<Strategy>(std::make_unique<T>());
}

covey::Result<void> register_strategies(Registry& registry) {
  COVEY_TRY(registry.add("half-step", make<HalfStep>));
  return registry.add("first-update", make<FirstUpdate>);
}

}  // namespace

COVEY_STRATEGY_PLUGIN(register_strategies)
