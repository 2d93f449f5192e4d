#include <fmt/format.h>

#include <algorithm>
#include <covey/models/inspect.hpp>
#include <utility>

#include "fleet.hpp"

// The devices' side: waking and sleeping, being away, local training and what it takes.
namespace covey::simulation {
namespace {

// A device without a plan for when it is online again is looked at no more than so often.
constexpr int kMostLooks = 100000;
// Where more devices are registered than may wait, they do not all knock in the first second: their first
// check-ins are spread over so long per pool of waiting devices, as pace steering would have them by now.
constexpr double kSpreadPerPool_s = 120;

ClientId client_of(std::uint32_t device) { return static_cast<ClientId>(device); }

}  // namespace

// ---- waking and sleeping

void Fleet::schedule_first_wakes() {
  const auto devices = static_cast<double>(devices_.size());
  const double pools = devices / experiment_.config.selection.max_waiting;
  for (DeviceIndex i = 0; i < devices_.size(); ++i) {
    if (experiment_.empty_devices > 0 && experiment_.num_examples(client_of(i)) == 0) continue;
    Time first{};
    if (pools > 1) {
      RandomStream random(experiment_.config.seed, RandomPurpose::kBackoff, RoundNumber{UINT32_MAX},
                          client_of(i));
      first += from_seconds(random.uniform() * pools * kSpreadPerPool_s);
    }
    wake_at(i, first);
  }
}

void Fleet::wake_at(DeviceIndex device, Time at) {
  const Time online = next_online(device, at);
  if (online != Time::max()) queue_.push(online, Wake{device});
}

/// The next moment at which the device is online; Time::max(): never.
Time Fleet::next_online(DeviceIndex device, Time from) const {
  if (models_.always_online()) return from;
  for (int looks = 0; looks < kMostLooks && from != Time::max(); ++looks) {
    const Surroundings surroundings = models_.surroundings(client_of(device), from);
    if (surroundings.online) return from;
    from = surroundings.until;
  }
  return Time::max();
}

/// When an online device is next away, if that is before `until`; otherwise `until`.
Time Fleet::next_absence(DeviceIndex device, Time until) const {
  if (models_.always_online()) return until;
  Time at = now_;
  while (at < until) {
    const Surroundings surroundings = models_.surroundings(client_of(device), at);
    if (!surroundings.online) return at;
    at = surroundings.until;
  }
  return until;
}

void Fleet::on(const Wake& event) {
  if (devices_[event.device] != nullptr) return;
  const ClientId client = client_of(event.device);
  const DeviceTraits traits = models_.traits(client);
  const Surroundings surroundings = models_.surroundings(client, now_);
  Battery battery(traits, experiment_.config.seed, client, now_);
  if (!surroundings.online) return wake_at(event.device, now_);
  if (battery.level() < Battery::kReserve && !surroundings.charging) {
    constexpr Duration kLook = std::chrono::hours(1);  // the level is drawn by the hour
    return wake_at(event.device, std::min(surroundings.until, now_ + kLook));
  }
  devices_[event.device] = std::make_unique<Device>(traits, battery);
  Device& device = *devices_[event.device];
  device.life = ++lives_;
  device.surroundings = surroundings;
  device.surroundings_since = now_;
  device.participant = std::make_unique<client::Participant>(participant_options(event.device, device));
  watch_surroundings(event.device);
  client::Actions actions;
  device.participant->start(device_now(event.device), actions);
  carry_out(event.device, actions);
}

/// Its Participant is dropped, and made again when it has something to do.
void Fleet::sleep(DeviceIndex index, Time until) {
  cancel_training(index);
  records_[index].draws = devices_[index]->participant->draws();
  devices_[index].reset();
  wake_at(index, until);
}

/// Devices that became idle in the event at hand go to sleep.
void Fleet::rest() {
  for (const DeviceIndex index : to_rest_) {
    if (devices_[index] == nullptr) continue;
    if (devices_[index]->participant->finished()) {
      devices_[index].reset();
      if (faults_) restart_finished(index);
    } else if (const auto until = devices_[index]->participant->idle_until()) {
      sleep(index, std::max(devices_[index]->offline_until, true_time(index, *until)));
    }
  }
  to_rest_.clear();
}

// ---- surroundings

void Fleet::watch_surroundings(DeviceIndex index) {
  const Device& device = *devices_[index];
  if (device.surroundings.until == Time::max()) return;
  queue_.push(device.surroundings.until, SurroundingsChange{index, device.life});
}

void Fleet::on(const SurroundingsChange& event) {
  if (devices_[event.device] == nullptr || devices_[event.device]->life != event.life) return;
  Device& device = *devices_[event.device];
  device.battery.advance(now_ - device.surroundings_since, device.surroundings.charging);
  const bool was_online = device.surroundings.online;
  device.surroundings = models_.surroundings(client_of(event.device), now_);
  device.surroundings_since = now_;
  if (was_online && !device.surroundings.online) return go_away(event.device);
  watch_surroundings(event.device);
  if (!device.surroundings.online) return;
  if (!was_online) resume_training(event.device);
  const auto options = participant_options(event.device, device);
  tell_device(event.device, client::ConditionsChanged{options.conditions});
}

/// Out of reach, and its training stands still. What cannot be in time any more is not kept.
void Fleet::go_away(DeviceIndex index) {
  Device& device = *devices_[index];
  const Time back = next_online(index, now_);
  if (device.training) {
    account_training(device);
    device.training->left = device.training->due - now_;
  }
  if (!device.participant->has_task() || back >= device.report_by) {
    cut(index, false);
    return sleep(index, back);
  }
  device.offline_until = back;
  if (device.connection) {
    cut(index, true);
  } else if (device.dial != 0) {
    connect(index);
  }
  watch_surroundings(index);
}

// ---- the participant

void Fleet::on(const DeviceTimer& event) {
  const Device* device = devices_[event.device].get();
  if (device == nullptr || device->timer_generation != event.generation) return;
  tell_device(event.device, client::TimerFired{});
}

void Fleet::tell_device(DeviceIndex index, client::Event event) {
  client::Actions actions;
  client::Participant& participant = *devices_[index]->participant;
  participant.handle(device_now(index), std::move(event), actions);
  carry_out(index, actions);
  if (participant.idle_until() || participant.finished()) to_rest_.push_back(index);
}

void Fleet::carry_out(DeviceIndex index, client::Actions& actions) {
  for (client::Action& action : actions) {
    if (auto* send = std::get_if<client::Send>(&action)) {
      send_up(index, std::move(send->message));
    } else if (const auto* timer = std::get_if<client::SetTimer>(&action)) {
      // Numbers are of no life alone: a timer of an earlier one says nothing.
      devices_[index]->timer_generation = ++timers_;
      queue_.push(std::max(true_time(index, timer->at), now_), DeviceTimer{index, timers_});
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

// ---- training

const Fleet::TrainingCost& Fleet::training_cost(const Device& device, const TrainingPlan& plan) {
  const std::uint32_t device_class = device.traits.device_class;
  if (training_costs_.size() <= device_class) training_costs_.resize(device_class + 1);
  auto& cost = training_costs_[device_class];
  if (cost) return *cost;
  cost.emplace();
  cost->flops_per_example = experiment_.training_flops_per_example();
  constexpr std::uint64_t kWeights = 2 * sizeof(float);  // w and w^t
  cost->bytes = kWeights * experiment_.layout.size();
  if (!plan.model.torchscript.empty()) return *cost;
  if (const auto network = models::make_network(plan.model, plan.precision)) {
    constexpr std::size_t kFullBatch = 256;  // a stand-in where a batch is all of a device's examples
    const auto report = models::inspect(
        *network, plan.batch_size == 0 ? kFullBatch : plan.batch_size, plan.optimizer);
    cost->flops_per_example = report.training_flops;
    cost->bytes = kWeights * report.parameters + report.training_bytes + report.optimizer_bytes;
  }
  return *cost;
}

Duration Fleet::training_time(DeviceIndex index, const TrainingPlan& plan, std::uint32_t epochs) {
  const Device& device = *devices_[index];
  const double examples = static_cast<double>(experiment_.num_examples(client_of(index))) *
                          static_cast<double>(epochs);
  if (device.traits.seconds_per_example > 0) {
    return from_seconds(examples * device.traits.seconds_per_example);
  }
  return from_seconds(examples * training_cost(device, plan).flops_per_example /
                      device.traits.flops_per_s);
}

/// Why this device cannot train to the end, if so; then `training.took` is how far it comes.
std::optional<Error> Fleet::obstacle(Device& device, const TrainingPlan& plan, Training& training) {
  const std::uint64_t needed = training_cost(device, plan).bytes;
  if (device.traits.memory_bytes > 0 && needed > device.traits.memory_bytes) {
    constexpr double kMiB = 1 << 20;
    training.took = Duration{0};
    return failed(fmt::format("training takes {:.1f} MiB of memory, the device has {:.1f}",
                              static_cast<double>(needed) / kMiB,
                              static_cast<double>(device.traits.memory_bytes) / kMiB));
  }
  const DeviceTraits& traits = device.traits;
  if (traits.battery_joules <= 0 || device.surroundings.charging) return std::nullopt;
  const double spare = (device.battery.level() - Battery::kReserve) * traits.battery_joules;
  const double lasts_s = std::max(0.0, spare) / std::max(traits.compute_watts, 1e-9);
  if (seconds(training.took) <= lasts_s) return std::nullopt;
  training.took = from_seconds(lasts_s);
  return failed("the battery is too low to go on");
}

/// Stragglers and drop-outs of the run file (fleet.stragglers, fleet.dropout).
void Fleet::plan_misfortune(DeviceIndex index, const client::TrainingTask& task, Training& training) {
  Device& device = *devices_[index];
  Record& record = records_[index];
  const std::uint32_t round = value_of(task.round);
  record.tasks_of_round = record.last_round == round ? record.tasks_of_round + 1 : 0;
  record.last_round = round;
  training.epochs = task.plan.local_epochs;
  // Stragglers manage x epochs of E, x uniform in [1, E] (Li et al. 2020, section 5.2).
  RandomStream straggler = misfortune(index, RandomPurpose::kStraggler);
  if (straggler.uniform() < experiment_.config.fleet.stragglers) {
    const std::uint32_t managed =
        1 + static_cast<std::uint32_t>(straggler.below(task.plan.local_epochs));
    if (!task.plan.accept_partial_work) {
      training.failure = failed(fmt::format("a straggler: {} of {} epochs done in time", managed,
                                            task.plan.local_epochs));
    }
    training.epochs = managed;
  }
  training.took = training_time(index, task.plan, training.epochs);
  device.leaves_in = leaves_in(experiment_.config, task.round, client_of(index), record.tasks_of_round);
  if (device.leaves_in != LeavesIn::kTraining) return;
  training.leaves = true;
  RandomStream dropout = misfortune(index, RandomPurpose::kDropout);
  dropout.uniform();  // whether
  training.took = from_seconds(seconds(training.took) * dropout.uniform());
}

void Fleet::start_training(DeviceIndex index, client::TrainingTask task) {
  Device& device = *devices_[index];
  cancel_training(index);
  Training training;
  training.number = ++trainings_;
  training.task = training.number;
  training.run = task.run;
  training.round = task.round;
  plan_misfortune(index, task, training);
  if (!training.failure && !training.leaves) {
    if (auto error = obstacle(device, task.plan, training)) training.failure = std::move(*error);
  }
  training.began = now_;
  training.due = now_ + training.took;
  const bool computes = !training.failure && !training.leaves;
  device.training = std::move(training);
  queue_.push(device.training->due, TrainingDone{index, device.training->number});
  if (!computes) return;
  if (journal_) journal_->begins(device.training->task, task);
  submit(index, std::move(task));
}

/// Computed ahead of its end, unless the device is away before it: then only when it is back.
void Fleet::submit(DeviceIndex index, client::TrainingTask task) {
  Device& device = *devices_[index];
  Training& training = *device.training;
  if (next_absence(index, training.due) < training.due) {
    training.waiting = std::move(task);
    return;
  }
  if (journal_ && !journal_->computes(training.task)) return;  // what comes of it is known
  const bool may_be_late = device.report_by != Time{} && training.due > device.report_by;
  training.job = pool_.submit(training.due, {std::move(task), training.epochs, may_be_late});
}

void Fleet::resume_training(DeviceIndex index) {
  auto& training = devices_[index]->training;
  if (!training || !training->left) return;
  training->number = ++trainings_;
  training->began = now_;
  training->due = now_ + *std::exchange(training->left, std::nullopt);
  queue_.push(training->due, TrainingDone{index, training->number});
  if (training->waiting) submit(index, std::move(*std::exchange(training->waiting, std::nullopt)));
}

RandomStream Fleet::misfortune(DeviceIndex index, RandomPurpose purpose) const {
  const Record& record = records_[index];
  return simulation::misfortune(experiment_.config.seed, purpose, RoundNumber{record.last_round},
                                client_of(index), record.tasks_of_round);
}

void Fleet::cancel_training(DeviceIndex index) {
  auto& training = devices_[index]->training;
  if (!training) return;
  if (training->job) pool_.cancel(*training->job);
  if (journal_) journal_->ends(client_of(index));
  account_training(*devices_[index]);
  training.reset();
}

/// What the training at hand took since it began, or went on.
void Fleet::account_training(Device& device) {
  const Training& training = *device.training;
  if (training.left) return;  // it stands still
  const double worked_s = seconds(std::min(now_, training.due) - training.began);
  const double joules = worked_s * device.traits.compute_watts;
  device.battery.spend(joules);
  energy_j_ += joules;
  trained_s_ += worked_s;
}

void Fleet::on(const TrainingDone& event) {
  if (devices_[event.device] == nullptr) return;
  Device& device = *devices_[event.device];
  if (!device.training || device.training->number != event.training) return;
  if (device.training->left) return;  // interrupted: it goes on later
  account_training(device);
  Training training = std::move(*device.training);
  device.training.reset();
  device.train_s = seconds(training.took);
  const auto finish = [&](Result<client::TrainedUpdate> result) {
    tell_device(event.device, client::TrainingFinished{training.run, training.round, std::move(result),
                                                       training.took});
  };
  if (training.leaves) {
    leave(event.device);
    return finish(failed("the device left"));
  }
  Result<client::TrainedUpdate> result = update_of(event.device, training);
  if (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed)) return;
  if (result.ok()) {
    result_.train_steps += result->steps;
  } else if (problem_of_round_.empty()) {
    problem_of_round_ = result.error().message;
  }
  finish(std::move(result));
}

}  // namespace covey::simulation
