#pragma once

#include <chrono>
#include <covey/metrics.hpp>
#include <cstdint>

namespace covey {

/// Tells a person how a run goes on standard error: one line that rewrites itself on a terminal,
/// and now and then a plain line elsewhere.
class ProgressLine {
 public:
  ProgressLine(std::uint32_t num_rounds, bool quiet);
  ~ProgressLine();
  void show(const RoundMetrics& metrics);

 private:
  std::uint32_t num_rounds_;
  bool quiet_;
  bool terminal_;
  bool open_ = false;                ///< the terminal's line holds something
  double accuracy_ = -1, loss_ = 0;  ///< of the last evaluated round
  std::uint32_t first_round_ = 0;
  std::uint64_t bytes_ = 0;
  double energy_j_ = 0;
  std::chrono::steady_clock::time_point began_, last_shown_;
};

}  // namespace covey
