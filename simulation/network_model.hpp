#pragma once

#include <algorithm>
#include <covey/time.hpp>
#include <cstddef>

namespace covey::simulation {

/// One direction of a device's link: bytes leave one after another at its bandwidth and arrive a
/// latency later, so messages never overtake each other.
class LinkDirection {
 public:
  /// When the last byte of a message sent now arrives. `bytes_per_s` 0: at once.
  Time arrival(Time now, std::size_t bytes, double bytes_per_s, Duration latency) {
    free_at_ = std::max(free_at_, now);
    if (bytes_per_s > 0) free_at_ += from_seconds(static_cast<double>(bytes) / bytes_per_s);
    return free_at_ + latency;
  }
  /// Everything sent from now on arrives so much later.
  void hold(Duration delay) { free_at_ += delay; }
  void reset() { free_at_ = Time{}; }

 private:
  Time free_at_{};
};

}  // namespace covey::simulation
