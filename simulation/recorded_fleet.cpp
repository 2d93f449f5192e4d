#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <covey/simulation/recorded_fleet.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

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
  const ClientConfig& all = config.client;
  fleet.plans_[""] = {static_cast<double>(all.local_epochs), all.batch_size};
  for (const ClientClassConfig& one : all.classes) {
    fleet.plans_[one.name] = {static_cast<double>(one.local_epochs.value_or(all.local_epochs)),
                              one.batch_size.value_or(all.batch_size)};
  }
  fleet.partial_work_ = all.accept_partial_work;
  // A state folder that outlived its record goes on with another round than the first.
  const auto first_round = std::ranges::find_if(
      events, [](const server::FleetEvent& event) { return event.round.has_value(); });
  fleet.complete_ = !events.empty() && events.front().kind == FleetEventKind::kStarted &&
                    (first_round == events.end() || value_of(*first_round->round) <= 1);
  const double began = events.empty() ? 0 : events.front().at_s;
  for (const server::FleetEvent& event : events) {
    const double at = std::max(event.at_s - began, fleet.duration_s_);  // a clock may be set back
    if (event.kind == FleetEventKind::kStarted) fleet.restart(fleet.duration_s_);
    fleet.take(event, at);
    fleet.duration_s_ = at;
  }
  for (auto& [client, connection] : fleet.connections_) {
    if (!connection.open) continue;
    fleet.devices_[client].online.emplace_back(connection.since_s, fleet.duration_s_);
    fleet.devices_[client].online_at_end = true;
  }
  return fleet;
}

/// The server's process ended, and with it every connection.
void RecordedFleet::restart(double at_s) {
  for (auto& [client, connection] : connections_) {
    if (connection.open) devices_[client].online.emplace_back(connection.since_s, at_s);
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
  // The record may begin in the middle of a connection.
  if (!connection.known && event.kind != FleetEventKind::kConnected) connection.open = true;
  switch (event.kind) {
    case FleetEventKind::kConnected:
      if (!std::exchange(connection.open, true)) connection.since_s = at_s;
      if (connection.task) connection.task->whole = false;
      break;
    case FleetEventKind::kGone:
      if (std::exchange(connection.open, false)) {
        device.online.emplace_back(connection.since_s, at_s);
      }
      break;
    case FleetEventKind::kCheckedIn:
      device.device_class = event.device_class;
      break;
    case FleetEventKind::kAssigned:
      round_of(*event.round).cohort.insert(*event.client);
      if (connection.task && connection.task->round == *event.round) break;  // told once more
      connection.task = Task{*event.round,
                             at_s,
                             static_cast<double>(event.bytes.value_or(0)),
                             true,
                             device.device_class.value_or(""),
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

const RecordedFleet::Plan& RecordedFleet::plan_of(const std::string& device_class) const {
  const auto found = plans_.find(device_class);
  return found == plans_.end() ? plans_.at("") : found->second;
}

std::set<std::string> RecordedFleet::plans() const {
  std::set<std::string> followed;
  for (const auto& [client, device] : devices_) {
    if (!device.device_class) continue;  // never checked in
    followed.insert(plans_.contains(*device.device_class) ? *device.device_class : "");
  }
  return followed;
}

/// Of the plan's epochs, where a device that is short of time may do fewer.
double RecordedFleet::epochs_done(const Plan& plan, const server::FleetEvent& report) const {
  if (!partial_work_ || report.steps.value_or(0) == 0) return plan.local_epochs;
  const auto examples = static_cast<double>(*report.examples);
  const double steps_per_epoch =
      plan.batch_size == 0 ? 1 : std::ceil(examples / static_cast<double>(plan.batch_size));
  return std::min(plan.local_epochs, static_cast<double>(*report.steps) / steps_per_epoch);
}

/// What an accepted report says of the device's speed.
void RecordedFleet::finish_task(const Task& task, RecordedDevice& device, double at_s) const {
  if (!task.report || !task.report->seconds || !task.report->examples) return;
  const double train_s = *task.report->seconds;
  const auto examples = static_cast<double>(*task.report->examples);
  if (train_s <= 0 || examples <= 0) return;  // a device that does not tell
  const double epochs = epochs_done(plan_of(task.device_class), *task.report);
  device.example_s.push_back(train_s / (examples * epochs));
  if (!task.whole) return;  // a pause is no transfer
  device.transferred_bytes +=
      task.model_bytes + static_cast<double>(task.report->bytes.value_or(0));
  device.transfer_s += std::max(0.0, at_s - task.assigned_s - train_s);
}

std::optional<std::string> RecordedFleet::capacity_trace(std::uint32_t population,
                                                         Plans plans) const {
  struct Capacity {
    double computation, communication;
  };
  std::map<ClientId, Capacity> known;
  std::vector<double> computations, communications;
  for (const auto& [client, device] : devices_) {
    if (device.example_s.empty()) continue;
    double example_ms = 1000 * median(device.example_s);
    if (plans == Plans::kCommon) {
      example_ms *=
          plan_of(device.device_class.value_or("")).local_epochs / plan_of("").local_epochs;
    }
    Capacity capacity{std::max(example_ms / kPasses, kMinComputationMs), kMaxKbitS};
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
                          RecordedFleet::Plans plans, const std::string& folder,
                          FleetConfig& fleet) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return failed("cannot make the folder " + folder + ": " + error.message());
  fleet.mix.clear();
  if (const auto capacity = recorded.capacity_trace(population, plans)) {
    fleet.capacity_trace = std::filesystem::absolute(folder + "/capacity.json").string();
    COVEY_TRY(write_file(fleet.capacity_trace, *capacity));
    fleet.traits.latency_ms_min = fleet.traits.latency_ms_max = 0;
    for (DeviceClassConfig& one : fleet.classes) one.latency_ms_min = one.latency_ms_max = 0;
  }
  fleet.availability_trace = std::filesystem::absolute(folder + "/availability.json").string();
  return write_file(fleet.availability_trace, recorded.availability_trace(population));
}

}  // namespace covey::simulation
