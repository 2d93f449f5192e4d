#pragma once

#include <chrono>
#include <cstdint>

namespace covey {

/// Time as the state machines see it: handed in by a driver (a monotonic clock) or by the simulator
/// (virtual time). Microseconds since an origin that only the driver knows.
struct ProtocolClock {
  using rep = std::int64_t;
  using period = std::micro;
  using duration = std::chrono::microseconds;
  using time_point = std::chrono::time_point<ProtocolClock, duration>;
  static constexpr bool is_steady = true;
};

using Duration = ProtocolClock::duration;
using Time = ProtocolClock::time_point;

constexpr double seconds(Duration d) { return static_cast<double>(d.count()) * 1e-6; }
constexpr Duration from_seconds(double s) { return Duration(static_cast<std::int64_t>(s * 1e6)); }

}  // namespace covey
