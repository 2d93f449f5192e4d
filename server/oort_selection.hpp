#pragma once

#include <covey/ids.hpp>
#include <covey/random.hpp>
#include <covey/run_config.hpp>
#include <cstddef>
#include <deque>
#include <vector>

#include "cohort_selection.hpp"
#include "device_history.hpp"

namespace covey::server {

/// Oort (Lai et al. 2021, Alg. 1): most of a cohort are devices known to be useful to the model and
/// fast enough, the rest devices not tried yet. Its state is the pacer's, which decides how slow is
/// too slow. One thread at a time.
class OortPreferences {
 public:
  explicit OortPreferences(const SelectionConfig& config);

  /// `pool`: sorted by client, at least `count`; drawn without replacement. O(pool log pool).
  std::vector<ClientId> draw(const std::vector<Candidate>& pool, std::size_t count,
                             RoundNumber round, const DeviceHistory& history,
                             RandomStream random) const;
  /// A round was committed whose counted devices had this statistical utility together.
  void round_committed(double utility);
  /// A round was abandoned: it will be drawn again.
  void round_abandoned() { ++abandoned_; }

  /// Share of a cohort that is for devices not tried yet. It decays by the draw, so also where
  /// rounds are abandoned.
  double exploration(RoundNumber round) const;
  /// Devices slower than this percentile of the waiting ones' durations are less preferred; 100:
  /// none.
  double preferred_percentile() const { return percentile_; }

 private:
  struct Explored;
  std::vector<Explored> score(const std::vector<Candidate>& pool, RoundNumber round,
                              const DeviceHistory& history) const;

  double exploration_;
  double exploration_decay_;
  double exploration_min_;
  double round_penalty_;  ///< alpha
  double percentile_;
  std::uint32_t abandoned_ = 0;   ///< rounds, since the server started
  std::deque<double> utilities_;  ///< of the last rounds, at most two windows
};

}  // namespace covey::server
