#pragma once

#include <covey/result.hpp>
#include <string>

namespace covey::client {

enum class DiskPriority : unsigned char { kNone, kBestEffort, kIdle };

struct BackgroundPriority {
  int nice = 10;  ///< 0..19, of processor time; a thread that stands back further stays so
  DiskPriority disk = DiskPriority::kIdle;  ///< kNone: as it is
  /// The processor only where nothing else wants it (SCHED_IDLE), whatever `nice` says. Else the
  /// scheduler is told that the thread computes without being waited for (SCHED_BATCH).
  bool only_when_idle = false;
};

/// Of the calling thread alone: one that answers the network or a person keeps its own. Error: what
/// the system refuses, by name; the rest is set all the same.
Result<void> set_background_priority(const BackgroundPriority& priority);

}  // namespace covey::client
