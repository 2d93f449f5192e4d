#include <fmt/format.h>

#include <algorithm>
#include <covey/client/participant.hpp>

// What a server can ask of a device at most, in work and in words: client/README.md has all limits.
namespace covey::client {
namespace {

/// Each new task is written to disk, and flash wears out. Nobody trains a task a second for long.
constexpr double kTasksASecond = 1;
/// On a connection. An honest server's messages cross with ours now and then.
constexpr std::uint32_t kMostIgnored = 1000;

}  // namespace

/// A device that keeps its work on disk takes kTasksAtOnce different tasks at once, and then one a
/// second.
bool Participant::may_take_task(Step step) {
  if (!options_.saves_work) return true;
  const double earned = seconds(std::max(step.now - allowance_from_, Duration::zero()));
  task_allowance_ = std::min(task_allowance_ + earned * kTasksASecond, kTasksAtOnce);
  allowance_from_ = step.now;
  if (task_allowance_ < 1) {
    violation(step, "the server hands out tasks faster than anybody could train");
    return false;
  }
  task_allowance_ -= 1;
  return true;
}

void Participant::limit_training(Step step) {
  if (options_.max_training_time > Duration::zero())
    task_->give_up_at = step.now + task_->patience_left;
}

void Participant::pause_limit(Step step) {
  if (!task_->give_up_at) return;
  task_->patience_left = std::max(*task_->give_up_at - step.now, Duration::zero());
  task_->give_up_at.reset();
}

/// However much a plan asks for: the device's owner says what is too long.
void Participant::give_up_training(Step step) {
  step.actions.push_back(CancelTraining{});
  task_->give_up_at.reset();
  task_->starts = 0;
  const std::string reason = fmt::format("training took longer than the {:.6g} s it may take",
                                         seconds(options_.max_training_time));
  if (phase_ == Phase::kTraining) return decline(step, reason);
  step.actions.push_back(
      Note{fmt::format("round {} declined: {}", value_of(task_->assignment.round), reason)});
  task_->stage = Stage::kDeclined;
  task_->declined = reason;
}

/// Each is a line in the device's log, which a server must not be able to fill.
void Participant::ignore(Step step, std::string_view message) {
  if (++ignored_ > kMostIgnored) {
    return violation(step, "the server goes on saying what makes no sense here");
  }
  step.actions.push_back(Note{fmt::format("ignored {} while {}", message, phase_name())});
}

}  // namespace covey::client
