#include "network_model.hpp"

#include <algorithm>

#include <covey/random.hpp>

namespace covey::simulation {

DeviceTraits draw_traits(const FleetConfig& fleet, std::uint64_t seed, ClientId client) {
  RandomStream random(seed, RandomPurpose::kDeviceTraits, {}, client);
  constexpr double kBytesPerMegabit = 1e6 / 8;
  DeviceTraits traits;
  traits.latency = from_seconds(random.uniform(fleet.latency_ms_min, fleet.latency_ms_max) * 1e-3);
  traits.up_bytes_per_s = random.uniform(fleet.up_mbit_s_min, fleet.up_mbit_s_max) * kBytesPerMegabit;
  traits.down_bytes_per_s =
      random.uniform(fleet.down_mbit_s_min, fleet.down_mbit_s_max) * kBytesPerMegabit;
  traits.flops_per_s = random.uniform(fleet.gflops_min, fleet.gflops_max) * 1e9;
  return traits;
}

Time LinkDirection::arrival(Time now, std::size_t bytes, double bytes_per_s, Duration latency) {
  free_at_ = std::max(free_at_, now);
  if (bytes_per_s > 0) free_at_ += from_seconds(static_cast<double>(bytes) / bytes_per_s);
  return free_at_ + latency;
}

}  // namespace covey::simulation
