#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <covey/simulation/recorded_fleet.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace covey::simulation {
namespace {

using server::FleetEventKind;

// Bounds of what a trace may say: see CapacityTrace.
constexpr double kMinComputationMs = 1e-6;
constexpr double kMinKbitS = 1e-2, kMaxKbitS = 1e9;
// Training is three passes in FedScale's count, of which a trace gives one.
constexpr double kPasses = 3;
// How long after its end a record's last connections stay: a simulation may take longer than the
// run did.
constexpr double kAfter_s = 1e8;

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Result<void> write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.flush();
  if (!file) return failed("cannot write " + path + ": " + std::strerror(errno));
  return {};
}

}  // namespace

RecordedFleet RecordedFleet::make(const std::vector<server::FleetEvent>& events,
                                  const RunConfig& config) {
  RecordedFleet fleet;
  fleet.epochs_ = config.client.local_epochs;
  const double began = events.empty() ? 0 : events.front().at_s;
  for (const server::FleetEvent& event : events) {
    const double at = std::max(event.at_s - began, fleet.duration_s_);  // a clock may be set back
    if (event.kind == FleetEventKind::kStarted) fleet.restart(fleet.duration_s_);
    fleet.take(event, at);
    fleet.duration_s_ = at;
  }
  for (auto& [client, connection] : fleet.connections_) {
    if (connection.open == 0) continue;
    fleet.devices_[client].online.emplace_back(connection.since_s, fleet.duration_s_);
    fleet.devices_[client].online_at_end = true;
  }
  return fleet;
}

/// The server's process ended, and with it every connection.
void RecordedFleet::restart(double at_s) {
  for (auto& [client, connection] : connections_) {
    if (connection.open > 0) devices_[client].online.emplace_back(connection.since_s, at_s);
    connection = {};
    connection.known = true;
  }
}

RecordedRound& RecordedFleet::round_of(RoundNumber round) {
  // What is told behind a round's end is of that round, unless it is tried again.
  if (!open_.contains(round)) {
    const auto ended =
        std::ranges::find(rounds_.rbegin(), rounds_.rend(), round, &RecordedRound::round);
    if (ended != rounds_.rend() && ended->committed) return *ended;
  }
  RecordedRound& open = open_[round];
  open.round = round;
  return open;
}

void RecordedFleet::take(const server::FleetEvent& event, double at_s) {
  if (event.kind == FleetEventKind::kCommitted || event.kind == FleetEventKind::kAbandoned) {
    RecordedRound& round = round_of(*event.round);
    round.committed = event.kind == FleetEventKind::kCommitted;
    round.duration_s = event.seconds.value_or(0);
    const auto open = open_.find(*event.round);
    if (open == open_.end()) return;  // published once more, after a restart
    rounds_.push_back(std::move(open->second));
    open_.erase(open);
    return;
  }
  if (!event.client) return;
  RecordedDevice& device = devices_[*event.client];
  Connection& connection = connections_[*event.client];
  switch (event.kind) {
    case FleetEventKind::kConnected:
      if (connection.open++ == 0) connection.since_s = at_s;
      if (connection.task) connection.task->whole = false;
      break;
    case FleetEventKind::kGone:
      // The record may begin in the middle of a connection.
      if (connection.open == 0 && connection.known) break;
      if (connection.open > 0) --connection.open;
      if (connection.open == 0) device.online.emplace_back(connection.since_s, at_s);
      break;
    case FleetEventKind::kAssigned:
      round_of(*event.round).cohort.insert(*event.client);
      if (connection.task && connection.task->round == *event.round) break;  // told once more
      connection.task = Task{*event.round, at_s, static_cast<double>(event.bytes.value_or(0)), true,
                             std::nullopt};
      break;
    case FleetEventKind::kReported:
      if (!connection.task || connection.task->round != *event.round) break;
      if (!connection.task->report) connection.task->report = event;
      break;
    case FleetEventKind::kAccepted:
      round_of(*event.round).accepted.insert(*event.client);
      if (connection.task && connection.task->round == *event.round) {
        finish_task(*connection.task, device, at_s);
        connection.task.reset();
      }
      break;
    default:
      break;
  }
  connection.known = true;
}

/// What an accepted report says of the device's speed.
void RecordedFleet::finish_task(const Task& task, RecordedDevice& device, double at_s) const {
  if (!task.report || !task.report->seconds || !task.report->examples) return;
  const double train_s = *task.report->seconds;
  const auto examples = static_cast<double>(*task.report->examples);
  if (train_s <= 0 || examples <= 0) return;  // a device that does not tell
  device.example_s.push_back(train_s / (examples * epochs_));
  if (!task.whole) return;  // a pause is no transfer
  device.transferred_bytes +=
      task.model_bytes + static_cast<double>(task.report->bytes.value_or(0));
  device.transfer_s += std::max(0.0, at_s - task.assigned_s - train_s);
}

std::optional<std::string> RecordedFleet::capacity_trace(std::uint32_t population) const {
  struct Capacity {
    double computation, communication;
  };
  std::map<ClientId, Capacity> known;
  std::vector<double> computations, communications;
  for (const auto& [client, device] : devices_) {
    if (device.example_s.empty()) continue;
    Capacity capacity{std::max(1000 * median(device.example_s) / kPasses, kMinComputationMs),
                      kMaxKbitS};
    if (device.transfer_s > 0) {
      capacity.communication =
          std::clamp(8 * device.transferred_bytes / device.transfer_s / 1000, kMinKbitS, kMaxKbitS);
    }
    known.emplace(client, capacity);
    computations.push_back(capacity.computation);
    communications.push_back(capacity.communication);
  }
  if (known.empty()) return std::nullopt;
  const Capacity usual{median(computations), median(communications)};
  std::string text = "{";
  for (std::uint32_t i = 0; i < population; ++i) {
    const auto found = known.find(static_cast<ClientId>(i));
    const Capacity& capacity = found == known.end() ? usual : found->second;
    text += fmt::format("{}\n\"{}\": {{\"computation\": {:.9g}, \"communication\": {:.9g}}}",
                        i == 0 ? "" : ",", i + 1, capacity.computation, capacity.communication);
  }
  return text + "\n}\n";
}

std::string RecordedFleet::availability_trace(std::uint32_t population) const {
  const double finish = duration_s_ + kAfter_s;
  std::string text = "{";
  for (std::uint32_t i = 0; i < population; ++i) {
    nlohmann::json active = nlohmann::json::array(), inactive = nlohmann::json::array();
    if (const auto found = devices_.find(static_cast<ClientId>(i)); found != devices_.end()) {
      const RecordedDevice& device = found->second;
      for (std::size_t k = 0; k < device.online.size(); ++k) {
        const bool stays = device.online_at_end && k + 1 == device.online.size();
        active.push_back(device.online[k].first);
        inactive.push_back(stays ? finish : device.online[k].second);
      }
    }
    text += fmt::format("{}\n\"{}\": {{\"active\": {}, \"inactive\": {}, \"finish_time\": {}}}",
                        i == 0 ? "" : ",", i + 1, active.dump(), inactive.dump(), finish);
  }
  return text + "\n}\n";
}

Result<void> write_traces(const RecordedFleet& recorded, std::uint32_t population,
                          const std::string& folder, FleetConfig& fleet) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return failed("cannot make the folder " + folder + ": " + error.message());
  fleet.mix.clear();
  fleet.classes.clear();
  if (const auto capacity = recorded.capacity_trace(population)) {
    fleet.capacity_trace = std::filesystem::absolute(folder + "/capacity.json").string();
    COVEY_TRY(write_file(fleet.capacity_trace, *capacity));
    fleet.traits.latency_ms_min = fleet.traits.latency_ms_max = 0;
  }
  fleet.availability_trace = std::filesystem::absolute(folder + "/availability.json").string();
  return write_file(fleet.availability_trace, recorded.availability_trace(population));
}

}  // namespace covey::simulation
