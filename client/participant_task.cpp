#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/client/participant.hpp>
#include <covey/compressor_spec.hpp>
#include <covey/encoding.hpp>
#include <covey/models/engine.hpp>

// From an assignment to its verdict. The connection side is in participant.cpp.
namespace covey::client {
namespace {

using namespace std::chrono_literals;

/// Progress that the trainer reports more often than this is only remembered.
constexpr Duration kProgressGap = 250ms;
/// First pause after a declined task; doubles with every further one.
constexpr Duration kDeclinePause = 1s;

/// The same work, in whichever attempt to sum it.
bool same(const Assignment& a, const Assignment& b) {
  return a.run == b.run && a.round == b.round && a.model == b.model &&
         a.model_size == b.model_size && a.plan == b.plan;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

}  // namespace

bool Participant::working() const {
  return phase_ == Phase::kDownloading || phase_ == Phase::kTraining ||
         phase_ == Phase::kUploading || phase_ == Phase::kAggregating;
}

bool Participant::is_task(RunId run, RoundNumber round) const {
  return task_ && task_->assignment.run == run && task_->assignment.round == round;
}

// ---- assignment

void Participant::on_message(Step step, Assignment assignment) {
  const Duration within =
      std::clamp(assignment.report_within, Duration::zero(), kLongestAbsence);
  assignment.report_within = within;
  const auto report_by =
      within > Duration::zero() ? std::optional(step.now + within) : std::nullopt;
  if (task_ && same(task_->assignment, assignment)) {
    if (working() && task_->assignment.aggregation == assignment.aggregation) {
      return;  // crossed with a CheckIn
    }
    if (!may_take_task(step)) return;  // it is saved anew
    restart_aggregation(assignment.aggregation);
    if (auto status = private_enough(assignment); !status) {
      return decline(step, status.error().message);
    }
    task_->assignment.report_within = within;
    task_->report_by = report_by;
    return resume_task(step);
  }
  if (!may_take_task(step)) return;
  forget_task(step);
  forget_residuals_before(assignment);
  task_.emplace(Task{});
  task_->assignment = std::move(assignment);
  task_->report_by = report_by;
  begin_task(step);
}

/// Whether this device can take the task now, before anything is allocated or downloaded for it.
Result<void> Participant::acceptable(const Assignment& assignment) {
  COVEY_TRY(may_train_again());
  if (!options_.permissions.train) {
    return failed("the owner's conditions do not allow training now: " +
                  options_.permissions.reason);
  }
  return suitable(assignment);
}

/// Whether the task is one for this device at all.
Result<void> Participant::suitable(const Assignment& assignment) {
  const TrainingPlan& plan = assignment.plan;
  const DeviceConditions& conditions = options_.conditions;
  if (!conditions.precisions.empty() && !contains(conditions.precisions, plan.precision)) {
    return failed("this device cannot train in precision \"" + plan.precision + "\"");
  }
  COVEY_ASSIGN(const CompressorSpec compressor, parse_compressor(plan.compressor));
  if (!conditions.compressors.empty() && !supports(conditions.compressors, compressor)) {
    return failed("this device cannot encode updates with \"" + plan.compressor + "\"");
  }
  COVEY_TRY(private_enough(assignment));
  if (assignment.model_size == 0) return failed("the model has no bytes");
  COVEY_TRY(plan_model(plan));
  if (const auto& bytes = options_.planned->bytes; bytes && assignment.model_size != *bytes) {
    return failed(fmt::format("the model has {} bytes, the plan's network takes {}",
                              assignment.model_size, *bytes));
  }
  if (assignment.model_size > options_.max_model_bytes) {
    return failed(fmt::format("the model has {} bytes, this device takes {} at most",
                              assignment.model_size, options_.max_model_bytes));
  }
  if (options_.check_plan) return options_.check_plan(plan);
  return {};
}

/// How many bytes the plan's model has. A TorchScript file is only known to the engine, which
/// refuses a model of another size when it is loaded: until then the announced size holds.
Result<void> Participant::plan_model(const TrainingPlan& plan) {
  PlannedModel& known = *options_.planned;
  if (known.precision == plan.precision && known.spec == plan.model) return {};
  known.precision.clear();
  COVEY_ASSIGN(const Encoding encoding, model_encoding(plan.precision));
  PlannedModel planned{plan.model, plan.precision, std::nullopt};
  if (plan.model.torchscript.empty()) {
    auto network = models::make_network(plan.model, plan.precision);
    if (!network) return with_context("the plan's network", network.error());
    planned.bytes = encoded_size(encoding, network->layout());
  }
  known = std::move(planned);
  return {};
}

void Participant::begin_task(Step step) {
  const Assignment& assignment = task_->assignment;
  if (auto status = acceptable(assignment); !status) return decline(step, status.error().message);
  // The model may be the last round's.
  if (model_ && model_->digest == assignment.model) return begin_training(step);
  choose_download();
  begin_download(step);
}

/// The assignment at hand came again, after a lost connection or from a server that lost its round.
void Participant::resume_task(Step step) {
  switch (task_->stage) {
    case Stage::kDownloading:
      phase_ = Phase::kDownloading;
      retry_at_.reset();
      if (task_->download) return request_pieces(step);
      return begin_task(step);
    case Stage::kTraining:
      phase_ = Phase::kTraining;
      retry_at_.reset();
      task_->in_doubt = false;
      return;
    case Stage::kTrained:
      return report(step);
    case Stage::kDeclined: {
      if (!task_->decline_told) return decline(step, task_->declined);
      // The server knows and asks again: it tries an abandoned round once more. What failed then
      // may work now; if not, the growing pause bounds what it costs.
      Assignment again = std::move(task_->assignment);
      const auto report_by = task_->report_by;
      const auto starts = task_->starts;
      task_.emplace(Task{});
      task_->starts = starts;
      task_->assignment = std::move(again);
      task_->report_by = report_by;
      return begin_task(step);
    }
  }
}

void Participant::decline(Step step, std::string reason) {
  const Assignment& assignment = task_->assignment;
  step.actions.push_back(
      Note{fmt::format("round {} declined: {}", value_of(assignment.round), reason)});
  const bool told = link_ == Link::kUp;
  if (told) {
    step.actions.push_back(
        Send{Decline{assignment.run, assignment.round, reason, has_revealed(assignment)}});
  }
  task_->stage = Stage::kDeclined;
  task_->declined = std::move(reason);
  task_->decline_told = told;
  if (task_->download) stale_requests_ += task_->download->outstanding();
  task_->download.reset();
  if (!options_.keep_finished_work && !options_.keep_model) model_.reset();
  constexpr std::uint32_t kMostDoublings = 20;
  const Duration longest =
      std::min(options_.backoff_max, kDeclinePause * (1 << std::min(declines_, kMostDoublings)));
  ++declines_;
  if (told) pause(step, RetryWindow{longest / 2, longest});
}

/// The task is void; whatever was done for it goes, but for what was downloaded.
void Participant::forget_task(Step step) {
  if (!task_) return;
  if (const std::string lost = what_is_lost(); !lost.empty()) {
    step.actions.push_back(
        Note{fmt::format("round {}: {}", value_of(task_->assignment.round), lost)});
  }
  if (task_->stage == Stage::kTraining && task_->started) step.actions.push_back(CancelTraining{});
  if (task_->download) {
    stale_requests_ += task_->download->outstanding();
    task_->download->connection_lost();
    if (options_.keep_finished_work && task_->download->held() > 0)
      partial_ = std::move(task_->download);
  }
  task_.reset();
  upload_.reset();
}

/// What an end of the round costs, in words; "" for a task that is decided.
std::string Participant::what_is_lost() const {
  switch (task_->stage) {
    case Stage::kDownloading:
      if (!task_->download) return "the task is discarded";
      return fmt::format("the task is discarded with {} of {} bytes downloaded",
                         task_->download->held(), task_->download->size());
    case Stage::kTraining:
      return "the training at hand is discarded";
    case Stage::kTrained:
      if (task_->decided || !task_->trained) return "";
      return fmt::format("the finished update is discarded undelivered ({} bytes)",
                         task_->trained->update.size());
    case Stage::kDeclined:
      return "";
  }
  return "";
}

void Participant::drop_finished_work() {
  if (options_.keep_finished_work) return;
  task_.reset();
  if (!options_.keep_model) model_.reset();
  partial_.reset();
}

// ---- training

/// It starts when the owner's conditions allow (follow_conditions).
void Participant::begin_training(Step step) {
  task_->stage = Stage::kTraining;
  task_->download.reset();
  partial_.reset();
  phase_ = Phase::kTraining;
  retry_at_.reset();
  follow_conditions(step);
}

void Participant::start_training(Step step) {
  const Assignment& assignment = task_->assignment;
  task_->started = true;
  ++task_->starts;
  TrainingTask training{assignment.run,         assignment.round, options_.client,
                        assignment.plan,        model_->bytes,    assignment.report_within,
                        residual_of(assignment)};
  if (task_->report_by) {  // what the download took is gone
    training.report_within = std::max(*task_->report_by - step.now, Duration(1));
  }
  step.actions.push_back(StartTraining{std::move(training)});
  task_->patience_left = options_.max_training_time;
  limit_training(step);
}

void Participant::on(Step step, TrainingProgress progress) {
  if (!task_ || task_->stage != Stage::kTraining) return;
  task_->steps_done = progress.steps_done;
  task_->steps_total = progress.steps_total;
  const bool online = phase_ == Phase::kTraining && link_ == Link::kUp;
  if (online && (!progress_sent_ || step.now - *progress_sent_ >= kProgressGap))
    send_progress(step);
}

void Participant::send_progress(Step step) {
  const Assignment& assignment = task_->assignment;
  progress_sent_ = step.now;
  progress_unanswered_ = true;
  heartbeat_at_.reset();
  // A private device's steps would tell how many examples it has.
  const TrainingPlan& plan = assignment.plan;
  const bool tells = !plan.secure_aggregation.enabled() && !plan.privacy.enabled();
  step.actions.push_back(
      Send{Progress{assignment.run, assignment.round, tells ? task_->steps_done : 0,
                    tells ? task_->steps_total : 0}});
}

void Participant::on_message(Step step, ProgressReply reply) {
  progress_unanswered_ = false;
  if (!is_task(reply.run, reply.round) || !working()) return;  // of a task given up meanwhile
  if (reply.wanted) return;
  step.actions.push_back(Note{fmt::format("round {} is over", value_of(reply.round))});
  if (task_->stage == Stage::kTrained) {
    upload_.reset();  // the update may have been counted: its verdict is asked for again
  } else {
    forget_task(step);
    drop_finished_work();
  }
  check_in(step);
}

void Participant::on(Step step, TrainingFinished event) {
  if (!is_task(event.run, event.round) || task_->stage != Stage::kTraining) {
    step.actions.push_back(
        Note{fmt::format("training for round {} came too late", value_of(event.round))});
    return;
  }
  const bool online = phase_ == Phase::kTraining;
  task_->give_up_at.reset();
  task_->starts = 0;
  if (!event.result) {
    const std::string& reason = event.result.error().message;
    if (online) return decline(step, reason);
    task_->stage = Stage::kDeclined;
    task_->declined = reason;
    return;
  }
  task_->stage = Stage::kTrained;
  task_->trained = std::move(event.result).value();
  task_->train_time = event.took;
  task_->steps_done = std::max(task_->steps_done, task_->trained->steps);
  if (online) report(step);
}

// ---- report and upload

void Participant::report(Step step) {
  if (task_->trained->packed) return advertise(step);
  phase_ = Phase::kUploading;
  retry_at_.reset();
  heartbeat_at_.reset();  // the next may be due sooner than while training
  task_->decided = false;
  upload_.emplace(task_->trained->digest, task_->trained->update);
  send_report(step);
}

void Participant::send_report(Step step) {
  const Assignment& assignment = task_->assignment;
  const TrainedUpdate& trained = *task_->trained;
  COVEY_ASSERT(!trained.packed || task_->masked);  // else it would show what the sum is to hide
  task_->reported = true;
  if (assignment.plan.privacy.noise != DeviceNoise::kNone)
    released_.emplace(assignment.run, assignment.round);
  Report message;
  message.run = assignment.run;
  message.round = assignment.round;
  if (task_->masked) {  // whatever else there is to say is inside
    message.blob = task_->masked->digest;
    message.blob_size = task_->masked->bytes.size();
    step.actions.push_back(Send{std::move(message)});
    return;
  }
  message.blob = trained.digest;
  message.blob_size = trained.update.size();
  message.weight = trained.weight;
  message.scalars = trained.scalars;
  if (!assignment.plan.privacy.enabled()) {
    message.num_examples = trained.num_examples;
    message.steps = trained.steps;
    message.train_loss = trained.train_loss;
    message.train_seconds = seconds(task_->train_time);
  }
  step.actions.push_back(Send{std::move(message)});
}

/// In the pool with a report that was never answered: the answer was lost with an earlier
/// connection, and a server that remembers the round gives it again.
void Participant::ask_for_verdict(Step step) {
  if (task_ && task_->stage == Stage::kTrained && task_->reported && !task_->decided) {
    if (task_->trained->packed && !task_->masked) return;  // nothing that it could name
    send_report(step);
  }
}

void Participant::on_message(Step step, UploadGrant grant) {
  if (phase_ == Phase::kCheckingIn) return;  // to a report that only asked for its verdict
  if (phase_ != Phase::kUploading) return ignore(step, "UploadGrant");
  const std::uint64_t confirmed = upload_->confirmed(), under_way = upload_->in_flight();
  if (auto status = upload_->grant(grant); !status) {
    return violation(step, status.error().message);
  }
  const std::uint64_t acknowledged = std::min(upload_->confirmed() - confirmed, under_way);
  came_across_ += acknowledged;
  if (acknowledged > 0) rate_.measure(acknowledged, step.now - transfer_mark_);
  if (acknowledged > 0) rate_.came_across(std::min(options_.request_bytes, max_chunk_bytes_));
  if (acknowledged > 0 || under_way == 0) transfer_mark_ = step.now;
  while (auto chunk = upload_->next_chunk(piece_bytes())) {
    traffic_.update_bytes += chunk->payload.size();
    step.actions.push_back(Send{*std::move(chunk)});
  }
}

/// A verdict comes to an upload, or after a reconnect to a report whose answer was lost.
bool Participant::awaits_verdict(RunId run, RoundNumber round) const {
  const bool listening = phase_ == Phase::kUploading || phase_ == Phase::kAggregating ||
                         phase_ == Phase::kCheckingIn || phase_ == Phase::kWaiting;
  return listening && is_task(run, round) && task_->reported && !task_->decided;
}

void Participant::on_message(Step step, ReportAccepted accepted) {
  if (!awaits_verdict(accepted.run, accepted.round)) return ignore(step, "ReportAccepted");
  const std::pair round(accepted.run, accepted.round);
  if (last_accepted_ != round) {  // a server that lost the round accepts it twice
    ++rounds_accepted_;
    failures_ = 0;
  }
  last_accepted_ = round;
  declines_ = 0;
  keep_residual();
  step.actions.push_back(Note{fmt::format("round {} accepted", value_of(accepted.round))});
  end_task(step, accepted.retry);
}

void Participant::on_message(Step step, ReportRejected rejected) {
  if (!awaits_verdict(rejected.run, rejected.round)) return ignore(step, "ReportRejected");
  step.actions.push_back(Note{fmt::format("round {} rejected ({}): {}", value_of(rejected.round),
                                          to_string(rejected.reason), rejected.text)});
  auto kept =
      rejected.reason == RejectReason::kServerFailed ? std::move(task_->aggregation) : std::nullopt;
  restore_residual();
  end_task(step, rejected.retry);
  if (task_) task_->aggregation = std::move(kept);  // in this sum it may be asked again
}

/// After a verdict. The update is kept: a server that failed or lost the round asks for it again.
void Participant::end_task(Step step, RetryWindow retry) {
  const bool counted = last_accepted_ == std::pair(task_->assignment.run, task_->assignment.round);
  task_->decided = true;
  task_->aggregation.reset();
  task_->masking = false;
  task_->masked.reset();
  if (task_->trained->packed) task_->reported = false;  // what was reported is gone
  violations_ = 0;
  upload_.reset();
  drop_finished_work();
  // In the pool, or on the way there, it may be selected any moment.
  const bool in_pool = phase_ == Phase::kWaiting || (phase_ == Phase::kCheckingIn && counted);
  if (!in_pool) pause(step, retry);
}

void Participant::on_message(Step step, RoundOver over) {
  if (!is_task(over.run, over.round)) return ignore(step, "RoundOver of another round");
  const bool at_hand = working() || phase_ == Phase::kCheckingIn;
  forget_task(step);
  drop_finished_work();
  if (!at_hand) return;
  step.actions.push_back(Note{fmt::format("round {} is over without us", value_of(over.round))});
  pause(step, over.retry);
}

}  // namespace covey::client
