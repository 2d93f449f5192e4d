#include <fmt/format.h>

#include <covey/assert.hpp>
#include <covey/random.hpp>

#include "round_coordinator_state.hpp"

// Asynchronous aggregation (Nguyen et al. 2022, Algorithm 1; Huba et al. 2022, section 4): no
// cohorts. Up to `concurrency` devices are at work at any time, each on the model that was current
// when it was given its assignment. A round is what it takes until `buffer` updates are in the sum:
// then the strategy moves the model, the round is committed, and everybody else goes on working. In
// every sum a device is counted once: one whose update is in it waits for the next.
namespace covey::server {

RoundCoordinator::State::Buffer::Buffer(const AsynchronousConfig& config,
                                        std::size_t selection_goal)
    : size(config.buffer),
      concurrency(config.concurrency > 0 ? config.concurrency : selection_goal),
      max_staleness(config.max_staleness) {}

// ---- from one step of the model to the next

/// A sum begins: at the start of the run, and whenever the one before is done with.
void RoundCoordinator::State::begin_step(Time now, Actions& actions) {
  phase = Phase::kReporting;
  if (used_up(actions)) return;
  if (version == nullptr) new_version();
  selection_at = now + times.selection_timeout;
  actions.emplace_back(BeginSum{round()});
}

void RoundCoordinator::State::settle_step(Time now, Actions& actions) {
  if (phase != Phase::kReporting) return;
  judge_ready(actions);
  if (awaiting == Awaiting::kNothing && buffer.accepted.size() == buffer.size) {
    apply_buffer(now, actions);
  }
  hand_out(now, actions);
  pump_uploads(actions);
  if (!liveness_at && slots.active() > 0) liveness_at = now + times.heartbeat;
}

/// Updates enter a sum only while it is open, and never more than the buffer holds. The others
/// wait.
void RoundCoordinator::State::judge_ready(Actions& actions) {
  if (awaiting != Awaiting::kNothing) return;
  while (!buffer.ready.empty() && buffer.accepted.size() + buffer.judging < buffer.size) {
    Member& member = *cohort.find(buffer.ready.begin()->second);
    leave_ready(member);
    judge(member, actions);
  }
}

/// It is judged now, or will not be; maybe it was not there.
void RoundCoordinator::State::leave_ready(const Member& member) {
  buffer.ready.erase(member.ready_place);
}

void RoundCoordinator::State::apply_buffer(Time now, Actions& actions) {
  std::ranges::sort(buffer.accepted);  // so that the order of arrival does not show
  metrics = std::exchange(buffer.metrics, RoundMetrics{});
  buffer.metrics.started = now;
  metrics.round = round();
  double staleness = 0;
  for (const ClientId client : buffer.accepted) staleness += cohort.find(client)->staleness;
  metrics.staleness = staleness / static_cast<double>(buffer.size);
  cohort.tally(metrics, buffer.accepted);
  // Assignments that ended in this round, whenever they were given.
  metrics.accepted = static_cast<std::uint32_t>(buffer.accepted.size());
  metrics.dropped = metrics.declined + metrics.lost + metrics.late;
  metrics.selected = metrics.accepted + metrics.rejected + metrics.dropped;
  selection_at.reset();
  awaiting = Awaiting::kStrategy;
  actions.emplace_back(ApplyStrategy{round(), nullptr});
}

/// The round is durable, or abandoned. Whoever is in its sum may be given work again.
void RoundCoordinator::State::step_stored(Actions& actions) {
  ++buffer.sum;
  buffer.accepted.clear();
  // A verdict that was lost can be asked for until the next round ends.
  for (const ClientId client : buffer.decided_before) {
    const Member* member = cohort.find(client);
    if (member != nullptr && !member->undecided() && member->sum + 1 < buffer.sum) {
      cohort.remove(*member);
    }
  }
  buffer.decided_before = std::exchange(buffer.decided, {});
  roster.wake();
  if (!metrics.committed) return;
  buffer.draws = 0;
  new_version();
  expire(actions);
}

// ---- who works

/// Places are filled as soon as somebody is there to take them, uniformly among those who wait.
void RoundCoordinator::State::hand_out(Time now, Actions& actions) {
  // Behind a sum that is complete comes a newer model.
  if (awaiting == Awaiting::kStrategy || awaiting == Awaiting::kStore) return;
  if (value_of(committed) >= options.config.num_rounds) return;
  while (cohort.undecided() < buffer.concurrency && roster.pool_size() > 0) {
    RandomStream random(options.selection_seed.value_or(options.config.seed),
                        RandomPurpose::kSelection, round(), static_cast<ClientId>(buffer.draws++));
    Connection& connection =
        roster.pool_at(static_cast<std::size_t>(random.below(roster.pool_size())));
    roster.leave_pool(connection);
    if (const Member* before = cohort.find(connection.client)) {
      COVEY_ASSERT(!before->undecided());  // one that works is not in the pool
      cohort.remove(*before);
    }
    Member& member = cohort.add(version, connection.client, now);
    member.ticket = buffer.next_ticket++;
    member.deadline = now + times.round_deadline;
    member.variant = connection.variant;
    member.compressor = connection.compressor;
    back_to_work(member);
    assign(now, member, connection, actions);
  }
}

/// Its update is not here (any more): the assignment can end at its deadline.
void RoundCoordinator::State::back_to_work(Member& member) {
  buffer.in_flight.try_emplace(member.ticket,
                               Buffer::InFlight{member.client, member.round, member.deadline});
  if (member.report && !member.connection) went_away(member);
}

void RoundCoordinator::State::went_away(Member& member) {
  if (!buffer.in_flight.contains(member.ticket)) return;  // nothing is expected of it
  member.away_since = clock;
  buffer.away.emplace_back(clock, member.client);
}

/// Its place is free, and whatever it still sends is too late.
void RoundCoordinator::State::give_up(Member& member, Actions& actions) {
  withdraw(member);
  drop_upload(member, actions);
  ++(member.connection ? buffer.metrics.late : buffer.metrics.lost);
  if (member.connection) {
    send(*member.connection, RoundOver{run, member.round, times.retry}, actions);
  }
  buffer.in_flight.erase(member.ticket);
  cohort.remove(member);
}

/// Assignments of models that are too old by now, whether their update is here or not.
void RoundCoordinator::State::expire(Actions& actions) {
  const auto too_old = [&](RoundNumber of) { return staleness_of(of) > buffer.max_staleness; };
  while (!buffer.in_flight.empty() && too_old(buffer.in_flight.begin()->second.round)) {
    give_up(*cohort.find(buffer.in_flight.begin()->second.client), actions);
  }
  std::erase_if(buffer.ready, [&](const auto& waiting) {
    Member& member = *cohort.find(waiting.second);
    if (!too_old(member.round)) return false;
    turn_away(member, actions);
    return true;
  });
}

/// The update is here, but the model has moved on too far while it waited for the sum.
void RoundCoordinator::State::turn_away(Member& member, Actions& actions) {
  drop_upload(member, actions);
  ++buffer.metrics.late;
  if (member.connection) {
    send_rejection(*member.connection, *member.report, RejectReason::kLate,
                   fmt::format("the update began with a model {} rounds old, at most {} are taken",
                               staleness_of(member.round), buffer.max_staleness),
                   actions);
  }
  cohort.remove(member);
}

/// Uploads that no other server will know: it begins with nobody at work.
void RoundCoordinator::State::drop_unfinished(Actions& actions) const {
  for (const Member& member : cohort.members()) {
    if (member.undecided()) drop_upload(member, actions);
  }
}

/// An assignment ended with a verdict, or was declined.
void RoundCoordinator::State::decided(Member& member) {
  buffer.in_flight.erase(member.ticket);
  leave_ready(member);
  buffer.decided.insert(member.client);
  member.sum = buffer.sum;
  member.version.reset();  // the model it began with may be the last of its kind
  if (member.state == MemberState::kRejected) ++buffer.metrics.rejected;
  if (member.state == MemberState::kLeft) ++buffer.metrics.declined;
  if (!member.accepted()) return begin_pause(member.client);
  buffer.accepted.push_back(member.client);
  selection_at = clock + times.selection_timeout;
}

/// Counted in the sum at hand: nobody is counted in it twice.
bool RoundCoordinator::State::rests(ClientId client) {
  const Member* member = cohort.find(client);
  return member != nullptr && member->accepted() && member->sum == buffer.sum;
}

/// A device whose update was rejected, or that declined, would most likely do so again at once.
void RoundCoordinator::State::begin_pause(ClientId client) {
  const Time end = clock + times.busy.delay_min;
  buffer.not_before[client] = end;
  buffer.pauses.emplace_back(end, client);  // all last equally long: in order
}

bool RoundCoordinator::State::pauses(Time now, Connection& connection, Actions& actions) {
  while (!buffer.pauses.empty() && buffer.pauses.front().first <= now) {
    const auto over = buffer.not_before.find(buffer.pauses.front().second);
    if (over != buffer.not_before.end() && over->second <= now) buffer.not_before.erase(over);
    buffer.pauses.pop_front();
  }
  const auto pause = buffer.not_before.find(connection.client);
  if (pause == buffer.not_before.end()) return false;
  const Duration left = pause->second - now;
  roster.leave_pool(connection);
  send(connection.id,
       RetryLater{{left, left + (times.busy.delay_max - times.busy.delay_min)},
                  "the device's last update was rejected, or it declined its last task"},
       actions);
  return true;
}

/// Rounds committed since the model that this assignment is about.
std::uint32_t RoundCoordinator::State::staleness_of(RoundNumber round_of_task) const {
  return value_of(round()) - value_of(round_of_task);
}

/// The first round that an update may still be of.
RoundNumber RoundCoordinator::State::oldest_wanted() const {
  if (!asynchronous()) return round();
  const std::uint32_t now = value_of(round());
  return RoundNumber{now > buffer.max_staleness ? now - buffer.max_staleness : 1};
}

// ---- time

void RoundCoordinator::State::on_step_timer(Time now, Actions& actions) {
  if (over()) return;
  if (store_again && *store_again <= now) {
    store_again.reset();
    actions.emplace_back(commit_action());
  }
  if (liveness_at && *liveness_at <= now) {
    liveness_at.reset();
    close_stalled(now, actions);
  }
  while (!buffer.in_flight.empty() && buffer.in_flight.begin()->second.deadline <= now) {
    give_up(*cohort.find(buffer.in_flight.begin()->second.client), actions);
  }
  while (!buffer.away.empty() && buffer.away.front().first + times.silence() <= now) {
    const auto [since, client] = buffer.away.front();
    buffer.away.pop_front();
    Member* member = cohort.find(client);
    const bool still = member != nullptr && !member->connection && member->away_since == since &&
                       buffer.in_flight.contains(member->ticket);
    if (still) give_up(*member, actions);
  }
  if (selection_at && *selection_at <= now) {
    actions.emplace_back(
        Note{fmt::format("round {} still waits for updates: {} of {} are in, {} devices are at "
                         "work and {} wait",
                         value_of(round()), buffer.accepted.size(), buffer.size, cohort.undecided(),
                         roster.pool_size() + roster.resting())});
    selection_at = now + times.selection_timeout;
  }
}

std::optional<Time> RoundCoordinator::State::step_due() const {
  std::optional<Time> due;
  if (!buffer.in_flight.empty()) due = buffer.in_flight.begin()->second.deadline;
  if (!buffer.away.empty()) {
    const Time gone = buffer.away.front().first + times.silence();
    if (!due || gone < *due) due = gone;
  }
  return due;
}

void RoundCoordinator::State::add_step_status(Status& status) const {
  if (awaiting != Awaiting::kNothing && !over()) status.phase = Phase::kCommit;
  status.start_at = 1;
  status.accepted = buffer.accepted.size();
  status.rejected = buffer.metrics.rejected;
  status.dropped = buffer.metrics.declined + buffer.metrics.lost + buffer.metrics.late;
  status.selected = cohort.undecided() + status.accepted + status.rejected + status.dropped;
  status.buffer = buffer.size;
  status.at_work = cohort.undecided();
  if (!buffer.in_flight.empty()) {
    status.oldest_staleness = staleness_of(buffer.in_flight.begin()->second.round);
  }
}

}  // namespace covey::server
