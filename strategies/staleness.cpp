#include <cmath>
#include <covey/assert.hpp>
#include <covey/strategies/staleness.hpp>

namespace covey::strategies {

double staleness_weight(const AsynchronousConfig& config, std::uint32_t staleness) {
  const double t = staleness;
  if (config.staleness == "polynomial") {
    if (config.exponent == 0.5) return 1 / std::sqrt(1 + t);  // rounded alike on every machine
    return std::pow(1 + t, -config.exponent);
  }
  if (config.staleness == "hinge") {
    return t <= config.hinge_from ? 1 : 1 / (config.hinge_slope * (t - config.hinge_from) + 1);
  }
  COVEY_ASSERT(config.staleness == "constant");
  return 1;
}

}  // namespace covey::strategies
