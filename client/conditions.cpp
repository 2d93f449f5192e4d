#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <covey/client/conditions.hpp>
#include <string_view>

namespace covey::client {
namespace {

/// What has to be gained beyond a limit before it counts as kept again.
constexpr double kTemperatureMargin = 3;  // degrees
constexpr double kBatteryMargin = 0.05;   // of a full one
constexpr double kLoadMargin = 0.1;  // a core's share, as much as a one-minute average trembles
constexpr double kFreeMargin = 0.1;  // of the memory or disk asked for

/// Where processors of small boards begin to slow down (Raspberry Pi documentation, "Frequency
/// management and thermal control": soft limit at 60 C, throttling from 80 C).
constexpr double kWarmC = 60;
constexpr double kHotC = 80;

constexpr std::uint32_t kMinutesOfDay = 24 * 60;
constexpr double kMiB = 1 << 20;

/// One bit each in Permissions::unmet: margins apply to the rules that were broken, not to the
/// others.
enum class Rule : std::uint32_t {
  kCharging = 1 << 0,
  kBattery = 1 << 1,
  kUnmetered = 1 << 2,
  kTemperature = 1 << 3,
  kLoad = 1 << 4,
  kMemory = 1 << 5,
  kDisk = 1 << 6,
  kHours = 1 << 7,
};

class Verdict {
 public:
  explicit Verdict(std::uint32_t unmet_before) : before_(unmet_before) {}

  /// `margin` where the rule was broken before, else 0.
  double margin(Rule rule, double margin) const {
    return (before_ & static_cast<std::uint32_t>(rule)) != 0 ? margin : 0.0;
  }
  void forbid(Rule rule, std::string_view reason, bool train, bool transfer) {
    permissions_.unmet |= static_cast<std::uint32_t>(rule);
    permissions_.train = permissions_.train && !train;
    permissions_.transfer = permissions_.transfer && !transfer;
    if (!permissions_.reason.empty()) permissions_.reason += "; ";
    permissions_.reason += reason;
  }
  void forbid_training(Rule rule, std::string_view reason) { forbid(rule, reason, true, false); }
  Permissions take() { return std::move(permissions_); }

 private:
  std::uint32_t before_;
  Permissions permissions_;
};

void judge_power(const ConditionRules& rules, const DeviceReadings& readings, Verdict& verdict) {
  // A machine that cannot tell has no battery.
  const bool charging = readings.charging.value_or(true);
  if (charging) return;
  if (rules.require_charging) {
    verdict.forbid_training(Rule::kCharging, "the device is not charging, the owner asks for that");
  }
  if (!(rules.min_battery > 0)) return;
  if (!readings.battery) {
    verdict.forbid(
        Rule::kBattery,
        fmt::format("the device runs on a battery that it cannot read, the owner asks for "
                    "{:.0f}% at least",
                    rules.min_battery * 100),
        true, true);
    return;
  }
  // A margin above a full battery could never be had.
  const double needed =
      std::min(1.0, rules.min_battery + verdict.margin(Rule::kBattery, kBatteryMargin));
  if (*readings.battery >= needed) return;
  verdict.forbid(Rule::kBattery,
                 fmt::format("the battery is at {:.0f}%, the owner asks for {:.0f}%",
                             *readings.battery * 100, needed * 100),
                 true, true);
}

void judge_network(const ConditionRules& rules, const DeviceReadings& readings, Verdict& verdict) {
  if (!rules.require_unmetered || !readings.metered.value_or(false)) return;
  // Training goes on: only what it makes has to wait.
  verdict.forbid(Rule::kUnmetered, "the network is metered, the owner asks for one that is not",
                 false, true);
}

void judge_temperature(const ConditionRules& rules, const DeviceReadings& readings,
                       Verdict& verdict) {
  if (!(rules.max_temperature_c > 0)) return;
  if (!readings.temperature_c) {
    return verdict.forbid_training(
        Rule::kTemperature,
        fmt::format("the device cannot read its temperature, the owner allows {:g} C",
                    rules.max_temperature_c));
  }
  const double allowed =
      rules.max_temperature_c - verdict.margin(Rule::kTemperature, kTemperatureMargin);
  if (*readings.temperature_c <= allowed) return;
  verdict.forbid_training(Rule::kTemperature,
                          fmt::format("the device is at {:.0f} C, the owner allows {:g}",
                                      *readings.temperature_c, allowed));
}

void judge_load(const ConditionRules& rules, const DeviceReadings& readings, Verdict& verdict) {
  if (!(rules.max_load > 0)) return;
  if (!readings.load) {
    return verdict.forbid_training(
        Rule::kLoad, fmt::format("the device cannot read its load, the owner allows {:g} a core",
                                 rules.max_load));
  }
  // Half the limit stays, so that a small one can be met again.
  const double allowed =
      std::max(rules.max_load / 2, rules.max_load - verdict.margin(Rule::kLoad, kLoadMargin));
  if (*readings.load <= allowed) return;
  verdict.forbid_training(
      Rule::kLoad,
      fmt::format(
          "others keep the device busy with a load of {:.2f} a core, the owner allows {:.2f}",
          *readings.load, allowed));
}

/// A rule about bytes that have to be free.
struct FreeRule {
  Rule rule;
  std::string_view what;
  std::uint64_t needed;
  std::optional<std::uint64_t> free;
};

void judge_free(const FreeRule& free, Verdict& verdict) {
  if (free.needed == 0) return;
  const double needed = static_cast<double>(free.needed);
  if (!free.free) {
    return verdict.forbid_training(
        free.rule, fmt::format("the device cannot read its free {}, the owner asks for {:.1f} MiB",
                               free.what, needed / kMiB));
  }
  const double asked = needed + verdict.margin(free.rule, kFreeMargin * needed);
  const double there = static_cast<double>(*free.free);
  if (there >= asked) return;
  verdict.forbid_training(
      free.rule, fmt::format("the device has {:.1f} MiB of free {}, the owner asks for {:.1f}",
                             there / kMiB, free.what, asked / kMiB));
}

std::string clock_time(std::uint32_t minute) {
  return fmt::format("{:02}:{:02}", minute / 60, minute % 60);
}

bool within(const HoursOfDay& hours, std::uint32_t minute) {
  if (hours.begin_minute < hours.end_minute) {
    return minute >= hours.begin_minute && minute < hours.end_minute;
  }
  return minute >= hours.begin_minute || minute < hours.end_minute;
}

void judge_hours(const ConditionRules& rules, const DeviceReadings& readings, Verdict& verdict) {
  if (!rules.hours) return;
  const std::string allowed =
      fmt::format("the owner allows {} to {}", clock_time(rules.hours->begin_minute),
                  clock_time(rules.hours->end_minute));
  if (!readings.minute_of_day) {
    verdict.forbid_training(Rule::kHours, "the device does not know the time, " + allowed);
  } else if (!within(*rules.hours, *readings.minute_of_day)) {
    verdict.forbid_training(
        Rule::kHours, fmt::format("it is {}, {}", clock_time(*readings.minute_of_day), allowed));
  }
}

/// "HH:MM", 00:00 to 24:00; nothing for anything else.
std::optional<std::uint32_t> minute_of(std::string_view text) {
  const auto digit = [&](std::size_t i) { return text[i] >= '0' && text[i] <= '9'; };
  if (text.size() != 5 || text[2] != ':') return std::nullopt;
  for (const std::size_t i : std::array<std::size_t, 4>{0, 1, 3, 4}) {
    if (!digit(i)) return std::nullopt;
  }
  const auto number = [&](std::size_t i) {
    return static_cast<std::uint32_t>((text[i] - '0') * 10 + (text[i + 1] - '0'));
  };
  const std::uint32_t minutes = number(3);
  const std::uint32_t minute = number(0) * 60 + minutes;
  if (minutes >= 60 || minute > kMinutesOfDay) return std::nullopt;
  return minute;
}

}  // namespace

Result<HoursOfDay> parse_hours(const std::string& text) {
  const auto refuse = [&](std::string_view why) {
    return invalid_argument(
        fmt::format("\"{}\" names no hours of a day: {}; write them as 22:00-06:30", text, why));
  };
  const std::size_t dash = text.find('-');
  if (dash == std::string::npos) return refuse("there is no \"-\" between two times");
  const std::string_view view = text;
  const auto begin = minute_of(view.substr(0, dash));
  const auto end = minute_of(view.substr(dash + 1));
  if (!begin || *begin == kMinutesOfDay) {
    return refuse(fmt::format("\"{}\" is no time from 00:00 to 23:59", view.substr(0, dash)));
  }
  if (!end)
    return refuse(fmt::format("\"{}\" is no time from 00:00 to 24:00", view.substr(dash + 1)));
  if (*begin == *end) return refuse("they end when they begin");
  // Until midnight: an end of 00:00 is the day's last moment.
  return HoursOfDay{*begin, *end == 0 ? kMinutesOfDay : *end};
}

Permissions permissions_of(const ConditionRules& rules, const DeviceReadings& readings,
                           const Permissions& before) {
  Verdict verdict(before.unmet);
  judge_power(rules, readings, verdict);
  judge_network(rules, readings, verdict);
  judge_temperature(rules, readings, verdict);
  judge_load(rules, readings, verdict);
  judge_free({Rule::kMemory, "memory", rules.min_free_memory_bytes, readings.free_memory_bytes},
             verdict);
  judge_free({Rule::kDisk, "disk", rules.min_free_disk_bytes, readings.free_disk_bytes}, verdict);
  judge_hours(rules, readings, verdict);
  return verdict.take();
}

void describe(const DeviceReadings& readings, DeviceConditions& conditions) {
  conditions.charging = readings.charging.value_or(true);
  conditions.metered = readings.metered.value_or(false);
  const double temperature_c = readings.temperature_c.value_or(0);
  conditions.thermal = temperature_c >= kHotC    ? ThermalState::kHot
                       : temperature_c >= kWarmC ? ThermalState::kWarm
                                                 : ThermalState::kNominal;
  conditions.free_memory_bytes = readings.free_memory_bytes.value_or(0);
}

}  // namespace covey::client
