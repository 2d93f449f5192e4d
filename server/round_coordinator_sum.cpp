#include <fmt/format.h>

#include <covey/assert.hpp>

#include "round_coordinator_state.hpp"

// The steps of a secure sum: when one closes, who is in the next, what each device is sent. The
// cryptography is privacy/secagg_server. A step waits for a silent device as long as a round does:
// three heartbeats; a device that comes back in that time goes on where it was.
namespace covey::server {
namespace {

using Step = privacy::SecAggServer::Step;

/// In kUnmask a device that was away is first told the survivors, then who confirmed them.
constexpr std::uint8_t kConfirmationsTold = static_cast<std::uint8_t>(Step::kUnmask) + 1;
constexpr std::uint8_t kVerdictTold = kConfirmationsTold + 1;

}  // namespace

bool RoundCoordinator::State::in_sum(const Member& member) const {
  return summing() && !member.left_sum && (member.undecided() || member.accepted());
}

void RoundCoordinator::State::begin_sum() {
  sum.reset();
  step_at.reset();
  faults_told = 0;
  revealed_before = 0;
  if (!round_plan.secure_aggregation.enabled()) return;
  COVEY_ASSERT(options.make_aggregation_id != nullptr);
  aggregation = options.make_aggregation_id();
  sum.emplace(privacy::AggregationContext{{run, round(), aggregation},
                                          sent_digest,
                                          digest_of(round_plan),
                                          round_plan.secure_aggregation},
              options.authority);
}

// ---- closing a step

void RoundCoordinator::State::settle_sum(Time now, Actions& actions) {
  while (summing() && step_over(now)) close_step(now, actions);
}

bool RoundCoordinator::State::step_over(Time now) {
  const bool expired = closing || (step_at && *step_at <= now);
  switch (sum->step()) {
    case Step::kAdvertise: {
      const std::size_t here = cohort.undecided() - unadvertised();
      return expired || here == cohort.undecided() || here >= goal;
    }
    case Step::kMask:
      if (sum->awaited() == 0) closing = true;
      return closing && outstanding == 0;
    case Step::kUnmask:
      return expired || sum->can_unmask() || sum->awaited() == 0;
    case Step::kShare:
    case Step::kConfirm:
      return expired || sum->awaited() == 0;
  }
  return true;
}

std::size_t RoundCoordinator::State::unadvertised() const {
  return static_cast<std::size_t>(std::ranges::count_if(cohort.members(), [&](const Member& member) {
    return member.undecided() && !sum->advertised(member.client);
  }));
}

void RoundCoordinator::State::close_step(Time now, Actions& actions) {
  closing = false;
  const Step step = sum->step();
  if (step == Step::kUnmask) return unmask(actions, now);
  if (const auto closed = sum->close_step(); !closed.ok()) {
    return abandon_sum(now, closed.error().message, actions);
  }
  for (Member& member : cohort.members()) {
    if (member.undecided() && !sum->awaits(member.client)) miss(member, actions);
  }
  const std::size_t left = step < Step::kMask ? sum->awaited() : cohort.accepted();
  if (left < reports_needed()) {
    return abandon_sum(now,
                       fmt::format("{} of {} selected devices are left, it needs {}", left,
                                   cohort.size(), reports_needed()),
                       actions);
  }
  // The round's deadline was the training's: passing a moment later, it must not end a step that has just
  // begun.
  deadline.reset();
  liveness_at.reset();
  step_at = now + times.silence();
  if (sum->step() == Step::kMask) {  // whole updates travel: as long as a round may take
    step_at.reset();
    deadline = now + times.round_deadline;
    liveness_at = now + times.silence();
  }
  for (Member& member : cohort.members()) {
    if (sum->awaits(member.client)) send_step(member, actions);
  }
}

bool RoundCoordinator::State::unadvertised_silent_since(Time moment) const {
  return std::ranges::none_of(cohort.members(), [&](const Member& member) {
    return member.undecided() && !sum->advertised(member.client) && member.last_heard > moment;
  });
}

/// What the step at hand asks of this device; once on a connection.
void RoundCoordinator::State::send_step(Member& member, Actions& actions) {
  if (!member.connection) return;  // told when it is back
  auto confirmations = sum->confirmations(member.client);
  const auto step = static_cast<std::uint8_t>(sum->step());
  const auto told = std::pair(*member.connection, confirmations ? kConfirmationsTold : step);
  if (member.told == told) return;
  member.told = told;
  const auto pass_on = [&](auto message) {
    if (message) send(*member.connection, std::move(*message), actions);
  };
  switch (sum->step()) {
    case Step::kAdvertise:
      return;
    case Step::kShare:
      return pass_on(sum->neighbour_keys(member.client));
    case Step::kMask:
      return pass_on(sum->peer_shares(member.client));
    case Step::kConfirm:
      return pass_on(sum->survivor_set(member.client));
    case Step::kUnmask:  // a device that was away has first to confirm the set
      if (confirmations) return pass_on(std::move(confirmations));
      return pass_on(sum->survivor_set(member.client));
  }
}

/// Not there in time: the sum goes on without it.
void RoundCoordinator::State::miss(Member& member, Actions& actions) {
  withdraw(member);
  drop_upload(member, actions);
  cohort.decide(member, MemberState::kMissed);
  member.lost = !member.connection;
  sum->leave(member.client);
  if (!member.connection) return;
  send(*member.connection, RoundOver{run, cohort.round(), times.retry}, actions);
  member.connection.reset();
}

/// Once a connection: what a device says last may cross with it.
void RoundCoordinator::State::tell_accepted(Member& member, ConnectionId connection,
                                            Actions& actions) {
  const auto told = std::pair(connection, kVerdictTold);
  if (member.told == told) return;
  member.told = told;
  send(connection, ReportAccepted{run, cohort.round(), times.retry}, actions);
}

void RoundCoordinator::State::unmask(Actions& actions, Time now) {
  tell_faults(actions);
  auto job = sum->unmask();
  if (!job.ok()) return abandon_sum(now, job.error().message, actions);
  end_reporting(actions);
  metrics.secure = true;
  metrics.masked = static_cast<std::uint32_t>(sum->survivors());
  metrics.recovered = recovered();
  for (Member& member : cohort.members()) {
    if (!member.accepted() || !member.connection) continue;
    tell_accepted(member, *member.connection, actions);
    member.connection.reset();
  }
  awaiting = Awaiting::kStrategy;
  actions.emplace_back(
      ApplyStrategy{round(), std::make_shared<const privacy::UnmaskJob>(std::move(*job))});
}

/// Devices that shared keys and are not in the sum: their masks were taken off by what others revealed.
std::uint32_t RoundCoordinator::State::recovered() const {
  return static_cast<std::uint32_t>(
      std::ranges::count_if(cohort.members(), [&](const Member& member) {
        return !member.accepted() && sum->shared(member.client);
      }));
}

void RoundCoordinator::State::abandon_sum(Time now, const std::string& reason, Actions& actions) {
  tell_faults(actions);
  end_reporting(actions);
  for (Member& member : cohort.members()) {
    if (!member.accepted() || !member.connection) continue;  // the others are told with the commit
    send(*member.connection, RoundOver{run, cohort.round(), times.retry}, actions);
    member.connection.reset();
  }
  // Devices that revealed shares in an attempt that a crash ended keep out of this round for good: where at
  // most one other was drawn, too few for a sum, it ends without a change, so that the run goes on.
  const bool spent = revealed_before > 0 && cohort.left() + 1 >= cohort.size();
  actions.emplace_back(Note{fmt::format("round {} {}: secure aggregation: {}", value_of(round()),
                                        spent ? "changes nothing" : "abandoned", reason)});
  commit(now, spent ? std::optional(model) : std::nullopt, actions);
}

void RoundCoordinator::State::tell_faults(Actions& actions) {
  const auto& faults = sum->faults();
  for (; faults_told < faults.size(); ++faults_told) {
    actions.emplace_back(Note{fmt::format("client {} in round {}: {}",
                                          value_of(faults[faults_told].client), value_of(round()),
                                          faults[faults_told].what)});
  }
}

// ---- messages

/// The member that says something in the sum at hand; nothing, and it is told so, if there is none.
Member* RoundCoordinator::State::member_in_sum(Connection& connection,
                                               const AggregationRound& message, Actions& actions) {
  Member* member = cohort.find(connection.client);
  const bool current = message == AggregationRound{run, cohort.round(), aggregation};
  if (member != nullptr && current && member->accepted() && !summing() && metrics.secure) {
    tell_accepted(*member, connection.id, actions);  // its help was not needed any more
    return nullptr;
  }
  if (member == nullptr || !current || !in_sum(*member)) {
    send(connection.id, RoundOver{message.run, message.round, times.retry}, actions);
    return nullptr;
  }
  member->connection = connection.id;
  return member;
}

/// Its update stays, and nothing more is asked of it.
void RoundCoordinator::State::leave_sum(Member& member) {
  member.left_sum = true;
  member.connection.reset();
  if (member.accepted()) sum->leave(member.client);  // else once it is judged
}

/// What no honest device sends: it is out of this round. An update that is being added to the sum, or is in
/// it, stays there.
void RoundCoordinator::State::expel(Member& member, const Error& error, Actions& actions) {
  actions.emplace_back(Note{fmt::format("client {} expelled from the sum of round {}: {}",
                                        value_of(member.client), value_of(round()),
                                        error.message)});
  if (member.connection) {
    send(*member.connection, RoundOver{run, cohort.round(), times.retry}, actions);
    member.connection.reset();
  }
  if (member.accepted() || member.state == MemberState::kJudging) return leave_sum(member);
  sum->leave(member.client);
  withdraw(member);
  drop_upload(member, actions);
  cohort.decide(member, MemberState::kRejected);
}

void RoundCoordinator::State::on_message(Time, Connection& connection, AdvertiseKeys& message,
                                         Actions& actions) {
  Member* member = member_in_sum(connection, message.round, actions);
  if (member == nullptr) return;
  message.keys.client = connection.client;  // from its certificate, whatever it says
  if (const auto added = sum->add(connection.client, message); !added.ok()) {
    return expel(*member, added.error(), actions);
  }
  send_step(*member, actions);  // it may be back in a later step
}

void RoundCoordinator::State::on_message(Time, Connection& connection, ShareKeys& message,
                                         Actions& actions) {
  Member* member = member_in_sum(connection, message.round, actions);
  if (member == nullptr) return;
  if (const auto added = sum->add(connection.client, message); !added.ok()) {
    expel(*member, added.error(), actions);
  }
}

void RoundCoordinator::State::on_message(Time, Connection& connection, ConfirmSurvivors& message,
                                         Actions& actions) {
  Member* member = member_in_sum(connection, message.round, actions);
  if (member == nullptr) return;
  if (const auto added = sum->add(connection.client, message); !added.ok()) {
    return expel(*member, added.error(), actions);
  }
  if (sum->step() == Step::kUnmask) send_step(*member, actions);  // late, but it may still help
}

void RoundCoordinator::State::on_message(Time, Connection& connection, Unmask& message,
                                         Actions& actions) {
  Member* member = member_in_sum(connection, message.round, actions);
  if (member == nullptr) return;
  if (const auto added = sum->add(connection.client, message); !added.ok()) {
    return expel(*member, added.error(), actions);
  }
  tell_faults(actions);
}

}  // namespace covey::server
