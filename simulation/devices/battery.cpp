#include <algorithm>

#include "device_models.hpp"
#include "device_streams.hpp"

namespace covey::simulation {
namespace {

// Our choice: a device that has not been seen for a while comes with anything from nearly empty to
// full, so that a tenth of those off their chargers is below the reserve.
constexpr double kLowestLevel = 0.1;

}  // namespace

Battery::Battery(const DeviceTraits& traits, std::uint64_t seed, ClientId client, Time now)
    : capacity_(traits.battery_joules) {
  if (capacity_ <= 0) return;
  const std::int64_t hour = floor_divide(now.time_since_epoch().count(), kHour.count());
  level_ = device_stream(seed, client, DeviceDraw::kBattery, hour).uniform(kLowestLevel, 1);
}

void Battery::spend(double joules) {
  if (capacity_ > 0) level_ = std::max(0.0, level_ - joules / capacity_);
}

void Battery::advance(Duration elapsed, bool charging) {
  if (capacity_ <= 0 || elapsed <= Duration{}) return;
  const double change =
      charging ? seconds(elapsed) / seconds(kChargeTime) : -seconds(elapsed) / seconds(kIdleTime);
  level_ = std::clamp(level_ + change, 0.0, 1.0);
}

}  // namespace covey::simulation
