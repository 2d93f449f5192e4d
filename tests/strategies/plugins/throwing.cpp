#include <covey/strategies/plugin.hpp>
#include <stdexcept>

static covey::Result<void> register_strategies(covey::strategies::Registry&) {
  throw std::runtime_error("no licence for this strategy");
}

COVEY_STRATEGY_PLUGIN(register_strategies)
