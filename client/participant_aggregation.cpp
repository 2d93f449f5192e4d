#include <fmt/format.h>

#include <algorithm>
#include <covey/client/participant.hpp>

// The device's steps in a secure sum, from a finished training to its verdict. What each step
// computes is privacy/secagg_device; here is when it happens and what survives a lost connection:
// everything, as long as the server goes on with the same attempt.
namespace covey::client {

bool Participant::aggregating(const AggregationRound& round) const {
  return phase_ == Phase::kAggregating && task_ && task_->aggregation &&
         task_->aggregation->round() == round;
}

/// Another attempt at the same round: the update stays, every key is new.
void Participant::restart_aggregation(const AggregationId& id) {
  if (task_->assignment.aggregation == id) return;
  task_->assignment.aggregation = id;
  task_->aggregation.reset();
  task_->masked.reset();
  task_->masking = false;  // what is still being masked is of the earlier attempt
  task_->reported = false;
  upload_.reset();
}

void Participant::advertise(Step step) {
  phase_ = Phase::kAggregating;
  retry_at_.reset();
  heartbeat_at_.reset();
  task_->decided = false;
  if (!task_->aggregation) {
    const Assignment& assignment = task_->assignment;
    privacy::SecAggDevice::Options options;
    options.client = options_.client;
    options.context = {{assignment.run, assignment.round, assignment.aggregation},
                       assignment.model,
                       digest_of(assignment.plan),
                       assignment.plan.secure_aggregation};
    if (!may_make_keys(options.context.round)) {
      return decline(step, "the server asks for a sum that this device has left");
    }
    options.credentials = options_.credentials;
    options.secrets = options_.make_secrets(options.context.round);
    auto device = privacy::SecAggDevice::make(std::move(options));
    if (!device) return decline(step, device.error().message);
    task_->aggregation = std::move(*device);
  }
  step.actions.push_back(Send{task_->aggregation->advertise()});
}

/// Once for each sum: other keys under one name could make two sums of what is said to be one.
/// Names of other rounds are forgotten first, and of this one never.
bool Participant::may_make_keys(const AggregationRound& round) {
  if (std::ranges::find(keyed_, round) != keyed_.end()) return false;
  if (keyed_.size() >= kMostKeyedSums) {
    const auto other = std::ranges::find_if(keyed_, [&](const AggregationRound& earlier) {
      return earlier.run != round.run || earlier.round != round.round;
    });
    if (other == keyed_.end()) return false;
    keyed_.erase(other);
  }
  keyed_.push_back(round);
  return true;
}

/// What the server or a peer did makes the sum unsafe or impossible for this device.
void Participant::leave_aggregation(Step step, const Error& error) {
  task_->masking = false;
  task_->aggregation.reset();
  task_->masked.reset();
  task_->reported = false;
  upload_.reset();
  decline(step, "secure aggregation: " + error.message);
}

void Participant::on_message(Step step, NeighbourKeys message) {
  if (!aggregating(message.round)) return ignore(step, "NeighbourKeys");
  if (message.devices < options_.required_privacy.min_devices) {
    return leave_aggregation(
        step,
        failed(fmt::format("the sum would be of {} devices, this device takes part in those of {}",
                           message.devices, options_.required_privacy.min_devices)));
  }
  auto shares = task_->aggregation->take(message);
  if (!shares) return leave_aggregation(step, shares.error());
  step.actions.push_back(Send{std::move(*shares)});
}

void Participant::on_message(Step step, PeerShares message) {
  if (!aggregating(message.round)) return ignore(step, "PeerShares");
  auto job = task_->aggregation->take(message);
  if (!job) return leave_aggregation(step, job.error());
  if (task_->masked) return report_masked(step);
  if (task_->masking) return;  // said again while it is being done
  task_->masking = true;
  step.actions.push_back(
      MaskUpdate{message.round, std::move(*job), *task_->trained->packed, task_->trained->update});
}

void Participant::on(Step step, UpdateMasked event) {
  if (!task_ || !task_->aggregation || task_->aggregation->round() != event.round) return;
  task_->masking = false;
  if (!event.masked) return leave_aggregation(step, event.masked.error());
  task_->masked = MaskedUpdate{std::move(*event.masked), {}};
  task_->masked->digest = task_->masked->bytes.digest();
  if (phase_ == Phase::kAggregating && link_ == Link::kUp) report_masked(step);
}

void Participant::report_masked(Step step) {
  phase_ = Phase::kUploading;
  heartbeat_at_.reset();
  upload_.emplace(task_->masked->digest, task_->masked->bytes);
  send_report(step);
}

void Participant::on_message(Step step, SurvivorSet message) {
  // The last bytes of the upload were its answer: none comes while the sum is not unmasked.
  if (phase_ == Phase::kUploading && task_->aggregation &&
      task_->aggregation->round() == message.round) {
    upload_.reset();
    phase_ = Phase::kAggregating;
  }
  if (!aggregating(message.round)) return ignore(step, "SurvivorSet");
  auto answer = task_->aggregation->take(message);
  if (!answer) return leave_aggregation(step, answer.error());
  if (auto* unmask = std::get_if<Unmask>(&*answer)) return send_unmask(step, std::move(*unmask));
  step.actions.push_back(Send{std::move(std::get<ConfirmSurvivors>(*answer))});
}

void Participant::send_unmask(Step step, Unmask message) {
  const auto [run, round, id] = message.round;
  const SecureAggregationPlan& secure = task_->assignment.plan.secure_aggregation;
  if (secure.threat_model == ThreatModel::kMaliciousServer) {
    const auto known = std::ranges::find(revealed_, run, &RoundOfRun::first);
    if (known == revealed_.end()) {
      revealed_.emplace_back(run, round);  // there is room: private_enough
    } else {
      known->second = std::max(known->second, round);
    }
  }
  // The sum says this device's update from here on, whether or not its verdict arrives.
  keep_residual();
  step.actions.push_back(Send{std::move(message)});
}

void Participant::on_message(Step step, SurvivorConfirmations message) {
  if (!aggregating(message.round)) return ignore(step, "SurvivorConfirmations");
  auto unmask = task_->aggregation->take(message);
  if (!unmask) return leave_aggregation(step, unmask.error());
  send_unmask(step, std::move(*unmask));
}

/// Two sums of one round, over devices that differ by one, would show that one's update. Only the
/// very sum in which shares were revealed may go on. (An honest server ends the round with a sum
/// that was unmasked, and has forgotten everything if it crashed before.)
bool Participant::has_revealed(const Assignment& assignment) const {
  if (assignment.plan.secure_aggregation.threat_model != ThreatModel::kMaliciousServer)
    return false;
  const RoundOfRun* revealed = revealed_in(assignment.run);
  if (revealed == nullptr || revealed->second < assignment.round) return false;
  const AggregationRound round{assignment.run, assignment.round, assignment.aggregation};
  return !task_ || !task_->aggregation || task_->aggregation->round() != round;
}

const RoundOfRun* Participant::revealed_in(RunId run) const {
  const auto found = std::ranges::find(revealed_, run, &RoundOfRun::first);
  return found == revealed_.end() ? nullptr : &*found;
}

/// Whether what the plan asks keeps what this device's owner asks for.
Result<void> Participant::private_enough(const Assignment& assignment) const {
  const SecureAggregationPlan& secure = assignment.plan.secure_aggregation;
  const RequiredPrivacy& required = options_.required_privacy;
  if (secure.threat_model < required.threat_model) {
    return failed(
        fmt::format("this device takes part only in sums that are secure against a server "
                    "that is {}; the plan says {}",
                    to_string(required.threat_model), to_string(secure.threat_model)));
  }
  if (secure.enabled() && secure.corruption < required.corruption) {
    return failed(
        fmt::format("the plan reckons with {:.3g} of the devices working with the server, "
                    "this device's owner with {:.3g}",
                    secure.corruption, required.corruption));
  }
  if (secure.threat_model == ThreatModel::kMaliciousServer && !options_.credentials) {
    return failed(
        "the plan does not trust the server, so devices sign: this device has no identity "
        "(identity.key and identity.cert of its kit)");
  }
  if (secure.threat_model == ThreatModel::kMaliciousServer && !revealed_in(assignment.run) &&
      revealed_.size() >= kMostRevealedRuns) {
    return failed(fmt::format(
        "this device helped to unmask sums of {} runs with servers that are not trusted, and can "
        "remember no more",
        kMostRevealedRuns));
  }
  if (has_revealed(assignment)) {
    return failed(
        "this device helped to unmask a sum of this round already; a second one could "
        "show a single update");
  }
  return {};
}

}  // namespace covey::client
