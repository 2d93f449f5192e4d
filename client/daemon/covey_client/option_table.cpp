#include "client/daemon/covey_client/option_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <string>

namespace covey::client {
namespace {

template <typename Number>
Result<void> read_number(std::string_view text, Number lowest, Number highest, Number& out) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // Not "outside": that would let "nan" through.
  const bool inside = number >= lowest && number <= highest;
  if (error != std::errc() || end != text.data() + text.size() || !inside) {
    return invalid_argument(fmt::format("must be a number from {} to {}", lowest, highest));
  }
  out = number;
  return {};
}

Result<void> read_text(std::string_view text, std::string& out) {
  if (text.empty()) return invalid_argument("must not be empty");
  out = text;
  return {};
}

Result<void> read_flag(std::string_view text, bool& out) {
  out = text == "true";
  return {};
}

Result<void> read_size(std::string_view text, std::uint64_t& out) {
  COVEY_ASSIGN(out, parse_size(text));
  return {};
}

Result<void> read_threat_model(std::string_view text, ThreatModel& out) {
  for (const ThreatModel model :
       {ThreatModel::kNone, ThreatModel::kHonestButCurious, ThreatModel::kMaliciousServer}) {
    if (text == to_string(model)) {
      out = model;
      return {};
    }
  }
  return invalid_argument("must be none, honest-but-curious or malicious-server");
}

Result<void> read_disk_priority(std::string_view text, DiskPriority& out) {
  if (text == "idle") {
    out = DiskPriority::kIdle;
  } else if (text == "best-effort") {
    out = DiskPriority::kBestEffort;
  } else if (text == "none") {
    out = DiskPriority::kNone;
  } else {
    return invalid_argument("must be idle, best-effort or none");
  }
  return {};
}

constexpr double kMostDegrees = 200, kMostLoad = 1000;
constexpr std::uint32_t kMostDevices = 1u << 30;
constexpr double kMostTimeout = 3600;
constexpr double kMostHours = 24 * 365;
constexpr auto kMostSteps = std::numeric_limits<std::uint64_t>::max();

Result<void> read_state(std::string_view text, std::string& out) {
  COVEY_TRY(read_text(text, out));
  if (text == "none") out.clear();
  return {};
}

Result<void> read_hours(std::string_view text, std::optional<HoursOfDay>& out) {
  COVEY_ASSIGN(out, parse_hours(std::string(text)));
  return {};
}

/// `unit_s`: seconds of what the number counts.
Result<void> read_duration(std::string_view text, double lowest, double highest, double unit_s,
                           Duration& out) {
  double number = 0;
  COVEY_TRY(read_number(text, lowest, highest, number));
  out = from_seconds(number * unit_s);
  return {};
}

using Text = std::string_view;
using Into = ProgramOptions&;

const Option kWhatAndWhere[] = {
    {"config", "FILE",
     "Configuration file with these names as keys (/etc/covey/client.toml, if there)",
     [](Text text, Into into) { return read_text(text, into.config); }, true},
    {"kit", "DIR", "This device's kit: certificate, key, and where the server is",
     [](Text text, Into into) { return read_text(text, into.kit); }},
    {"data", "SPEC", "What it trains on: csv:FILE, idx:DIR, directory:DIR or stream:DIR",
     [](Text text, Into into) { return read_text(text, into.data); }},
    {"state", "DIR",
     "What survives a restart lies here ($STATE_DIRECTORY, else /var/lib/covey-client); none: "
     "nothing does",
     [](Text text, Into into) { return read_state(text, into.device.state_directory); }},
    {"server", "HOST:PORT", "The server, instead of the kit's",
     [](Text text, Into into) { return read_text(text, into.server); }},
    {"device-class", "NAME", "Kind of device this is; the server may have a plan of its own for it",
     [](Text text, Into into) { return read_text(text, into.device.device_class); }},
};

const Option kLimits[] = {
    {"max-memory", "SIZE",
     "Of the whole process, such as 24M; plans that need more are declined (any)",
     [](Text text, Into into) { return read_size(text, into.device.max_memory_bytes); }},
    {"max-state", "SIZE", "Of what is kept on disk (256M)",
     [](Text text, Into into) { return read_size(text, into.device.max_state_bytes); }},
    {"max-training-time", "HOURS",
     "Of one task, rests not counted; then it is declined. 0: as long as it takes (24)",
     [](Text text, Into into) {
       return read_duration(text, 0, kMostHours, 3600, into.device.max_training_time);
     }},
    {"answer-timeout", "SECONDS",
     "Silence after which a connection counts as dead, beyond what the bytes under way need (30)",
     [](Text text, Into into) {
       return read_duration(text, 0.1, kMostTimeout, 1, into.device.answer_timeout);
     }},
    {"nice", "0..19", "How far training stands back behind other programs (10)",
     [](Text text, Into into) { return read_number(text, 0, 19, into.priority.nice); }},
    {"ionice", "idle|best-effort|none", "The same of disks (idle)",
     [](Text text, Into into) { return read_disk_priority(text, into.priority.disk); }},
    {"only-when-idle", nullptr, "Trains only on processor time that no other program wants",
     [](Text text, Into into) { return read_flag(text, into.priority.only_when_idle); }},
};

const Option kConditions[] = {
    {"require-charging", nullptr, "Trains only while the device is charging",
     [](Text text, Into into) { return read_flag(text, into.device.rules.require_charging); }},
    {"min-battery", "0..1", "Trains only with so much of a battery, or while charging",
     [](Text text, Into into) {
       return read_number(text, 0.0, 1.0, into.device.rules.min_battery);
     }},
    {"require-unmetered", nullptr, "Uses the network only where it does not cost by the byte",
     [](Text text, Into into) { return read_flag(text, into.device.rules.require_unmetered); }},
    {"max-temperature", "CELSIUS", "Trains only below it",
     [](Text text, Into into) {
       return read_number(text, 0.0, kMostDegrees, into.device.rules.max_temperature_c);
     }},
    {"max-load", "LOAD", "Trains only while others keep each core busy for less, such as 0.5",
     [](Text text, Into into) {
       return read_number(text, 0.0, kMostLoad, into.device.rules.max_load);
     }},
    {"min-free-memory", "SIZE", "Trains only with so much memory free",
     [](Text text, Into into) { return read_size(text, into.device.rules.min_free_memory_bytes); }},
    {"min-free-disk", "SIZE", "Trains only with so much free where the state lies",
     [](Text text, Into into) { return read_size(text, into.device.rules.min_free_disk_bytes); }},
    {"hours", "HH:MM-HH:MM", "Trains only then, local time; 22:00-06:30 goes over midnight",
     [](Text text, Into into) { return read_hours(text, into.device.rules.hours); }},
};

const Option kPrivacy[] = {
    {"require-secure-aggregation", "MODE",
     "Declines sums that are not secure against a server that is honest-but-curious or a "
     "malicious-server (none)",
     [](Text text, Into into) {
       return read_threat_model(text, into.device.required_privacy.threat_model);
     }},
    {"min-corruption", "0..1",
     "Declines secure sums that reckon with fewer devices working with the server",
     [](Text text, Into into) {
       return read_number(text, 0.0, 1.0, into.device.required_privacy.corruption);
     }},
    {"min-sum", "DEVICES", "Declines secure sums of fewer devices",
     [](Text text, Into into) {
       return read_number(text, 0u, kMostDevices, into.device.required_privacy.min_devices);
     }},
    {"hide-num-examples", nullptr,
     "Does not tell at check-in how many examples there are; never told where secure aggregation "
     "is required",
     [](Text text, Into into) { return read_flag(text, into.device.hide_num_examples); }},
};

const Option kProgram[] = {
    {"once", nullptr, "Ends after one update that the server counted",
     [](Text text, Into into) { return read_flag(text, into.once); }},
    {"keep-running", nullptr, "When a run is over, asks every hour for the next instead of ending",
     [](Text text, Into into) { return read_flag(text, into.keep_running); }},
    {"self-test", nullptr, "Checks this installation without a server, a line for each thing",
     [](Text text, Into into) { return read_flag(text, into.self_test); }, true},
    {"die-at", "N", "For tests: kills itself in front of its N-th step, as a loss of power would",
     [](Text text, Into into) {
       return read_number(text, std::uint64_t{1}, kMostSteps, into.device.die_at);
     },
     true},
    {"json", nullptr, "The last line on standard output is one JSON object",
     [](Text text, Into into) { return read_flag(text, into.json); }},
    {"verbose", nullptr, "Logs every step",
     [](Text text, Into into) { return read_flag(text, into.verbose); }},
    {"version", nullptr, "Says which version this is",
     [](Text text, Into into) { return read_flag(text, into.version); }, true},
    {"help", nullptr, "Says this", [](Text text, Into into) { return read_flag(text, into.help); },
     true},
};

struct Group {
  std::string_view title;
  std::span<const Option> options;
};
const Group kGroups[] = {{"What and where", kWhatAndWhere},
                         {"How much of the device", kLimits},
                         {"When", kConditions},
                         {"Privacy", kPrivacy},
                         {"The program", kProgram}};

}  // namespace

const Option* find_option(std::string_view name) {
  for (const Group& group : kGroups) {
    for (const Option& option : group.options) {
      if (option.name == name) return &option;
    }
  }
  return nullptr;
}

std::vector<std::string_view> option_names() {
  std::vector<std::string_view> names;
  for (const Group& group : kGroups) {
    for (const Option& option : group.options) names.push_back(option.name);
  }
  return names;
}

Result<std::uint64_t> parse_size(std::string_view text) {
  const Error wrong = invalid_argument("must be a size in bytes, such as 65536, 512K, 24M or 1G");
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return wrong;
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  constexpr std::string_view kUnits = "KMG";
  if (unit.empty()) return number;
  const std::size_t power = kUnits.find(unit.front());
  if (power == std::string_view::npos || (unit.size() > 1 && unit.substr(1) != "iB")) return wrong;
  const unsigned shift = 10 * (static_cast<unsigned>(power) + 1);
  if (number > std::numeric_limits<std::uint64_t>::max() >> shift) return wrong;
  return number << shift;
}

std::string help_text() {
  constexpr std::size_t kColumn = 32;
  std::string text =
      "Trains on this device's own data for the server of a federated run, which sees updates and "
      "never data.\n\nUsage: covey-client [OPTIONS]\n";
  for (const Group& group : kGroups) {
    text += fmt::format("\n{}:\n", group.title);
    for (const Option& option : group.options) {
      std::string left = fmt::format("  --{}", option.name);
      if (option.value != nullptr) left += fmt::format(" {}", option.value);
      if (left.size() + 2 > kColumn) {  // then the sentence begins on a line of its own
        text += left + '\n';
        left.clear();
      }
      text += fmt::format("{:{}}{}\n", left, kColumn, option.help);
    }
  }
  text +=
      "\nExit code: 0 the run is over (or --once, or a signal to stop), 1 it failed, 2 wrong usage "
      "or configuration.\n"
      "Example: covey-client --kit kits/device-0000 --data csv:readings.csv --state state\n";
  return text;
}

}  // namespace covey::client
