#include "run_summary.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "command_line.hpp"

namespace covey {
namespace {

void add(std::optional<double>& sum, const std::optional<double>& value) {
  if (value) sum = sum.value_or(0) + *value;
}

}  // namespace

FleetTotals fleet_totals(const std::vector<RoundMetrics>& rounds) {
  FleetTotals totals;
  std::optional<double> staleness;  // summed over accepted updates
  double accepted = 0;
  for (const RoundMetrics& metrics : rounds) {
    totals.selected += metrics.selected;
    totals.rejected += metrics.rejected;
    totals.dropped += metrics.dropped;
    totals.declined += metrics.declined;
    totals.lost += metrics.lost;
    totals.late += metrics.late;
    add(totals.energy_j, metrics.energy_j);
    add(totals.wasted_s, metrics.wasted_s);
    if (!metrics.staleness) continue;
    add(staleness, *metrics.staleness * metrics.accepted);
    accepted += metrics.accepted;
  }
  if (staleness && accepted > 0) totals.staleness = *staleness / accepted;
  return totals;
}

std::string drop_outs(std::uint64_t declined, std::uint64_t lost, std::uint64_t late) {
  std::string text;
  for (const auto& [count, what] :
       {std::pair(declined, "declined"), {lost, "lost"}, {late, "late"}}) {
    if (count > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, what);
  }
  return text;
}

std::string fleet_summary(const FleetTotals& totals) {
  std::string text;
  if (totals.dropped > 0 || totals.rejected > 0) {
    const std::string reasons = drop_outs(totals.declined, totals.lost, totals.late);
    text +=
        fmt::format("  of {} selected {} dropped out{}, {} rejected\n", totals.selected,
                    totals.dropped, reasons.empty() ? "" : " (" + reasons + ")", totals.rejected);
  }
  if (totals.staleness) text += fmt::format("  staleness {:.2f} in the mean\n", *totals.staleness);
  std::string spent;
  if (totals.energy_j) spent = human_joules(*totals.energy_j) + " spent by devices";
  if (totals.wasted_s && *totals.wasted_s > 0) {
    spent += fmt::format("{}{} of their work counted for nothing", spent.empty() ? "" : "; ",
                         human_seconds(*totals.wasted_s));
  }
  if (!spent.empty()) text += "  " + spent + "\n";
  return text;
}

std::string human_joules(double joules) {
  for (const char* unit : {"J", "kJ", "MJ"}) {
    if (joules < 1000) return fmt::format("{:.3g} {}", joules, unit);
    joules /= 1000;
  }
  return fmt::format("{:.3g} GJ", joules);
}

}  // namespace covey
