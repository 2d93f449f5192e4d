#include <algorithm>
#include <utility>

#include "fleet.hpp"

// The devices' side: waking and sleeping, being away, and what a Participant asks for.
// fleet_training.cpp has local training and what it takes.
namespace covey::simulation {
namespace {

// A device without a plan for when it is online again is looked at no more than so often.
constexpr int kMostLooks = 100000;
// Where more devices are registered than may wait, they do not all knock in the first second: their
// first check-ins are spread over so long per pool of waiting devices, as pace steering would have
// them by now.
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
  device.participant =
      std::make_unique<client::Participant>(participant_options(event.device, device));
  watch_surroundings(event.device);
  client::Actions actions;
  device.participant->start(device_now(event.device), actions);
  carry_out(event.device, actions);
}

/// Its Participant is dropped, and made again when it has something to do.
void Fleet::sleep(DeviceIndex index, Time until) {
  cancel_training(index);
  records_[index].memory = devices_[index]->participant->memory();
  if (experiment_.config.fleet.keep_model) keep_model(index);
  devices_[index].reset();
  wake_at(index, until);
}

/// Of equal models that devices came to by themselves one copy is kept.
void Fleet::keep_model(DeviceIndex index) {
  std::optional<client::SavedModel> model = devices_[index]->participant->saved_work().model;
  if (!model) {
    held_models_.erase(index);
    return;
  }
  auto& kept = kept_models_[model->digest];
  if (auto owner = kept.first.lock()) {
    model->bytes = SharedBytes(std::move(owner), kept.second);
  } else {
    kept = {model->bytes.owner(), model->bytes.span()};
  }
  held_models_.insert_or_assign(index, *std::move(model));
  if (kept_models_.size() > 2 * kept_models_in_use_ + 16) {
    std::erase_if(kept_models_, [](const auto& entry) { return entry.second.first.expired(); });
    kept_models_in_use_ = kept_models_.size();
  }
}

/// Devices that became idle in the event at hand go to sleep.
void Fleet::rest() {
  for (const DeviceIndex index : to_rest_) {
    if (devices_[index] == nullptr) continue;
    if (devices_[index]->participant->finished()) {
      cancel_training(index);
      devices_[index].reset();
      if (faults_) restart_finished(index);
    } else if (const auto until = devices_[index]->participant->idle_until()) {
      sleep(index, std::max(devices_[index]->offline_until, true_time(index, *until)));
    }
  }
  to_rest_.clear();
}

// ---- surroundings

/// One event a device, whichever of its lives it comes to: what surrounds it does not depend on
/// them.
void Fleet::watch_surroundings(DeviceIndex index) {
  const Time until = devices_[index]->surroundings.until;
  bool& awaited = records_[index].change_awaited;
  if (until == Time::max() || awaited) return;
  awaited = true;
  queue_.push(until, SurroundingsChange{index});
}

void Fleet::on(const SurroundingsChange& event) {
  records_[event.device].change_awaited = false;
  if (devices_[event.device] == nullptr) return;
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
  tell_device(event.device, client::ConditionsChanged{options.conditions, {}});
}

/// Out of reach, and its training stands still. What cannot be in time any more is not kept.
void Fleet::go_away(DeviceIndex index) {
  Device& device = *devices_[index];
  const Time back = std::max(device.offline_until, next_online(index, now_));
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

client::ParticipantOptions Fleet::participant_options(DeviceIndex index, const Device& device) {
  const RunConfig& config = experiment_.config;
  client::ParticipantOptions options;
  options.client = static_cast<ClientId>(index);
  options.seed = config.seed;
  options.memory = records_[index].memory;
  if (planned_.size() <= device.traits.device_class)
    planned_.resize(device.traits.device_class + 1);
  auto& planned = planned_[device.traits.device_class];
  if (planned == nullptr) planned = std::make_shared<client::PlannedModel>();
  options.planned = planned;
  DeviceConditions& conditions = options.conditions;
  conditions.num_examples = experiment_.num_examples(options.client);
  const bool is_private =
      config.secure_aggregation.mode != "off" || config.privacy.mechanism != "none";
  if (is_private && config.selection.policy != "by-examples") {  // as `covey client` does
    conditions.num_examples = std::min<std::uint64_t>(conditions.num_examples, 1);
  }
  conditions.charging = device.surroundings.charging;
  conditions.metered = device.surroundings.metered;
  conditions.free_memory_bytes = device.traits.memory_bytes;
  conditions.device_class = models_.class_name(device.traits.device_class);
  conditions.agent_version = "covey-simulator";
  conditions.precisions = models::supported_precisions();
  conditions.compressors = compressor_names();
  options.request_bytes = request_bytes_;
  options.keep_finished_work =
      false;  // memory of the cohort's size; training again gives the same bytes
  options.keep_model = config.fleet.keep_model;
  if (const auto held = held_models_.find(index); held != held_models_.end()) {
    options.saved.emplace();
    options.saved->memory = options.memory;
    options.saved->model = held->second;
  }
  options.credentials = identities_.of(options.client);
  // A device that started again makes other keys than in its earlier lives, also in the same sum.
  std::uint64_t lives = 0;
  if (faults_) {
    if (const auto found = faults_->reboots.find(index); found != faults_->reboots.end()) {
      lives = found->second;
    }
  }
  options.make_secrets = [seed = options.seed, client = options.client, lives](const auto& round) {
    return secrets_of(seed, client, round, lives);
  };
  return options;
}

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

}  // namespace covey::simulation
