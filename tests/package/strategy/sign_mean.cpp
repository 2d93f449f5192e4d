// A device half of its own: contributes only the signs of its update, with weight 1.

#include <covey/strategies/plugin.hpp>

namespace {

using namespace covey::strategies;

class SignMean final : public SumStrategy {
 public:
  std::string_view name() const override { return "sign-mean"; }

  covey::Result<Contribution> weigh(const LocalOutcome&) const override { return Contribution{}; }

  bool sends_difference() const override { return false; }

  covey::Result<void> fill_update(const LocalOutcome& outcome,
                                  std::span<float> update) const override {
    for (std::size_t i = 0; i < update.size(); ++i) {
      const float v = outcome.trained[i] - outcome.initial[i];
      update[i] = static_cast<float>((v > 0) - (v < 0));
    }
    return {};
  }

  covey::Result<void> apply(const Sum& sum, ServerModel model) override {
    return add_weighted_mean(sum, model.parameters);
  }
};

covey::Result<void> register_strategies(Registry& registry) {
  return registry.add("sign-mean",
                      [](const Parameters&) -> covey::Result<std::unique_ptr<Strategy>> {
                        return std::unique_ptr<Strategy>(std::make_unique<SignMean>());
                      });
}

}  // namespace

COVEY_STRATEGY_PLUGIN(register_strategies)
