#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <covey/server/fleet_record.hpp>
#include <cstring>
#include <filesystem>
#include <span>
#include <utility>

namespace covey::server {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHeader = "time_s,event,device,round,bytes,seconds,examples,steps,class";
constexpr std::size_t kColumns = 9;
constexpr std::size_t kMostClassName = 32;  // as in a run file
/// In the order of FleetEventKind.
constexpr std::array<std::string_view, 12> kKinds = {
    "started",  "connected", "gone",     "checked-in", "assigned",  "reported",
    "declined", "accepted",  "rejected", "void",       "committed", "abandoned"};

/// Of a run file's classes: what a device says may be anything.
bool is_class_name(std::string_view name) {
  return !name.empty() && name.size() <= kMostClassName && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

template <typename Value>
std::string cell(const std::optional<Value>& value) {
  return value ? fmt::format("{}", *value) : "";
}

template <typename Id>
std::string id_cell(const std::optional<Id>& id) {
  return id ? fmt::format("{}", value_of(*id)) : "";
}

std::string line_of(const FleetEvent& event) {
  return fmt::format("{:.6f},{},{},{},{},{},{},{},{}\n", event.at_s,
                     kKinds[static_cast<std::size_t>(event.kind)], id_cell(event.client),
                     id_cell(event.round), cell(event.bytes), cell(event.seconds),
                     cell(event.examples), cell(event.steps), event.device_class);
}

/// Nothing for an empty cell; `good` becomes false where the text is no such number.
template <typename Value>
std::optional<Value> parse(std::string_view text, bool& good) {
  if (text.empty()) return std::nullopt;
  Value value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) good = false;
  return value;
}

std::optional<FleetEvent> parse_line(std::string_view line) {
  std::array<std::string_view, kColumns> cells;
  for (std::size_t i = 0; i < kColumns; ++i) {
    const std::size_t end = line.find(',');
    if ((end == std::string_view::npos) != (i + 1 == kColumns)) return std::nullopt;
    cells[i] = line.substr(0, end);
    line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  }
  bool good = true;
  FleetEvent event;
  const auto at = parse<double>(cells[0], good);
  const auto kind = std::find(kKinds.begin(), kKinds.end(), cells[1]);
  if (!at || !std::isfinite(*at) || kind == kKinds.end()) return std::nullopt;
  event.at_s = *at;
  event.kind = static_cast<FleetEventKind>(kind - kKinds.begin());
  if (const auto client = parse<std::uint64_t>(cells[2], good)) {
    event.client = static_cast<ClientId>(*client);
  }
  if (const auto round = parse<std::uint32_t>(cells[3], good)) {
    event.round = static_cast<RoundNumber>(*round);
  }
  event.bytes = parse<std::uint64_t>(cells[4], good);
  event.seconds = parse<double>(cells[5], good);
  event.examples = parse<std::uint64_t>(cells[6], good);
  event.steps = parse<std::uint32_t>(cells[7], good);
  event.device_class = cells[8];
  if (!event.device_class.empty() && !is_class_name(event.device_class)) good = false;
  const bool of_device =
      event.kind != FleetEventKind::kStarted && event.kind < FleetEventKind::kCommitted;
  const bool of_round = event.kind >= FleetEventKind::kAssigned;
  if (of_device != event.client.has_value() || of_round != event.round.has_value()) good = false;
  if (event.seconds && !(std::isfinite(*event.seconds) && *event.seconds >= 0)) good = false;
  if (!good) return std::nullopt;
  return event;
}

Result<void> read_file(const std::string& path, std::vector<FleetEvent>& events) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return failed("cannot read " + path + ": " + std::strerror(errno));
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    if (file.eof()) break;  // cut off by the end of the process that wrote it
    if (number == 1 && line == kHeader) continue;
    const auto event = number > 1 ? parse_line(line) : std::nullopt;
    if (!event) {
      return malformed(
          fmt::format("{}:{}: expected {}", path, number, number == 1 ? kHeader : "an event"));
    }
    events.push_back(*event);
  }
  return {};
}

}  // namespace

Result<FleetRecord> FleetRecord::open(Options options) {
  const Time now = options.now;
  FleetRecord record(std::move(options));
  const std::string path = record.path();
  std::error_code ignored;
  if (fs::exists(path, ignored)) {
    std::ifstream file(path, std::ios::binary);
    std::uint64_t whole = 0;  // bytes of whole lines
    std::string line;
    while (std::getline(file, line) && !file.eof()) whole += line.size() + 1;
    file.close();
    std::error_code error;
    fs::resize_file(path, whole, error);
    if (error) return failed("cannot write " + path + ": " + error.message());
    record.bytes_ = whole;
  }
  COVEY_TRY(record.begin_file());
  record.write({0, FleetEventKind::kStarted}, now);
  record.file_.flush();
  if (record.problem_) return *record.problem_;
  return record;
}

/// Opens the file behind what it holds; a new one gets its header.
Result<void> FleetRecord::begin_file() {
  file_ = std::ofstream(path(), std::ios::binary | std::ios::app);
  if (bytes_ == 0) {
    file_ << kHeader << '\n';
    bytes_ = kHeader.size() + 1;
  }
  if (!file_) return failed("cannot write " + path() + ": " + std::strerror(errno));
  return {};
}

void FleetRecord::write(FleetEvent event, Time now) {
  if (problem_) return;
  event.at_s = options_.unix_now_s + seconds(now - options_.now);
  const std::string line = line_of(event);
  if (bytes_ + line.size() > options_.max_bytes) {
    file_.close();
    std::error_code error;
    fs::rename(path(), options_.folder + "/fleet.1.csv", error);
    bytes_ = 0;
    if (auto begun = begin_file(); error || !begun.ok()) {
      problem_ = error ? failed("cannot rename " + path() + ": " + error.message()) : begun.error();
      return;
    }
  }
  file_ << line;
  bytes_ += line.size();
  if (!file_) problem_ = failed("cannot write " + path() + ": " + std::strerror(errno));
}

/// Unless the device has said enough since a round last ended.
bool FleetRecord::write(FleetEvent event, Time now, Device& device) {
  if (std::exchange(device.counted_behind, ends_) != ends_) device.lines = 0;
  if (device.lines == kMostLines) {
    silenced_.insert(*event.client);
    return false;
  }
  ++device.lines;
  write(std::move(event), now);
  return true;
}

/// Where the record has another word on whether the device is there.
void FleetRecord::show_connection(ClientId client, Device& device, Time now) {
  const bool there = device.connections > 0;
  if (there == device.shown) return;
  const auto kind = there ? FleetEventKind::kConnected : FleetEventKind::kGone;
  if (write({0, kind, client}, now, device)) device.shown = there;
}

void FleetRecord::connected(Time now, ClientId client) {
  Device& device = devices_[client];
  ++device.connections;
  device.checked_in = false;
  if (write({0, FleetEventKind::kConnected, client}, now, device)) device.shown = true;
}

void FleetRecord::gone(Time now, ClientId client) {
  Device& device = devices_[client];
  if (device.connections > 0) --device.connections;
  show_connection(client, device, now);
}

void FleetRecord::received(Time now, ClientId client, const ClientMessage& message) {
  Device& device = devices_[client];
  if (const auto* check_in = std::get_if<CheckIn>(&message)) {
    const std::string& said = check_in->conditions.device_class;
    const std::string_view named = is_class_name(said) ? std::string_view(said) : "";
    if (device.checked_in && device.device_class == named) return;
    FleetEvent event{0, FleetEventKind::kCheckedIn, client};
    event.device_class = named;
    if (!write(event, now, device)) return;
    device.checked_in = true;
    device.device_class = named;
  } else if (const auto* decline = std::get_if<Decline>(&message)) {
    end_task({0, FleetEventKind::kDeclined, client, decline->round}, device, now);
  } else if (const auto* report = std::get_if<Report>(&message)) {
    take_report(client, device, *report, now);
  }
}

void FleetRecord::take_report(ClientId client, Device& device, const Report& report, Time now) {
  if (device.task != report.round || device.reported) return;
  FleetEvent event{0, FleetEventKind::kReported, client, report.round, report.blob_size};
  // A device says what it likes; what is no time is not written down.
  if (std::isfinite(report.train_seconds) && report.train_seconds >= 0) {
    event.seconds = report.train_seconds;
  }
  event.examples = report.num_examples;
  event.steps = report.steps;
  device.reported = write(event, now, device);
}

/// Of the task at hand; what is said of any other is a repetition, or nonsense.
void FleetRecord::end_task(FleetEvent event, Device& device, Time now) {
  if (device.task != event.round) return;
  device.task.reset();
  write(std::move(event), now, device);
}

void FleetRecord::sent(Time now, ClientId client, const ServerMessage& message) {
  Device& device = devices_[client];
  if (const auto* assignment = std::get_if<Assignment>(&message)) {
    // A device that checks in while it has a task is told it once more.
    if (device.task == assignment->round && device.assigned_behind == ends_) return;
    FleetEvent event{0, FleetEventKind::kAssigned, client, assignment->round,
                     assignment->model_size};
    if (!write(event, now, device)) return;
    device.task = assignment->round;
    device.assigned_behind = ends_;
    device.reported = device.checked_in = false;
  } else if (const auto* accepted = std::get_if<ReportAccepted>(&message)) {
    end_task({0, FleetEventKind::kAccepted, client, accepted->round}, device, now);
  } else if (const auto* rejected = std::get_if<ReportRejected>(&message)) {
    const auto task = device.task;
    end_task({0, FleetEventKind::kRejected, client, rejected->round}, device, now);
    // It may report the same again when the server is well.
    if (rejected->reason == RejectReason::kServerFailed) device.task = task;
  } else if (const auto* over = std::get_if<RoundOver>(&message)) {
    end_task({0, FleetEventKind::kVoid, client, over->round}, device, now);
  }
}

void FleetRecord::ended(Time now, const RoundMetrics& metrics) {
  FleetEvent event{0, metrics.committed ? FleetEventKind::kCommitted : FleetEventKind::kAbandoned,
                   std::nullopt, metrics.round};
  event.seconds = seconds(metrics.ended - metrics.started);
  write(event, now);
  ++ends_;
  for (const ClientId client : std::exchange(silenced_, {})) {
    show_connection(client, devices_[client], now);
  }
  file_.flush();
}

Result<std::vector<FleetEvent>> read_fleet_record(const std::string& folder) {
  std::vector<FleetEvent> events;
  std::error_code ignored;
  bool found = false;
  for (const char* name : {"/fleet.1.csv", "/fleet.csv"}) {
    if (!fs::exists(folder + name, ignored)) continue;
    found = true;
    COVEY_TRY(read_file(folder + name, events));
  }
  if (!found) {
    return not_found("no " + folder + "/fleet.csv; name the --state folder of a `covey server`");
  }
  return events;
}

}  // namespace covey::server
