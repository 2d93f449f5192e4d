#pragma once

#include <covey/ids.hpp>
#include <covey/random.hpp>
#include <covey/time.hpp>
#include <cstdint>

namespace covey::simulation {

/// What is drawn of a virtual device, each with a stream of its own. Part of what makes a run
/// reproducible: never renumber.
enum class DeviceDraw : std::uint32_t {
  kTraits = 0,      ///< class, speed, links
  kHabits = 1,      ///< time zone, usual bedtime
  kNight = 2,       ///< by local day: when and how long it charges
  kWakingHour = 3,  ///< by local hour: what it does off its night charger
  kOutages = 4,     ///< by day: when a flaky device is away
  kBattery = 5,     ///< by hour: the level it wakes up with
};

/// `index` < 2^28: a day, or an hour, of which there are 277,778 in the 1e9 seconds a run may last.
inline RandomStream device_stream(std::uint64_t seed, ClientId client, DeviceDraw what,
                                  std::int64_t index = 0) {
  const auto round = (static_cast<std::uint32_t>(what) << 28) |
                     (static_cast<std::uint32_t>(index) & ((1U << 28) - 1));
  return RandomStream(seed, RandomPurpose::kDeviceTraits, RoundNumber{round}, client);
}

/// Rounded towards the past, also before the origin.
constexpr std::int64_t floor_divide(std::int64_t value, std::int64_t by) {
  return value / by - (value % by < 0 ? 1 : 0);
}

inline constexpr Duration kMinute = std::chrono::minutes(1);
inline constexpr Duration kHour = std::chrono::hours(1);
inline constexpr Duration kDay = std::chrono::hours(24);

constexpr Duration hours(double count) { return from_seconds(3600 * count); }

}  // namespace covey::simulation
