#include <fmt/format.h>

#include <algorithm>
#include <covey/models/training_memory.hpp>
#include <utility>

#include "fleet.hpp"

// Local training of virtual devices: what it takes of them, and what comes of it.
namespace covey::simulation {
namespace {

ClientId client_of(std::uint32_t device) { return static_cast<ClientId>(device); }

}  // namespace

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
  constexpr std::size_t kFullBatch = 256;  // a stand-in where a batch is all of a device's examples
  const std::size_t batch = plan.batch_size == 0 ? kFullBatch : plan.batch_size;
  // As a real device estimates it (client/memory_estimate), without what its process takes.
  if (const auto memory =
          models::training_memory(plan.model, plan.precision, batch, plan.optimizer)) {
    cost->flops_per_example = memory->training_flops_per_example;
    cost->bytes = memory->model_bytes + memory->weight_bytes + memory->scratch_bytes;
  }
  return *cost;
}

Duration Fleet::training_time(DeviceIndex index, const TrainingPlan& plan, std::uint32_t epochs) {
  const Device& device = *devices_[index];
  const double examples =
      static_cast<double>(experiment_.num_examples(client_of(index))) * static_cast<double>(epochs);
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
void Fleet::plan_misfortune(DeviceIndex index, const client::TrainingTask& task,
                            Training& training) {
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
  device.leaves_in =
      leaves_in(experiment_.config, task.round, client_of(index), record.tasks_of_round);
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
  training_.insert(index);
  wasted_s_ += std::exchange(records_[index].unsettled_s, 0.0f);  // nobody counted it
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
  give_up(*training);
  training.reset();
  training_.erase(index);
}

/// What the training at hand took since it was last accounted.
void Fleet::account_training(Device& device) {
  Training& training = *device.training;
  if (training.left) return;  // it stands still
  const Time until = std::min(now_, training.due);
  const double worked_s = seconds(until - training.began);
  training.began = until;
  training.worked_s += worked_s;
  const double joules = worked_s * device.traits.compute_watts;
  device.battery.spend(joules);
  energy_j_ += joules;
}

/// Nothing comes of it.
void Fleet::give_up(Training& training) {
  wasted_s_ += training.worked_s - training.wasted_s;
  training.wasted_s = training.worked_s;
}

/// At a round's end: what its devices have spent by now, and on what for nothing.
void Fleet::settle_trainings(const RoundMetrics& metrics) {
  const bool waits_for_them = experiment_.config.asynchronous.enabled();
  for (const DeviceIndex index : training_) {
    Device& device = *devices_[index];
    account_training(device);
    if (!waits_for_them && device.training->round <= metrics.round) give_up(*device.training);
  }
  const double summed_s = std::exchange(summed_s_, 0);
  if (!metrics.committed) wasted_s_ += summed_s;
}

void Fleet::on(const TrainingDone& event) {
  if (devices_[event.device] == nullptr) return;
  Device& device = *devices_[event.device];
  if (!device.training || device.training->number != event.training) return;
  if (device.training->left) return;  // interrupted: it goes on later
  account_training(device);
  Training training = std::move(*device.training);
  device.training.reset();
  training_.erase(event.device);
  const auto finish = [&](Result<client::TrainedUpdate> result) {
    tell_device(event.device, client::TrainingFinished{training.run, training.round,
                                                       std::move(result), training.took});
  };
  if (training.leaves) {
    give_up(training);
    leave(event.device);
    return finish(failed("the device left"));
  }
  Result<client::TrainedUpdate> result = update_of(event.device, training);
  if (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed)) return;
  if (result.ok()) {
    result_.train_steps += result->steps;
    records_[event.device].unsettled_s = static_cast<float>(training.worked_s - training.wasted_s);
  } else {
    give_up(training);
  }
  if (!result.ok() && problem_of_round_.empty()) {
    problem_of_round_ = result.error().message;
  }
  finish(std::move(result));
}

}  // namespace covey::simulation
