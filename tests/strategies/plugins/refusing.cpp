// Adds one strategy, then takes the name of a built-in: neither may stay.

#include <covey/strategies/plugin.hpp>

using covey::strategies::Parameters;
using covey::strategies::Strategy;

static covey::Result<std::unique_ptr<Strategy>> make(const Parameters&) {
  return covey::failed("never made");
}

static covey::Result<void> register_strategies(covey::strategies::Registry& registry) {
  COVEY_TRY(registry.add("left-behind", make));
  return registry.add("fedavg", make);
}

COVEY_STRATEGY_PLUGIN(register_strategies)
