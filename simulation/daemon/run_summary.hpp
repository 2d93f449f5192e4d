#pragma once

#include <covey/metrics.hpp>
#include <optional>
#include <string>
#include <vector>

namespace covey {

/// What the devices of a run did and spent, over all its rounds, abandoned ones too.
struct FleetTotals {
  std::uint64_t selected = 0, rejected = 0, dropped = 0;
  std::uint64_t declined = 0, lost = 0, late = 0;  ///< of those that dropped out
  std::optional<double> energy_j, wasted_s;        ///< where the simulator knows them
  std::optional<double> staleness;                 ///< mean over accepted updates
};
FleetTotals fleet_totals(const std::vector<RoundMetrics>& rounds);

/// "2 declined, 3 lost, 1 late"; what did not happen is left out, "" when nothing did.
std::string drop_outs(std::uint64_t declined, std::uint64_t lost, std::uint64_t late);

/// Lines for people, each indented and ended: drop-outs by reason, and energy. Only what happened
/// and is known.
std::string fleet_summary(const FleetTotals& totals);

/// "4.2 kJ".
std::string human_joules(double joules);

}  // namespace covey
