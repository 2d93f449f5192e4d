#include "client/daemon/covey_client/option_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

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

#define COVEY_OPTION_SETTER [](std::string_view text, ProgramOptions & options) -> Result<void>

constexpr double kMostDegrees = 200, kMostLoad = 1000;
constexpr std::uint32_t kMostDevices = 1u << 30;
constexpr double kMostTimeout = 3600;
constexpr double kMostHours = 24 * 365;

const Option kOptions[] = {
    {"config", "FILE",
     "Configuration file with these names as keys (/etc/covey/client.toml, if there)",
     COVEY_OPTION_SETTER{return read_text(text, options.config);
}  // namespace
, true
}  // namespace covey::client
, {"kit", "DIR", "This device's kit: certificate, key, and where the server is",
   COVEY_OPTION_SETTER{return read_text(text, options.kit);
}
}
, {"data", "SPEC", "What it trains on: csv:FILE, idx:DIR, directory:DIR or stream:DIR",
   COVEY_OPTION_SETTER{return read_text(text, options.data);
}
}
, {"state", "DIR",
   "What survives a restart lies here ($STATE_DIRECTORY, else /var/lib/covey-client); "
   "none: nothing does",
   COVEY_OPTION_SETTER{COVEY_TRY(read_text(text, options.device.state_directory));
if (text == "none") options.device.state_directory.clear();
return {};
}
}
, {"server", "HOST:PORT", "The server, instead of the kit's",
   COVEY_OPTION_SETTER{return read_text(text, options.server);
}
}
, {"device-class", "NAME", "Kind of device this is; the server may have a plan of its own for it",
   COVEY_OPTION_SETTER{return read_text(text, options.device.device_class);
}
}
, {"max-memory", "SIZE",
   "Of the whole process, such as 24M; plans that need more are declined (any)",
   COVEY_OPTION_SETTER{return read_size(text, options.device.max_memory_bytes);
}
}
, {"max-state", "SIZE", "Of what is kept on disk (256M)",
   COVEY_OPTION_SETTER{return read_size(text, options.device.max_state_bytes);
}
}
, {"max-training-time", "HOURS",
     "Of one task, rests not counted; then it is declined. 0: as long as it takes (24)",
     COVEY_OPTION_SETTER {
       double hours = 0;
       COVEY_TRY(read_number(text, 0.0, kMostHours, hours));
       options.device.max_training_time = from_seconds(hours * 3600);
       return {};
     }},
    {"nice", "0..19", "How far training stands back behind other programs (10)",
   COVEY_OPTION_SETTER{return read_number(text, 0, 19, options.priority.nice);
}
}
, {"ionice", "idle|best-effort|none", "The same of disks (idle)",
   COVEY_OPTION_SETTER{return read_disk_priority(text, options.priority.disk);
}
}
, {"only-when-idle", nullptr, "Trains only on processor time that no other program wants",
   COVEY_OPTION_SETTER{return read_flag(text, options.priority.only_when_idle);
}
}
, {"require-charging", nullptr, "Trains only while the device is charging",
   COVEY_OPTION_SETTER{return read_flag(text, options.device.rules.require_charging);
}
}
, {"min-battery", "0..1", "Trains only with so much of a battery, or while charging",
   COVEY_OPTION_SETTER{return read_number(text, 0.0, 1.0, options.device.rules.min_battery);
}
}
, {"require-unmetered", nullptr, "Uses the network only where it does not cost by the byte",
   COVEY_OPTION_SETTER{return read_flag(text, options.device.rules.require_unmetered);
}
}
, {"max-temperature", "CELSIUS", "Trains only below it",
   COVEY_OPTION_SETTER{
       return read_number(text, 0.0, kMostDegrees, options.device.rules.max_temperature_c);
}
}
, {"max-load", "LOAD", "Trains only while others keep each core busy for less, such as 0.5",
   COVEY_OPTION_SETTER{return read_number(text, 0.0, kMostLoad, options.device.rules.max_load);
}
}
, {"min-free-memory", "SIZE", "Trains only with so much memory free",
   COVEY_OPTION_SETTER{return read_size(text, options.device.rules.min_free_memory_bytes);
}
}
, {"min-free-disk", "SIZE", "Trains only with so much free where the state lies",
   COVEY_OPTION_SETTER{return read_size(text, options.device.rules.min_free_disk_bytes);
}
}
, {"hours", "HH:MM-HH:MM", "Trains only then, local time; 22:00-06:30 goes over midnight",
   COVEY_OPTION_SETTER{COVEY_ASSIGN(options.device.rules.hours, parse_hours(std::string(text)));
return {};
}
}
, {"require-secure-aggregation", "MODE",
   "Declines sums that are not secure against a server that is honest-but-curious or a "
   "malicious-server (none)",
   COVEY_OPTION_SETTER{return read_threat_model(text, options.device.required_privacy.threat_model);
}
}
, {"min-corruption", "0..1",
   "Declines secure sums that reckon with fewer devices working with the server",
   COVEY_OPTION_SETTER{
       return read_number(text, 0.0, 1.0, options.device.required_privacy.corruption);
}
}
, {"min-sum", "DEVICES", "Declines secure sums of fewer devices",
   COVEY_OPTION_SETTER{
       return read_number(text, 0u, kMostDevices, options.device.required_privacy.min_devices);
}
}
, {"hide-num-examples", nullptr,
   "Does not tell at check-in how many examples there are; never told where secure aggregation is "
   "required",
   COVEY_OPTION_SETTER{return read_flag(text, options.device.hide_num_examples);
}
}
, {"answer-timeout", "SECONDS",
   "Silence after which a connection counts as dead, beyond what the bytes under way need (30)",
   COVEY_OPTION_SETTER{double seconds = 0;
COVEY_TRY(read_number(text, 0.1, kMostTimeout, seconds));
options.device.answer_timeout = from_seconds(seconds);
return {};
}
}
, {"once", nullptr, "Ends after one update that the server counted",
   COVEY_OPTION_SETTER{return read_flag(text, options.once);
}
}
, {"keep-running", nullptr, "When a run is over, asks every hour for the next instead of ending",
   COVEY_OPTION_SETTER{return read_flag(text, options.keep_running);
}
}
, {"self-test", nullptr, "Checks this installation without a server, a line for each thing",
   COVEY_OPTION_SETTER{return read_flag(text, options.self_test);
}
, true
}
, {"die-at", "N", "For tests: kills itself in front of its N-th step, as a loss of power would",
   COVEY_OPTION_SETTER{return read_number(
       text, std::uint64_t{1}, std::numeric_limits<std::uint64_t>::max(), options.device.die_at);
}
, true
}
, {"json", nullptr, "The last line on standard output is one JSON object",
   COVEY_OPTION_SETTER{return read_flag(text, options.json);
}
}
, {"verbose", nullptr, "Logs every step",
   COVEY_OPTION_SETTER{return read_flag(text, options.verbose);
}
}
, {"version", nullptr, "Says which version this is",
   COVEY_OPTION_SETTER{return read_flag(text, options.version);
}
, true
}
, {"help", nullptr, "Says this", COVEY_OPTION_SETTER{return read_flag(text, options.help);
}
, true
}
,
}
;

}  // namespace

std::span<const Option> all_options() { return kOptions; }

const Option* find_option(std::string_view name) {
  const auto found = std::find_if(std::begin(kOptions), std::end(kOptions),
                                  [&](const Option& option) { return option.name == name; });
  return found == std::end(kOptions) ? nullptr : found;
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
  std::string text =
      "Trains on this device's own data for the server of a federated run, which sees updates and "
      "never data.\n\nUsage: covey-client [OPTIONS]\n\n";
  for (const Option& option : kOptions) {
    std::string left = fmt::format("  --{}", option.name);
    if (option.value != nullptr) left += fmt::format(" {}", option.value);
    // Where the left side is long, the sentence begins on a line of its own.
    constexpr std::size_t kColumn = 32;
    if (left.size() + 2 > kColumn) {
      text += left + '\n';
      left.clear();
    }
    text += fmt::format("{:{}}{}\n", left, kColumn, option.help);
  }
  text +=
      "\nExit code: 0 the run is over (or --once, or a signal to stop), 1 it failed, 2 wrong usage "
      "or "
      "configuration.\n"
      "Example: covey-client --kit kits/device-0000 --data csv:readings.csv --state state\n";
  return text;
}

}  // namespace covey::client
