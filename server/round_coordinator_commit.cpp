#include <fmt/format.h>

#include <covey/server/standing.hpp>

#include "round_coordinator_state.hpp"

namespace covey::server {

// ---- commit

CommitRound RoundCoordinator::State::commit_action() const {
  CommitRound commit{metrics, std::nullopt};
  if (candidate) commit.model = candidate->parameters;
  if (candidate && history.limits().any()) commit.participants = counted();
  return commit;
}

/// Whose updates are in the round's sum, in order.
std::vector<ClientId> RoundCoordinator::State::counted() const {
  if (asynchronous()) return buffer.accepted;
  std::vector<ClientId> clients;
  for (const Member& member : cohort.members()) {
    if (member.accepted()) clients.push_back(member.client);
  }
  return clients;
}

void RoundCoordinator::State::commit(Time now, std::optional<EncodedModel> new_model,
                                     Actions& actions) {
  metrics.ended = now;
  metrics.committed = new_model.has_value();
  candidate = std::move(new_model);
  awaiting = Awaiting::kStore;
  actions.emplace_back(commit_action());
}

void RoundCoordinator::State::on(Time now, StrategyApplied& event, Actions& actions) {
  if (awaiting != Awaiting::kStrategy || event.round != round()) return;
  if (event.model.ok() && event.model->parameters.size() != model.parameters.size()) {
    event.model =
        failed(fmt::format("the strategy returned {} bytes for a model of {}",
                           event.model->parameters.size(), model.parameters.size()));
  }
  if (event.privacy) note_privacy(std::move(*event.privacy));
  if (event.figures) {
    metrics.examples = event.figures->examples;
    metrics.train_steps = event.figures->steps;
    metrics.train_loss = event.figures->train_loss;
    metrics.clipped_coordinates = event.figures->clipped_coordinates;
    metrics.clipped_weights = event.figures->clipped_weights;
    metrics.rounding_error = event.figures->rounding_error;
    if (event.model.ok() && adapts_clip(options.config)) sum_clip = event.figures->clip;
  }
  if (event.culprit) {
    barred.insert(*event.culprit);
    recheck_pool(*event.culprit, actions);
  }
  if (!event.model.ok()) {
    // A secure sum that was unmasked is never made a second time: two sums of one round over devices that
    // differ by one would show that one's update. The round ends and leaves the model as it is.
    const bool seen = metrics.secure && !event.culprit;
    actions.emplace_back(Note{fmt::format("round {} {}: {}", value_of(round()),
                                          seen ? "changes nothing" : "abandoned",
                                          event.model.error().message)});
    commit(now, seen ? std::optional(model) : std::nullopt, actions);
    return;
  }
  commit(now, std::move(*event.model), actions);
}

void RoundCoordinator::State::note_privacy(PrivacyStatus status) {
  metrics.private_figures = true;
  metrics.epsilon = status.spent.epsilon;
  metrics.delta = status.spent.delta;
  metrics.noise_multiplier = status.noise_multiplier;
  metrics.clip_norm = round_plan.privacy.clip_norm;
  privacy = std::move(status);
}

void RoundCoordinator::State::on(Time now, RoundStored& event, Actions& actions) {
  if (awaiting != Awaiting::kStore || event.round != round()) return;
  if (!event.stored.ok()) return store_failed(now, event.stored.error(), actions);
  awaiting = Awaiting::kNothing;
  store_failures = 0;
  if (!asynchronous()) announce_round_over(actions);
  if (!candidate) {
    ++attempt;
    oort.round_abandoned();
    actions.emplace_back(PublishMetrics{metrics});
  } else {
    committed = round();
    attempt = 0;
    model = std::move(*candidate);
    candidate.reset();
    model_digest = model.parameters.digest();
    sent_digest = model.sent.digest();
    last_round = metrics.ended - metrics.started;
    remember_round(counted(), actions);
  }
  if (phase == Phase::kStopping) {
    if (metrics.committed) actions.emplace_back(PublishMetrics{metrics});
    finish({true, "stopped"}, RefusalReason::kShuttingDown, actions);
    return;
  }
  if (asynchronous()) step_stored(actions);
  if (!metrics.committed) return try_again(now, actions);
  if (evaluation_due()) {
    awaiting = Awaiting::kEvaluation;
    actions.emplace_back(EvaluateModel{committed, model.parameters});
    return;
  }
  complete_round(now, actions);
}

/// A full disk is no reason to lose a round that is summed: nobody has been told of it, the devices wait.
void RoundCoordinator::State::store_failed(Time now, const Error& error, Actions& actions) {
  const auto reason =
      fmt::format("round {} could not be made durable: {}", value_of(round()), error.message);
  if (phase == Phase::kStopping) {
    finish({false, reason}, RefusalReason::kShuttingDown, actions);
    return;
  }
  constexpr Duration kFirstWait = std::chrono::seconds(2);
  constexpr std::uint32_t kMostDoublings = 5;  // 64 s
  const Duration wait = kFirstWait * (1U << std::min(store_failures, kMostDoublings));
  ++store_failures;
  store_again = now + wait;
  actions.emplace_back(Note{fmt::format("{}; trying again in {:.0f} s", reason, seconds(wait))});
}

bool RoundCoordinator::State::evaluation_due() const {
  return options.evaluates && server::evaluation_due(options.config, committed);
}

/// The round in progress once more, behind an attempt that changed nothing.
void RoundCoordinator::State::try_again(Time now, Actions& actions) {
  if (asynchronous()) return begin_step(now, actions);
  cohort.clear();
  // A fleet that fails at once must not make the server abandon rounds as fast as it can.
  enter_selection(now + times.heartbeat);
}

void RoundCoordinator::State::announce_round_over(Actions& actions) {
  for (Member& member : cohort.members()) {
    if (!member.undecided() || !member.connection) continue;
    send(*member.connection, RoundOver{run, cohort.round(), times.retry}, actions);
    member.connection.reset();
  }
}

void RoundCoordinator::State::on(Time now, ModelEvaluated& event, Actions& actions) {
  if (awaiting != Awaiting::kEvaluation || event.round != committed) return;
  awaiting = Awaiting::kNothing;
  metrics.accuracy = last_accuracy = event.accuracy;
  metrics.loss = last_loss = event.loss;
  complete_round(now, actions);
}

void RoundCoordinator::State::complete_round(Time now, Actions& actions) {
  actions.emplace_back(PublishMetrics{metrics});
  go_on(now, actions);
}

/// Behind a committed round: the end of the run, or the next round.
void RoundCoordinator::State::go_on(Time now, Actions& actions) {
  const RunConfig& config = options.config;
  if (value_of(committed) >= config.num_rounds) {
    finish({true, fmt::format("all {} rounds are done", config.num_rounds)},
           RefusalReason::kRunFinished, actions);
  } else if (config.stop_at_target && config.target_accuracy > 0 && metrics.accuracy &&
             *metrics.accuracy >= config.target_accuracy) {
    finish({true, fmt::format("round {} reached the target accuracy {}", value_of(committed),
                              config.target_accuracy)},
           RefusalReason::kRunFinished, actions);
  } else if (privacy && !privacy->allows_another) {
    finish({true, fmt::format("the privacy budget is spent: epsilon {:.4g} after {} rounds, one more "
                              "would take {:.4g} (delta {:.3g})",
                              privacy->spent.epsilon, value_of(committed),
                              privacy->spent.epsilon_next, privacy->spent.delta)},
           RefusalReason::kRunFinished, actions);
  } else {
    next_round(now, actions);
  }
}

// ---- the end

void RoundCoordinator::State::on(Time, StopRequested&, Actions& actions) {
  if (over()) return;
  if (store_again) {
    finish({false, fmt::format("stopped before round {} could be made durable", value_of(round()))},
           RefusalReason::kShuttingDown, actions);
    return;
  }
  if (awaiting == Awaiting::kStore) {  // its outcome still belongs to the run
    phase = Phase::kStopping;
    dismiss_everyone(RefusalReason::kShuttingDown, "the server is stopping", actions);
    return;
  }
  if (awaiting == Awaiting::kEvaluation) actions.emplace_back(PublishMetrics{metrics});
  finish({true, "stopped"}, RefusalReason::kShuttingDown, actions);
}

void RoundCoordinator::State::finish(RunFinished end, RefusalReason reason, Actions& actions) {
  phase = Phase::kFinished;
  awaiting = Awaiting::kNothing;
  dismiss_everyone(reason, end.reason, actions);
  actions.emplace_back(std::move(end));
}

void RoundCoordinator::State::dismiss_everyone(RefusalReason reason, const std::string& text,
                                               Actions& actions) {
  farewell = reason;
  selection_at.reset();
  selection_opens.reset();
  deadline.reset();
  liveness_at.reset();
  step_at.reset();
  store_again.reset();
  slots.clear();
  if (asynchronous()) drop_unfinished(actions);
  cohort.clear();
  buffer.in_flight.clear();
  buffer.away.clear();
  buffer.ready.clear();
  for (const ConnectionId id : roster.connection_ids()) {
    send(id, Refusal{reason, text}, actions);
    actions.emplace_back(Close{id});
    roster.remove(id);
  }
}

}  // namespace covey::server
