#include <fmt/format.h>

#include <algorithm>
#include <covey/client/participant.hpp>
#include <initializer_list>

namespace covey::client {
namespace {

using namespace std::chrono_literals;

/// A pause shorter than this is spent connected: a TLS handshake costs both ends more than an idle
/// connection does in that time.
constexpr Duration kStayConnectedBelow = 30s;
/// A waiting device checks in again this often, so that a server that died in silence is noticed.
constexpr Duration kRecheckInterval = 5min;
/// Heartbeats outside these are a server's mistake.
constexpr Duration kShortestHeartbeat = 100ms;
constexpr Duration kLongestHeartbeat = 1h;
/// A chunk of more than 16 MiB would hold up everything behind it on the connection.
constexpr std::uint32_t kLargestChunk = 16 * 1024 * 1024;
/// Each is a message with its own memory: an update in pieces of a byte would take hundreds of
/// times its size.
constexpr std::uint32_t kSmallestChunk = 256;
/// A connection that lasted this long, or brought this many bytes across, was of use: what comes
/// after it is a new failure. Less costs a server nothing.
constexpr Duration kLongConnection = 60s;
constexpr std::uint64_t kUsefulBytes = 64 * 1024;

}  // namespace

Participant::Participant(ParticipantOptions options)
    : options_(std::move(options)),
      draws_(options_.memory.draws),
      violations_(options_.memory.violations),
      declines_(options_.memory.declines),
      task_allowance_(kTasksAtOnce),
      residuals_(std::exchange(options_.memory, {})) {
  if (options_.saved) restore(std::move(*std::exchange(options_.saved, std::nullopt)));
}

std::optional<Time> Participant::idle_until() const {
  const bool idle = phase_ == Phase::kPausing && link_ == Link::kDown && !has_task();
  return idle ? retry_at_ : std::nullopt;
}

void Participant::start(Time now, Actions& actions) {
  const Step step{now, actions};
  note_permissions(step, Permissions{});
  if (retry_at_ && *retry_at_ > now) {  // an earlier process was told to stay away until then
    retry_at_ = std::min(*retry_at_, now + kLongestAbsence);
    phase_ = Phase::kPausing;
  } else if (may_connect()) {
    retry_at_.reset();
    link_ = Link::kDialling;
    actions.push_back(Connect{});
  }
  check_restored(step);
  if (task_ && task_->report_by && *task_->report_by <= now) task_->in_doubt = true;
  const std::size_t first = actions.size();
  settle(step, false);
  if (task_ && task_->started) save(step, first);  // that it begins, before it does
}

void Participant::handle(Time now, Event event, Actions& actions) {
  if (phase_ == Phase::kFinished) return;
  const Step step{now, actions};
  const std::size_t first = actions.size();
  const bool heard = std::holds_alternative<Received>(event) && link_ == Link::kUp;
  std::visit([&](auto& e) { on(step, std::move(e)); }, event);
  settle(step, heard);
  save(step, first);
}

std::string_view Participant::phase_name() const {
  switch (phase_) {
    case Phase::kDisconnected:
      if (link_ == Link::kDialling) return "connecting";
      return may_connect() ? "disconnected" : "resting";
    case Phase::kGreeting:
      return "greeting";
    case Phase::kCheckingIn:
      return "checking-in";
    case Phase::kWaiting:
      return "waiting";
    case Phase::kPausing:
      return "pausing";
    case Phase::kDownloading:
      return "downloading";
    case Phase::kTraining:
      return "training";
    case Phase::kUploading:
      return "uploading";
    case Phase::kAggregating:
      return "aggregating";
    case Phase::kFinished:
      return "finished";
  }
  return "unknown";
}

// ---- connection

void Participant::on(Step step, Connected) {
  if (link_ == Link::kUp) drop_link(step);            // the host replaced the connection
  if (phase_ == Phase::kPausing || !may_connect()) {  // a dial that outlived its purpose
    step.actions.push_back(Disconnect{});
    link_ = Link::kDown;
    return;
  }
  link_ = Link::kUp;
  ignored_ = 0;
  connected_at_ = step.now;
  came_across_ = 0;
  retry_at_.reset();
  phase_ = Phase::kGreeting;
  step.actions.push_back(
      Send{Hello{kProtocolVersion, kProtocolVersion, options_.conditions.agent_version}});
}

void Participant::on(Step step, ConnectionLost event) {
  if (link_ == Link::kDown) return;  // the echo of our own Disconnect
  step.actions.push_back(Note{"connection lost: " + event.reason});
  if (event.violation) ++violations_;
  drop_link(step);
}

/// Everything that belongs to the connection ends; the task stays.
void Participant::forget_connection() {
  link_ = Link::kDown;
  stale_requests_ = 0;
  progress_unanswered_ = false;
  upload_.reset();
  if (task_ && task_->download) task_->download->connection_lost();
}

/// Connects again after an exponential backoff with full jitter, uniform in [0, min(max, min *
/// 2^n)] (Brooker 2015).
void Participant::drop_link(Step step) {
  if (phase_ == Phase::kDownloading || phase_ == Phase::kUploading) rate_.broke(piece_bytes());
  const bool of_use = link_ == Link::kUp && (step.now - connected_at_ >= kLongConnection ||
                                             came_across_ >= kUsefulBytes);
  if (of_use) failures_ = 0;
  forget_connection();
  constexpr std::uint32_t kMostDoublings = 30;
  const std::uint32_t doublings = std::min(std::max(failures_, violations_), kMostDoublings);
  const double ceiling =
      std::min(seconds(options_.backoff_max),
               seconds(options_.backoff_min) * static_cast<double>(1ull << doublings));
  ++failures_;
  const Time again = step.now + from_seconds(draw() * ceiling);
  if (phase_ == Phase::kPausing) {  // the server's window still holds
    retry_at_ = std::max(retry_at_.value_or(again), again);
  } else {
    phase_ = Phase::kDisconnected;
    retry_at_ = again;
  }
}

void Participant::break_link(Step step, std::string reason) {
  step.actions.push_back(Note{"disconnecting: " + std::move(reason)});
  step.actions.push_back(Disconnect{});
  drop_link(step);
}

/// A message that no honest server sends here. It is not worth a second look soon: what was right
/// before and after it does not shorten the backoff, only an orderly end of a task does.
void Participant::violation(Step step, std::string reason) {
  ++violations_;
  break_link(step, std::move(reason));
}

void Participant::finish(Step step, bool ok, std::string reason) {
  const bool training = task_ && task_->stage == Stage::kTraining && task_->started;
  if (training) step.actions.push_back(CancelTraining{});
  if (link_ != Link::kDown) step.actions.push_back(Disconnect{});
  link_ = Link::kDown;
  phase_ = Phase::kFinished;
  task_.reset();
  upload_.reset();
  model_.reset();
  partial_.reset();
  step.actions.push_back(Finished{ok, std::move(reason)});
}

void Participant::on(Step step, StopRequested) {
  // The next process goes on with what is saved, but for a sum, whose keys are not.
  const bool goes_on = options_.saves_work && !(task_ && task_->aggregation);
  if (working() && link_ == Link::kUp && !goes_on) {
    const Assignment& assignment = task_->assignment;
    step.actions.push_back(
        Send{Decline{assignment.run, assignment.round, "the device was asked to stop"}});
  }
  if (task_ && task_->stage == Stage::kTraining && task_->started && task_->starts > 0) {
    --task_->starts;  // it did not end the process
    save(step, step.actions.size());
  }
  options_.saves_work = false;  // what is saved stays as it is
  finish(step, true, "stop requested");
}

// ---- messages

void Participant::on(Step step, Received event) {
  if (link_ != Link::kUp) return;  // was under way when we disconnected
  const bool greets = std::holds_alternative<Welcome>(event.message) ||
                      std::holds_alternative<Refusal>(event.message);
  if (phase_ == Phase::kGreeting && !greets) return ignore(step, "a message before Welcome");
  std::visit([&](auto& message) { on_message(step, std::move(message)); }, event.message);
}

void Participant::on_message(Step step, Welcome welcome) {
  if (phase_ != Phase::kGreeting) return ignore(step, "a second Welcome");
  if (welcome.version != kProtocolVersion || welcome.max_chunk_bytes < kSmallestChunk) {
    return violation(step, fmt::format("the server welcomed version {} with chunks of {} bytes",
                                       welcome.version, welcome.max_chunk_bytes));
  }
  max_chunk_bytes_ = std::min(welcome.max_chunk_bytes, kLargestChunk);
  heartbeat_interval_ =
      std::clamp(welcome.heartbeat_interval, kShortestHeartbeat, kLongestHeartbeat);
  check_in(step);
}

void Participant::on_message(Step step, Refusal refusal) {
  std::string reason =
      fmt::format("refused by the server ({}): {}", to_string(refusal.reason), refusal.text);
  switch (refusal.reason) {
    case RefusalReason::kRunFinished:  // nothing of the work is of use any more
      return finish(step, true, std::move(reason));
    case RefusalReason::kShuttingDown:
      return break_link(step, std::move(reason));
    case RefusalReason::kVersion:
    case RefusalReason::kRevoked:
    case RefusalReason::kProtocol:
    case RefusalReason::kNotAuthorised:
      break;
  }
  options_.saves_work = false;  // its owner may mend it
  finish(step, false, std::move(reason));
}

void Participant::on_message(Step step, Waiting) {
  if (phase_ != Phase::kCheckingIn) return ignore(step, "Waiting");
  phase_ = Phase::kWaiting;
  ask_for_verdict(step);
}

void Participant::on_message(Step step, RetryLater later) {
  const bool idle =
      phase_ == Phase::kCheckingIn || phase_ == Phase::kWaiting || phase_ == Phase::kPausing;
  if (!idle) return ignore(step, "RetryLater");
  violations_ = 0;
  pause(step, later.window);
}

void Participant::on_message(Step step, StatusReply) { ignore(step, "StatusReply"); }

// ---- check-in and pauses

void Participant::check_in(Step step) {
  phase_ = Phase::kCheckingIn;
  retry_at_.reset();
  // First: behind the check-in the next cohort may be drawn, and the verdicts on this one
  // forgotten.
  if (task_ && task_->trained && !task_->trained->packed) ask_for_verdict(step);
  CheckIn message{options_.conditions};
  if (model_) message.conditions.held_model = model_->digest;
  step.actions.push_back(Send{std::move(message)});
}

void Participant::pause(Step step, RetryWindow window) {
  const Duration shortest = std::clamp(window.delay_min, Duration::zero(), kLongestAbsence);
  const Duration longest = std::clamp(window.delay_max, shortest, kLongestAbsence);
  const Duration delay = shortest + from_seconds(draw() * seconds(longest - shortest));
  phase_ = Phase::kPausing;
  retry_at_ = step.now + delay;
  if (delay >= kStayConnectedBelow) failures_ = 0;  // long enough between two connections
  if (delay >= kStayConnectedBelow && link_ != Link::kDown) {
    step.actions.push_back(Disconnect{});
    forget_connection();
  }
}

/// Uniform in [0, 1).
double Participant::draw() {
  RandomStream stream(options_.seed, RandomPurpose::kBackoff, RoundNumber{draws_++},
                      options_.client);
  return stream.uniform();
}

// ---- clocks

void Participant::on(Step step, TimerFired) {
  armed_at_.reset();
  const auto due = [&](const std::optional<Time>& at) { return at && *at <= step.now; };
  if (due(answer_by_)) {
    return break_link(step, fmt::format("no answer from the server while {}", phase_name()));
  }
  if (due(retry_at_)) {
    retry_at_.reset();
    if (link_ == Link::kUp) return check_in(step);
    phase_ = Phase::kDisconnected;
    if (may_connect()) {
      link_ = Link::kDialling;
      step.actions.push_back(Connect{});
    }
  }
  if (task_ && due(task_->give_up_at)) return give_up_training(step);
  if (due(heartbeat_at_)) send_progress(step);
  if (due(recheck_at_)) check_in(step);
}

/// After every event: which deadlines hold in the phase reached, and the timer for the earliest.
void Participant::settle(Step step, bool heard) {
  if (phase_ == Phase::kFinished) return;
  follow_conditions(step);
  const bool up = link_ == Link::kUp;
  const bool owed =
      up &&
      (phase_ == Phase::kGreeting || phase_ == Phase::kCheckingIn ||
       phase_ == Phase::kDownloading || phase_ == Phase::kUploading ||
       ((phase_ == Phase::kTraining || phase_ == Phase::kAggregating) && progress_unanswered_));
  if (!owed) {
    answer_by_.reset();
  } else if (heard || !answer_by_) {
    answer_by_ = step.now + options_.answer_timeout + rate_.patience(bytes_under_way());
  }
  if (!up || !working()) {
    heartbeat_at_.reset();
  } else if (!heartbeat_at_) {
    heartbeat_at_ = step.now + heartbeat_interval_;
    if (phase_ == Phase::kUploading) {
      // Only the replies break the silence while the server makes an update wait for its turn.
      heartbeat_at_ = std::min(*heartbeat_at_, step.now + options_.answer_timeout / 2);
    }
  }
  if (!up || phase_ != Phase::kWaiting) {
    recheck_at_.reset();
  } else if (!recheck_at_) {
    recheck_at_ = step.now + kRecheckInterval;
  }

  std::optional<Time> next;
  const auto give_up_at = task_ ? task_->give_up_at : std::nullopt;
  for (const auto& at : {retry_at_, answer_by_, heartbeat_at_, recheck_at_, give_up_at}) {
    if (at && (!next || *at < *next)) next = at;
  }
  // A timer that fires too early is harmless, and cheaper than setting a new one with every
  // message.
  if (next && (!armed_at_ || *next < *armed_at_)) {
    armed_at_ = next;
    step.actions.push_back(SetTimer{*next});
  }
}

}  // namespace covey::client
