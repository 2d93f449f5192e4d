#include "fleet.hpp"

#include <algorithm>
#include <utility>


namespace covey::simulation {
namespace {

constexpr std::size_t kFramePrefix = 8;  // bytes in front of every frame on the wire
// A round that fails so often will not succeed: at 99% failures each, one in 23,000 would get here.
constexpr std::uint32_t kMostAbandoned = 1000;

}  // namespace

client::ParticipantOptions Fleet::participant_options(DeviceIndex device,
                                                      std::uint32_t request_bytes,
                                                      const DeviceIdentities& identities) const {
  client::ParticipantOptions options;
  options.client = static_cast<ClientId>(device);
  options.seed = experiment_.config.seed;
  options.conditions.num_examples = experiment_.shards[device].train.size();
  const RunConfig& config = experiment_.config;
  const bool is_private =
      config.secure_aggregation.mode != "off" || config.privacy.mechanism != "none";
  if (is_private && config.selection.policy != "by-examples") {  // as `covey client` does
    options.conditions.num_examples = std::min<std::uint64_t>(options.conditions.num_examples, 1);
  }
  options.conditions.agent_version = "covey-simulator";
  options.conditions.precisions = models::supported_precisions();
  options.conditions.compressors = {"fp32", "bf16", "int8"};
  options.request_bytes = request_bytes;
  options.keep_finished_work = false;  // memory of the cohort's size; training again gives the same bytes
  options.credentials = identities.of(options.client);
  options.make_secrets = [seed = options.seed, client = options.client](const auto& round) {
    return secrets_of(seed, client, round);
  };
  return options;
}

Fleet::Fleet(const Experiment& experiment, const strategies::Registry& registry,
             const SimulationOptions& options, Server server)
    : experiment_(experiment),
      options_(options),
      pipeline_(std::move(server.pipeline)),
      coordinator_(server.coordinator, std::move(server.state)),
      spool_(server::make_memory_spool()),
      pool_(experiment.data.train, registry, experiment.make_engine,
            [seed = experiment.config.seed](RoundNumber round, ClientId client) {
              return privacy::seeded_secrets(seed, round, client);
            },
            options.threads),
      evaluator_(std::move(server.evaluator)) {
  devices_.resize(experiment.population());
  for (DeviceIndex i = 0; i < devices_.size(); ++i) {
    devices_[i].participant = std::make_unique<client::Participant>(
        participant_options(i, server.coordinator.config.server.chunk_bytes, server.identities));
    devices_[i].traits =
        draw_traits(experiment.config.fleet, experiment.config.seed, static_cast<ClientId>(i));
  }
}

Result<SimulationResult> Fleet::run() {
  server::Actions actions;
  coordinator_.start(now_, actions);
  carry_out(actions);
  for (DeviceIndex i = 0; i < devices_.size(); ++i) {
    client::Actions first;
    devices_[i].participant->start(now_, first);
    carry_out(i, first);
  }
  while (!finished_ && !internal_error_ && !queue_.empty()) {
    if (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed)) {
      result_.finished = false;
      break;
    }
    auto [at, event] = queue_.pop();
    now_ = at;
    dispatch(std::move(event));
  }
  if (internal_error_) return *internal_error_;
  if (finished_ && !finished_->ok) return failed(finished_->reason);
  if (!finished_ && result_.finished) {
    return failed("the run stands still in round " +
                  std::to_string(value_of(coordinator_.committed_round()) + 1) +
                  ": no device and no deadline is left to move it (" +
                  coordinator_.status_json(now_) + ")");
  }
  if (finished_) result_.reason = finished_->reason;
  if (const auto privacy = pipeline_.privacy_status()) result_.guarantee = privacy->guarantee;
  result_.committed = value_of(coordinator_.committed_round());
  result_.model = coordinator_.model();
  result_.virtual_s = seconds(now_.time_since_epoch());
  if (has_accuracy(experiment_.plan.model)) result_.fairness = fairness(evaluator_.accuracies(experiment_.data.test, experiment_.shards,
                                                    pipeline_.model().span()));
  return std::move(result_);
}

void Fleet::dispatch(Event event) {
  std::visit([this](auto& e) { on(e); }, event);
}

// ---- the network

void Fleet::on(ToServer& event) {
  // What was sent before the device hung up still arrives.
  if (devices_[event.device].server_connection != event.connection) return;
  tell_server(server::Received{event.connection, std::move(event.message)});
}

void Fleet::on(ToDevice& event) {
  if (devices_[event.device].connection != event.connection) return;
  const LeavesIn step = devices_[event.device].leaves_in;
  if (step != LeavesIn::kTraining && begins(step, event.message)) return leave(event.device);
  tell_device(event.device, client::Received{std::move(event.message)});
}

void Fleet::on(const LinkUp& event) {
  Device& device = devices_[event.device];
  const auto connection = static_cast<ConnectionId>(connection_owner_.size());
  connection_owner_.push_back(event.device);
  device.connection = connection;
  device.server_connection = connection;
  device.up.reset();
  device.down.reset();
  tell_server(server::DeviceConnected{connection, static_cast<ClientId>(event.device),
                                      server::Role::kDevice});
  tell_device(event.device, client::Connected{});
}

void Fleet::on(const LinkDown& event) {
  Device& device = devices_[event.device];
  if (event.seen_by_server) {
    if (device.server_connection != event.connection) return;
    device.server_connection.reset();
    tell_server(server::DeviceGone{event.connection});
    return;
  }
  if (device.connection != event.connection) return;
  device.connection.reset();
  tell_device(event.device, client::ConnectionLost{"closed by the server"});
}

void Fleet::connect(DeviceIndex device) {
  // TCP and TLS 1.3 take two round trips until the device may speak.
  const Time ready = std::max(now_, devices_[device].offline_until) + 4 * devices_[device].traits.latency;
  queue_.push(ready, LinkUp{device});
}

void Fleet::hang_up(DeviceIndex index) {
  Device& device = devices_[index];
  if (!device.connection) return;
  queue_.push(now_ + device.traits.latency, LinkDown{index, *device.connection, true});
  device.connection.reset();
}

void Fleet::send_up(DeviceIndex index, ClientMessage message) {
  Device& device = devices_[index];
  if (!device.connection) return;
  const proto::Encoded encoded = proto::encode(message);
  const std::size_t bytes = encoded.size() + kFramePrefix;
  result_.bytes_up += bytes;
  if (experiment_.config.fleet.codec) {
    auto decoded = proto::decode_client_message(encoded.header, encoded.payload);
    if (!decoded.ok()) {
      internal_error_ = with_context("the codec refused a device's own message", decoded.error());
      return;
    }
    message = std::move(*decoded);
  }
  const Time at = device.up.arrival(now_, bytes, device.traits.up_bytes_per_s, device.traits.latency);
  queue_.push(at, ToServer{index, *device.connection, std::move(message)});
}

void Fleet::send_down(ConnectionId connection, ServerMessage message) {
  const DeviceIndex index = connection_owner_[static_cast<std::size_t>(value_of(connection))];
  Device& device = devices_[index];
  if (device.server_connection != connection) return;
  const proto::Encoded encoded = proto::encode(message);
  const std::size_t bytes = encoded.size() + kFramePrefix;
  result_.bytes_down += bytes;
  if (experiment_.config.fleet.codec) {
    auto decoded = proto::decode_server_message(encoded.header, encoded.payload);
    if (!decoded.ok()) {
      internal_error_ = with_context("the codec refused the server's own message", decoded.error());
      return;
    }
    message = std::move(*decoded);
  }
  const Time at =
      device.down.arrival(now_, bytes, device.traits.down_bytes_per_s, device.traits.latency);
  queue_.push(at, ToDevice{index, connection, std::move(message)});
}

void Fleet::close_from_server(ConnectionId connection) {
  const DeviceIndex index = connection_owner_[static_cast<std::size_t>(value_of(connection))];
  Device& device = devices_[index];
  if (device.server_connection != connection) return;
  device.server_connection.reset();
  // Behind everything that was sent before.
  queue_.push(device.down.arrival(now_, 0, 0, device.traits.latency),
              LinkDown{index, connection, false});
}

// ---- devices

void Fleet::on(const DeviceTimer& event) {
  if (devices_[event.device].timer_generation != event.generation) return;
  tell_device(event.device, client::TimerFired{});
}

void Fleet::tell_device(DeviceIndex device, client::Event event) {
  client::Actions actions;
  devices_[device].participant->handle(now_, std::move(event), actions);
  carry_out(device, actions);
}

void Fleet::carry_out(DeviceIndex index, client::Actions& actions) {
  Device& device = devices_[index];
  for (client::Action& action : actions) {
    if (auto* send = std::get_if<client::Send>(&action)) {
      send_up(index, std::move(send->message));
    } else if (const auto* timer = std::get_if<client::SetTimer>(&action)) {
      queue_.push(std::max(timer->at, now_), DeviceTimer{index, ++device.timer_generation});
    } else if (std::holds_alternative<client::Connect>(action)) {
      connect(index);
    } else if (std::holds_alternative<client::Disconnect>(action)) {
      hang_up(index);
    } else if (auto* start = std::get_if<client::StartTraining>(&action)) {
      start_training(index, std::move(start->task));
    } else if (std::holds_alternative<client::CancelTraining>(action)) {
      cancel_training(index);
    } else if (auto* masking = std::get_if<client::MaskUpdate>(&action)) {
      mask(index, *masking);
    }  // Note and Finished: a simulated device has no log, and nothing else to stop
  }
}

void Fleet::start_training(DeviceIndex index, client::TrainingTask task) {
  Device& device = devices_[index];
  const FleetConfig& fleet = experiment_.config.fleet;
  cancel_training(index);
  device.tasks_of_round = device.last_round == task.round ? device.tasks_of_round + 1 : 0;
  device.last_round = task.round;

  Training training;
  training.number = ++trainings_;
  training.run = task.run;
  training.round = task.round;
  std::uint32_t epochs = task.plan.local_epochs;
  // Stragglers manage x epochs of E, x uniform in [1, E] (Li et al. 2020, section 5.2).
  RandomStream straggler = misfortune(index, RandomPurpose::kStraggler);
  if (straggler.uniform() < fleet.stragglers) {
    const std::uint32_t managed = 1 + static_cast<std::uint32_t>(straggler.below(epochs));
    if (!task.plan.accept_partial_work) {
      training.failure = failed("a straggler: " + std::to_string(managed) + " of " +
                                std::to_string(epochs) + " epochs done in time");
    }
    epochs = managed;
  }
  const double examples =
      static_cast<double>(experiment_.shards[index].train.size()) * static_cast<double>(epochs);
  training.took = from_seconds(examples * experiment_.training_flops_per_example() /
                               device.traits.flops_per_s);
  device.leaves_in = leaves_in(experiment_.config, task.round, static_cast<ClientId>(index),
                               device.tasks_of_round);
  if (device.leaves_in == LeavesIn::kTraining) {
    training.leaves = true;
    RandomStream dropout = misfortune(index, RandomPurpose::kDropout);
    dropout.uniform();  // whether
    training.took = from_seconds(seconds(training.took) * dropout.uniform());
  }
  const Time due = now_ + training.took;
  if (!training.failure && !training.leaves) {
    training.job = pool_.submit(due, {std::move(task), experiment_.shards[index].train, epochs});
  }
  queue_.push(due, TrainingDone{index, training.number});
  device.training = std::move(training);
}

RandomStream Fleet::misfortune(DeviceIndex index, RandomPurpose purpose) const {
  const Device& device = devices_[index];
  return simulation::misfortune(experiment_.config.seed, purpose, device.last_round,
                                static_cast<ClientId>(index), device.tasks_of_round);
}

void Fleet::cancel_training(DeviceIndex index) {
  auto& training = devices_[index].training;
  if (!training) return;
  if (training->job) pool_.cancel(*training->job);
  training.reset();
}

void Fleet::on(const TrainingDone& event) {
  Device& device = devices_[event.device];
  if (!device.training || device.training->number != event.training) return;
  const Training training = std::move(*device.training);
  device.training.reset();
  if (training.leaves) {
    leave(event.device);
    tell_device(event.device, client::TrainingFinished{training.run, training.round,
                                                       failed("the device left"), training.took});
    return;
  }
  Result<client::TrainedUpdate> result =
      training.failure ? Result<client::TrainedUpdate>(*training.failure) : pool_.take(*training.job);
  if (result.ok()) {
    result_.train_steps += result->steps;
  } else {
    if (problem_of_round_.empty()) problem_of_round_ = result.error().message;
  }
  tell_device(event.device, client::TrainingFinished{training.run, training.round, std::move(result),
                                                     training.took});
}

// ---- the server

void Fleet::on(const ServerTimer& event) {
  if (event.generation == server_timer_generation_) tell_server(server::TimerFired{});
}

void Fleet::tell_server(server::Event event) {
  server_inbox_.push_back(std::move(event));
  if (telling_server_) return;  // an answer to the event at hand: told after it
  telling_server_ = true;
  for (std::size_t i = 0; i < server_inbox_.size(); ++i) {
    server::Actions actions;
    coordinator_.handle(now_, std::move(server_inbox_[i]), actions);
    carry_out(actions);
  }
  server_inbox_.clear();
  telling_server_ = false;
}

void Fleet::carry_out(server::Actions& actions) {
  for (server::Action& action : actions) {
    if (auto* send = std::get_if<server::Send>(&action)) {
      send_down(send->connection, std::move(send->message));
    } else if (const auto* close = std::get_if<server::Close>(&action)) {
      close_from_server(close->connection);
    } else if (const auto* timer = std::get_if<server::SetTimer>(&action)) {
      queue_.push(std::max(timer->at, now_), ServerTimer{++server_timer_generation_});
    } else if (const auto* metrics = std::get_if<server::PublishMetrics>(&action)) {
      publish(metrics->metrics);
    } else if (auto* end = std::get_if<server::RunFinished>(&action)) {
      finished_ = std::move(*end);
    } else if (auto answer = compute(action)) {
      tell_server(std::move(*answer));
    }
  }
}

std::optional<server::Event> Fleet::compute(server::Action& action) {
  if (const auto* open = std::get_if<server::OpenUpload>(&action)) {
    return server::UploadOpened{open->key, spool_->open(open->key, open->size)};
  }
  if (const auto* write = std::get_if<server::WriteUpload>(&action)) {
    auto written = spool_->write(write->key, write->offset, write->payload);
    if (!written.ok()) return server::UploadFailed{write->key, written.error()};
    return std::nullopt;
  }
  if (const auto* drop = std::get_if<server::DropUpload>(&action)) {
    spool_->drop(drop->key);
    return std::nullopt;
  }
  if (const auto* judge = std::get_if<server::JudgeUpdate>(&action)) {
    auto bytes = spool_->read(judge->key);
    if (!bytes.ok()) return server::UploadFailed{judge->key, bytes.error()};
    return server::UpdateJudged{judge->key,
                                pipeline_.judge(judge->key.client, judge->report, *bytes)};
  }
  if (const auto* begin = std::get_if<server::BeginSum>(&action)) {
    pipeline_.begin(begin->round);
    return std::nullopt;
  }
  if (const auto* applying = std::get_if<server::ApplyStrategy>(&action)) {
    return server::apply_strategy(pipeline_, *applying, [this] { check_sum(); });
  }
  if (const auto* commit = std::get_if<server::CommitRound>(&action)) {
    return server::RoundStored{commit->metrics.round, {}};
  }
  if (const auto* evaluate = std::get_if<server::EvaluateModel>(&action)) {
    const auto figures = evaluator_.evaluate(experiment_.data.test, pipeline_.model().span());
    return server::ModelEvaluated{evaluate->round, figures.accuracy(), figures.loss()};
  }
  if (auto* note = std::get_if<server::Note>(&action)) {
    if (problem_of_round_.empty()) problem_of_round_ = std::move(note->text);  // the cause comes first
  }
  return std::nullopt;
}

void Fleet::publish(const RoundMetrics& metrics) {
  abandoned_in_a_row_ = metrics.committed ? 0 : abandoned_in_a_row_ + 1;
  if (abandoned_in_a_row_ == kMostAbandoned) {
    internal_error_ = failed(
        "round " + std::to_string(value_of(metrics.round)) + " was abandoned " +
        std::to_string(kMostAbandoned) + " times in a row; the last time " +
        std::to_string(metrics.selected) + " devices were selected, " +
        std::to_string(metrics.accepted) + " accepted, " + std::to_string(metrics.rejected) +
        " rejected, and " + std::to_string(metrics.dropped) + " declined or did not report" +
        (problem_of_round_.empty() ? "" : " (first: " + problem_of_round_ + ")") +
        "; selection.quorum asks for more");
  }
  problem_of_round_.clear();
  RoundMetrics shown = metrics;
  if (!has_accuracy(experiment_.plan.model)) shown.accuracy.reset();
  if (options_.on_round) options_.on_round(shown);
  result_.rounds.push_back(std::move(shown));
}

}  // namespace covey::simulation
