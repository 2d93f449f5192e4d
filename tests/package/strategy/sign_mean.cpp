// A device half of its own: contributes only the signs of its update, with weight 1.

#include <covey/strategies/plugin.hpp>

namespace {

using namespace covey::strategies;

class SignMean final : public SumStrategy {
 public:
  std::string_view name() const override { return "sign-mean"; }

  covey::Result<Contribution> contribute(const LocalOutcome& outcome,
                                         std::span<float> update) const override {
    COVEY_TRY(Strategy::contribute(outcome, update));
    for (float& v : update) v = static_cast<float>((v > 0) - (v < 0));
    return Contribution{};
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
