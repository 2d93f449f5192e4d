#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <covey/client/participant.hpp>
#include <covey/messages.hpp>
#include <covey/result.hpp>

/// When a device may work: its owner's rules, held against what the device reads of itself. No I/O.
namespace covey::client {

/// What the device knows of itself now; nothing where it cannot tell.
struct DeviceReadings {
  std::optional<bool> charging;
  std::optional<double> battery;            ///< 0..1
  std::optional<bool> metered;              ///< its network costs by the byte
  std::optional<double> temperature_c;      ///< of the hottest part that matters
  std::optional<double> load;               ///< of others' work, per core, 1 minute
  std::optional<std::uint64_t> free_memory_bytes;
  std::optional<std::uint64_t> free_disk_bytes;
  std::optional<std::uint32_t> minute_of_day;  ///< local time, 0..1439
  bool operator==(const DeviceReadings&) const = default;
};

struct HoursOfDay {
  std::uint32_t begin_minute = 0, end_minute = 24 * 60;  ///< may wrap around midnight
  bool operator==(const HoursOfDay&) const = default;
};

/// A rule about something the device cannot tell is kept, but for those about power and network where
/// that means: a machine without a battery is charging, a network that nobody calls metered is not.
struct ConditionRules {
  bool require_charging = false;
  double min_battery = 0;                    ///< 0..1, when not charging
  bool require_unmetered = false;
  double max_temperature_c = 0;              ///< 0: any
  double max_load = 0;                       ///< 0: any
  std::uint64_t min_free_memory_bytes = 0;
  std::uint64_t min_free_disk_bytes = 0;
  std::optional<HoursOfDay> hours = std::nullopt;  ///< when it may train
  bool operator==(const ConditionRules&) const = default;
};

/// "22:00-06:30". Error naming what is wrong.
Result<HoursOfDay> parse_hours(const std::string& text);

/// `now`: what was allowed before. What was forbidden is allowed again only with some margin (3 degrees,
/// 5% of battery, a tenth of memory or disk), so that it does not flap.
Permissions permissions_of(const ConditionRules& rules, const DeviceReadings& readings,
                           const Permissions& before);
/// Enters the readings into what the server is told.
void describe(const DeviceReadings& readings, DeviceConditions& conditions);

}  // namespace covey::client
