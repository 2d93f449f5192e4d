#include "fleet.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/proto/codec.hpp>
#include <utility>

#include "attack.hpp"
#include "local_worker.hpp"

// The event loop and the network. fleet_devices.cpp has the devices' side, fleet_server.cpp the
// server's.
namespace covey::simulation {
namespace {

// No fleet that will ever form a round takes longer to.
constexpr Duration kLongestStandstill = std::chrono::hours(30 * 24);
constexpr std::size_t kFramePrefix = 8;  // bytes in front of every frame on the wire

/// Connections are numbered in order; whose one is can be read from its number.
ConnectionId connection_id(std::uint32_t number, std::uint32_t device) {
  return static_cast<ConnectionId>(std::uint64_t{number} << 32 | device);
}
std::uint32_t device_of(ConnectionId connection) {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(value_of(connection)));
}

Result<ClientMessage> decode(const proto::Encoded& encoded, const ClientMessage&) {
  return proto::decode_client_message(encoded.header, encoded.payload);
}
Result<ServerMessage> decode(const proto::Encoded& encoded, const ServerMessage&) {
  return proto::decode_server_message(encoded.header, encoded.payload);
}

}  // namespace

Fleet::Fleet(const Experiment& experiment, const strategies::Registry& registry,
             const SimulationOptions& options, Parts parts)
    : experiment_(experiment),
      options_(options),
      models_(std::move(parts.models)),
      identities_(std::move(parts.identities)),
      request_bytes_(parts.request_bytes),
      boot_server_(std::move(parts.boot_server)),
      server_(std::move(parts.server)),
      pool_(experiment, registry, training_secrets(experiment.config.seed), options.threads,
            options.more_workers ? options.more_workers()
                                 : std::vector<std::unique_ptr<TrainingWorker>>()),
      evaluator_(std::move(parts.evaluator)),
      devices_(experiment.population()),
      records_(experiment.population()),
      journal_(std::move(parts.journal)),
      put_back_(std::move(parts.put_back)),
      noise_bytes_(std::move(parts.noise_bytes)),
      began_(std::chrono::steady_clock::now()) {
  if (options.stop != nullptr) pool_.stop_with(*options.stop);
}

Result<SimulationResult> Fleet::run() {
  COVEY_TRY(prepare_faults());
  server::Actions actions;
  server_->coordinator.start(now_, actions);
  carry_out(actions);
  schedule_first_wakes();
  const double max_hours = experiment_.config.fleet.max_hours;
  const Time end = max_hours > 0 ? Time{} + from_seconds(max_hours * 3600) : Time::max();
  while (!finished_ && !internal_error_ && !queue_.empty()) {
    if (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed)) {
      result_.finished = false;
      break;
    }
    if (queue_.next_at() > end) {
      now_ = end;
      finished_ = server::RunFinished{true, "fleet.max-hours of virtual time are over"};
      break;
    }
    auto [at, event] = queue_.pop();
    now_ = at;
    dispatch(std::move(event));
    rest();
    if (now_ - last_commit_ > kLongestStandstill) internal_error_ = stands_still();
    if (invariants_) check_progress();
  }
  if (faults_ || invariants_) check_end();
  if (internal_error_) return *internal_error_;
  if (recalling()) return recalled_too_little();
  if (finished_ && !finished_->ok) return failed(finished_->reason);
  if (now_ == end && value_of(server_->coordinator.committed_round()) == 0) return stands_still();
  if (!finished_ && result_.finished) {
    return failed("the run stands still in round " +
                  std::to_string(value_of(server_->coordinator.committed_round()) + 1) +
                  ": no device and no deadline is left to move it (" +
                  server_->coordinator.status_json(now_) + ")");
  }
  if (finished_) result_.reason = finished_->reason;
  if (const auto privacy = server_->pipeline.privacy_status())
    result_.guarantee = privacy->guarantee;
  result_.committed = value_of(server_->coordinator.committed_round());
  result_.model = server_->coordinator.model();
  result_.virtual_s = seconds(now_.time_since_epoch());
  result_.wall_s = elapsed_s();
  if (has_accuracy(experiment_.plan.model)) {
    result_.fairness = fairness(evaluator_.accuracies(
        experiment_.data.test, experiment_.tested_devices(), server_->pipeline.model().span()));
  }
  if (experiment_.config.attack.kind == "backdoor") {
    result_.backdoor =
        experiment_.attack->backdoor_success(evaluator_, server_->pipeline.model().span());
  }
  return std::move(result_);
}

Error Fleet::stands_still() const {
  constexpr double kHour = 3600;
  return failed(fmt::format(
      "no round was committed in {:.3g} hours of virtual time: too few devices are there at once, or too "
      "few can finish{}{}",
      seconds(now_ - last_commit_) / kHour,
      problem_of_round_.empty() ? "" : " (" + problem_of_round_ + ")",
      server_ ? "; the server: " + server_->coordinator.status_json(now_) : ""));
}

void Fleet::dispatch(Event event) {
  std::visit([this](auto& e) { on(e); }, event);
}

void Fleet::on(ToServer& event) {
  // What was sent before the device hung up still arrives, also when it sleeps by then.
  if (records_[event.device].server_connection != event.connection) return;
  if (!event.message) return drop_damaged(event);
  if (invariants_) {
    invariants_->received(static_cast<ClientId>(event.device), event.connection, *event.message);
  }
  tell_server(server::Received{event.connection, std::move(*event.message)});
}

void Fleet::on(ToDevice& event) {
  Device* device = devices_[event.device].get();
  if (device == nullptr || device->connection != event.connection) return;
  if (!event.message) return drop_damaged(event);
  const LeavesIn step = device->leaves_in;
  if (step != LeavesIn::kTraining && begins(step, *event.message)) return leave(event.device);
  if (const auto* assignment = std::get_if<Assignment>(event.message.get())) {
    device->report_by = now_ + assignment->report_within;
  }
  tell_device(event.device, client::Received{std::move(*event.message)});
}

void Fleet::on(const LinkUp& event) {
  Device* device = devices_[event.device].get();
  if (device == nullptr || device->dial != event.dial) return;
  if (!server_) {  // nobody listens
    tell_device(event.device, client::ConnectionLost{"connection refused"});
    return;
  }
  const ConnectionId connection = connection_id(++connections_, event.device);
  device->connection = connection;
  records_[event.device].server_connection = connection;
  device->up.reset();
  device->down.reset();
  tell_server(server::DeviceConnected{connection, static_cast<ClientId>(event.device),
                                      server::Role::kDevice});
  tell_device(event.device, client::Connected{});
}

void Fleet::on(const LinkDown& event) {
  if (event.seen_by_server) {
    ConnectionId& seen = records_[event.device].server_connection;
    if (seen != event.connection) return;
    seen = {};
    if (server_) tell_server(server::DeviceGone{event.connection});
    return;
  }
  Device* device = devices_[event.device].get();
  if (device == nullptr || device->connection != event.connection) return;
  device->connection.reset();
  tell_device(event.device, client::ConnectionLost{"closed by the server"});
}

void Fleet::connect(DeviceIndex index) {
  Device& device = *devices_[index];
  // TCP and TLS 1.3 take two round trips until the device may speak.
  const Time ready = std::max(now_, device.offline_until) + 4 * device.traits.latency;
  device.dial = ++dials_;
  queue_.push(ready, LinkUp{index, device.dial});
}

void Fleet::hang_up(DeviceIndex index) {
  Device& device = *devices_[index];
  device.dial = 0;
  if (!device.connection) return;
  // Behind everything that was sent before.
  queue_.push(device.up.arrival(now_, 0, 0, device.traits.latency),
              LinkDown{index, *device.connection, true});
  device.connection.reset();
}

/// The connection breaks between the two.
void Fleet::cut(DeviceIndex index, bool device_notices) {
  Device& device = *devices_[index];
  if (!device.connection) return;
  const ConnectionId connection = *device.connection;
  queue_.push(now_ + device.traits.latency, LinkDown{index, connection, true});
  if (device_notices) queue_.push(now_, LinkDown{index, connection, false});
}

/// The message as the other side gets it, and the bytes that it is on the wire.
template <typename Message>
std::optional<std::size_t> Fleet::pass_the_wire(Message& message) {
  const proto::Encoded encoded = proto::encode(message);
  if (experiment_.config.fleet.codec) {
    auto decoded = decode(encoded, message);
    if (!decoded.ok()) {
      internal_error_ = with_context("the codec refused our own message", decoded.error());
      return std::nullopt;
    }
    message = std::move(*decoded);
  }
  return encoded.size() + kFramePrefix;
}

void Fleet::send_up(DeviceIndex index, ClientMessage message) {
  Device& device = *devices_[index];
  if (!device.connection) return;
  const auto bytes = pass_the_wire(message);
  if (!bytes) return;
  result_.bytes_up += *bytes;
  energy_j_ += device.traits.radio_joules_per_byte * static_cast<double>(*bytes);
  const Time at =
      device.up.arrival(now_, *bytes, device.traits.up_bytes_per_s, device.traits.latency);
  deliver(at,
          ToServer{index, *device.connection, std::make_unique<ClientMessage>(std::move(message))});
}

void Fleet::send_down(ConnectionId connection, ServerMessage message) {
  const DeviceIndex index = device_of(connection);
  if (invariants_) invariants_->sent(static_cast<ClientId>(index), connection, message);
  Device* device = devices_[index].get();
  if (device == nullptr || records_[index].server_connection != connection) return;
  if (options_.on_sent) options_.on_sent(static_cast<ClientId>(index), message);
  const auto bytes = pass_the_wire(message);
  if (!bytes) return;
  result_.bytes_down += *bytes;
  energy_j_ += device->traits.radio_joules_per_byte * static_cast<double>(*bytes);
  const Time at =
      device->down.arrival(now_, *bytes, device->traits.down_bytes_per_s, device->traits.latency);
  deliver(at, ToDevice{index, connection, std::make_unique<ServerMessage>(std::move(message))});
}

void Fleet::close_from_server(ConnectionId connection) {
  const DeviceIndex index = device_of(connection);
  Device* device = devices_[index].get();
  ConnectionId& seen = records_[index].server_connection;
  if (seen != connection) return;
  seen = {};
  if (device == nullptr) return;
  // Behind everything that was sent before.
  queue_.push(device->down.arrival(now_, 0, 0, device->traits.latency),
              LinkDown{index, connection, false});
}

}  // namespace covey::simulation
