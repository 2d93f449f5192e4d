#include <covey/client/participant.hpp>
#include <utility>

// What the owner's conditions allow: when to work, and when to be connected.
namespace covey::client {
namespace {

/// Free memory changes all the time; the server has to know its order only.
bool differ(const DeviceConditions& before, DeviceConditions now) {
  const std::uint64_t a = before.free_memory_bytes, b = now.free_memory_bytes;
  if (a / 2 <= b && b / 2 <= a) now.free_memory_bytes = a;
  return before != now;
}

}  // namespace

/// For a task at hand, or for a new one if the owner lets it train and it has something to train
/// on.
bool Participant::may_connect() const {
  if (!options_.permissions.transfer) return false;
  return has_task() || (options_.permissions.train && options_.conditions.num_examples > 0);
}

void Participant::note_permissions(Step step, const Permissions& before) const {
  const Permissions& now = options_.permissions;
  if (now.train == before.train && now.transfer == before.transfer) return;
  const char* what = now.train && now.transfer ? "may work"
                     : now.train               ? "may not use the network"
                     : now.transfer            ? "may not train"
                                               : "may neither train nor use the network";
  step.actions.push_back(Note{what + (now.reason.empty() ? "" : ": " + now.reason)});
}

void Participant::on(Step step, ConditionsChanged event) {
  const Permissions before = std::exchange(options_.permissions, std::move(event.permissions));
  note_permissions(step, before);
  const bool tell = differ(options_.conditions, event.conditions);
  options_.conditions = std::move(event.conditions);
  if (tell && phase_ == Phase::kWaiting && may_connect()) check_in(step);
}

/// The end of a connection by our own choice: nobody failed, so nothing is waited for.
void Participant::hang_up(Step step) {
  step.actions.push_back(Disconnect{});
  forget_connection();
  if (phase_ == Phase::kPausing) return;  // the server's window still holds
  phase_ = Phase::kDisconnected;
  retry_at_.reset();
}

/// After every event, so that no order of events leaves the device doing what it must not.
void Participant::follow_conditions(Step step) {
  if (task_ && task_->stage == Stage::kTraining) {
    const bool may_train = options_.permissions.train;
    if (!task_->started) {
      if (may_train && !task_->in_doubt) start_training(step);
    } else if (task_->resting == may_train) {
      task_->resting = !may_train;
      may_train ? limit_training(step) : pause_limit(step);
      step.actions.push_back(may_train ? Action(ResumeTraining{}) : Action(PauseTraining{}));
    }
  }
  const bool may = may_connect();
  if (!may && link_ != Link::kDown) return hang_up(step);
  const bool idle = link_ == Link::kDown && phase_ == Phase::kDisconnected;
  if (!may && idle) retry_at_.reset();
  // Many devices of one household are let go at the same moment.
  if (may && idle && !retry_at_)
    retry_at_ = step.now + from_seconds(draw() * seconds(options_.backoff_min));
}

}  // namespace covey::client
