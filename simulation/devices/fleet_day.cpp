#include "fleet_day.hpp"

#include <algorithm>

namespace covey::simulation {
namespace {

/// Adds one device to the counts of every step.
void count_device(const DeviceModels& models, ClientId client, FleetDay& day) {
  Surroundings now = models.surroundings(client, Time{});
  for (std::size_t i = 0; i < day.online.size(); ++i) {
    const Time at = Time(static_cast<std::int64_t>(i) * day.step);
    // What lies between two steps is passed over.
    if (now.until <= at) now = models.surroundings(client, at);
    day.online[i] += now.online ? 1 : 0;
    day.charging[i] += now.online && now.charging && !now.metered ? 1 : 0;
  }
}

FleetDay::Row row_of(const DeviceModels& models, ClientId client, Duration length) {
  FleetDay::Row row{client, models.traits(client).device_class, {}};
  const Time end(length);
  for (Time at{}; at < end;) {
    const Surroundings now = models.surroundings(client, at);
    const Time until = std::min(now.until, end);
    if (now.online) {
      const bool charging = now.charging && !now.metered;
      auto& stretches = row.online;
      const bool goes_on = !stretches.empty() && stretches.back().ends == at &&
                           stretches.back().charging == charging;
      if (goes_on) {
        stretches.back().ends = until;
      } else {
        stretches.push_back({at, until, charging});
      }
    }
    at = until;
  }
  return row;
}

}  // namespace

FleetDay observe_day(const DeviceModels& models, const FleetDayOptions& options) {
  FleetDay day;
  day.length = options.length;
  day.step = options.step;
  const auto steps = static_cast<std::size_t>(options.length / options.step) + 1;
  day.online.assign(steps, 0);
  day.charging.assign(steps, 0);
  const auto spread = [&](std::uint64_t i, std::uint64_t of) {
    return ClientId{i * options.population / of};
  };
  for (std::uint64_t i = 0; i < options.devices; ++i) {
    count_device(models, spread(i, options.devices), day);
  }
  for (std::size_t i = 0; i < steps; ++i) {
    day.online[i] /= static_cast<double>(options.devices);
    day.charging[i] /= static_cast<double>(options.devices);
  }
  const std::uint64_t rows = std::min<std::uint64_t>(options.rows, options.devices);
  for (std::uint64_t i = 0; i < rows; ++i) {
    day.rows.push_back(row_of(models, spread(i, rows), options.length));
  }
  std::ranges::stable_sort(day.rows, {}, &FleetDay::Row::device_class);
  return day;
}

}  // namespace covey::simulation
