#pragma once

#include <cstddef>
#include <cstdint>

#include <covey/ids.hpp>
#include <covey/run_config.hpp>
#include <covey/time.hpp>

namespace covey::simulation {

/// What a virtual device can do, drawn once from the fleet's ranges.
struct DeviceTraits {
  Duration latency{};         ///< one way
  double up_bytes_per_s = 0;  ///< 0: unlimited
  double down_bytes_per_s = 0;
  double flops_per_s = 1e9;
};
DeviceTraits draw_traits(const FleetConfig& fleet, std::uint64_t seed, ClientId client);

/// One direction of a device's link: bytes leave one after another at its bandwidth and arrive a
/// latency later, so messages never overtake each other.
class LinkDirection {
 public:
  /// When the last byte of a message sent now arrives.
  Time arrival(Time now, std::size_t bytes, double bytes_per_s, Duration latency);
  void reset() { free_at_ = Time{}; }

 private:
  Time free_at_{};
};

}  // namespace covey::simulation
