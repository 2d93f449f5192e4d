#include <fmt/format.h>

#include "round_coordinator_state.hpp"

// Who may be drawn for a round, and what is remembered of devices to that end.
namespace covey::server {
namespace {

// A device that is told to rest comes back when its rounds are over if these take as long as the
// last one did. Rounds of a simulation may take no time at all.
constexpr double kShortestRest = 0.1;
constexpr double kLongestRest = 24 * 3600.0;

}  // namespace

/// A round starts when so many wait: all that are asked for, but for those who may not be drawn.
std::size_t RoundCoordinator::State::start_at() const {
  const bool known = options.population > 0 && history.limits().any();
  if (!known || options.config.privacy.max_participations > 0) return sizes.start_at;
  const std::size_t free =
      options.population - std::min<std::size_t>(history.barred(), options.population);
  return std::min(sizes.start_at, std::max(free, sizes.quorum));
}

std::vector<ClientId> RoundCoordinator::State::draw(std::size_t count) const {
  SelectionDraw named;
  named.seed = options.selection_seed.value_or(options.config.seed);
  named.round = round();
  named.attempt = attempt;
  named.policy = policy;
  named.rate = options.config.selection.fraction_fit;
  named.candidates = options.config.selection.candidates;
  named.history = &history;
  named.oort = &oort;
  return draw_cohort(roster.candidates(), count, named);
}

/// Whether so many devices took part as often as they may that no round can be committed any more;
/// then the run is over.
bool RoundCoordinator::State::used_up(Actions& actions) {
  const std::size_t population = options.population;
  if (population == 0 || history.exhausted() == 0) return false;
  if (population >= history.exhausted() + sizes.quorum) return false;
  finish({false,
          fmt::format("{} of {} devices took part as often as they may "
                      "(selection.max-participations, privacy.max-participations), and round {} "
                      "needs {}",
                      history.exhausted(), population, value_of(round()), sizes.quorum)},
         RefusalReason::kRunFinished, actions);
  return true;
}

/// Whether this device may not be drawn (yet); then it is told so.
bool RoundCoordinator::State::shut_out(Connection& connection, Actions& actions) {
  RetryWindow window = times.busy;
  std::string reason;
  switch (history.standing(connection.client, round())) {
    case DeviceHistory::Standing::kExhausted: {
      const bool of_privacy =
          history.limits().max_participations == options.config.privacy.max_participations;
      reason = fmt::format("this device took part as often as {}.max-participations lets it",
                           of_privacy ? "privacy" : "selection");
      break;
    }
    case DeviceHistory::Standing::kResting:
      window = rest_window(connection.client);
      reason = "this device took part a short while ago (selection.min-rounds-between)";
      break;
    case DeviceHistory::Standing::kFree:
      break;
  }
  if (barred.contains(connection.client)) {
    reason = "this device's shares kept a sum from being unmasked";
  }
  if (reason.empty()) return false;
  roster.leave_pool(connection);
  send(connection.id, RetryLater{window, std::move(reason)}, actions);
  return true;
}

/// A device checks in again as soon as its update is accepted, which is before it is known that it
/// may not be drawn for the next round.
void RoundCoordinator::State::recheck_pool(ClientId client, Actions& actions) {
  Connection* connection = roster.find_device(client);
  if (connection != nullptr && connection->waiting()) shut_out(*connection, actions);
}

RetryWindow RoundCoordinator::State::rest_window(ClientId client) const {
  const double rounds = history.rounds_to_rest(client, round());
  const double rest = std::clamp(rounds * seconds(last_round), kShortestRest, kLongestRest);
  return {std::max(times.retry.delay_min, from_seconds(rest)),
          std::max(times.retry.delay_max, from_seconds(2 * rest))};
}

// ---- what is remembered, where the policy asks for it

void RoundCoordinator::State::remember_presence(const Connection& connection, bool here) {
  if (!remembers) return;
  if (here) {
    history.arrived(connection.client, round());
  } else {
    history.left(connection.client, round());
  }
}

void RoundCoordinator::State::remember_report(const Member& member) {
  if (!remembers) return;
  history.reported(member.client, member.round, *member.report, clock - member.assigned);
}

void RoundCoordinator::State::remember_missed(const Member& member) {
  if (remembers) history.missed(member.client, member.round, clock - member.assigned);
}

/// The round just committed, with the updates of these clients.
void RoundCoordinator::State::remember_round(const std::vector<ClientId>& clients,
                                             Actions& actions) {
  if (!remembers && !history.limits().any()) return;
  double utility = 0;
  for (const ClientId client : clients) {
    history.participated(client, committed);
    utility += history.find(client)->statistical_utility();
  }
  oort.round_committed(utility);
  history.begin_round(round());
  for (const ClientId client : clients) recheck_pool(client, actions);
}

}  // namespace covey::server
