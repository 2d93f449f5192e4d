#include "invariants.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace covey::simulation {
namespace {

// Sums of weights are compared in another arithmetic than the server's; a weight too many or too
// few differs by far more.
constexpr double kWeightTolerance = 1e-9;
// Epsilon is computed anew by a server that starts again, by the same code on the same numbers.
constexpr double kEpsilonTolerance = 1e-12;

/// The fields of a round that are known when it is committed, and kept by the store.
std::string committed_figures(const RoundMetrics& metrics) {
  return fmt::format(
      "round {} from {} us to {} us: selected {}, accepted {}, rejected {}, dropped {}, "
      "examples {}, steps {}, bytes {} up, {} down, masked {}, recovered {}, epsilon {}",
      value_of(metrics.round), metrics.started.time_since_epoch().count(),
      metrics.ended.time_since_epoch().count(), metrics.selected, metrics.accepted,
      metrics.rejected, metrics.dropped, metrics.examples, metrics.train_steps, metrics.bytes_up,
      metrics.bytes_down, metrics.masked, metrics.recovered, metrics.epsilon.value_or(0));
}

}  // namespace

Invariants::Invariants(Options options) : options_(std::move(options)) {}

void Invariants::violated(std::string rule, std::string sentence) {
  if (violation_) return;
  violation_ = failed(fmt::format("the invariant \"{}\" does not hold: {}", rule, sentence));
}

std::uint32_t Invariants::most_participations() const {
  const std::uint32_t a = options_.config.privacy.max_participations;
  const std::uint32_t b = options_.config.selection.max_participations;
  return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b);
}

// ---- sums

void Invariants::summing(RoundNumber round, RoundNumber committed) {
  sum_round_ = round;
  accepted_.clear();
  sum_name_.reset();
  if (round != next(committed)) {
    violated("rounds go up by one",
             fmt::format("the sum of round {} begins while round {} is committed", value_of(round),
                         value_of(committed)));
  }
}

void Invariants::counted(const server::JudgeUpdate& update, RoundNumber committed) {
  const RoundNumber round = update.key.round;
  const auto who = fmt::format("the update of client {} for round {}", value_of(update.key.client),
                               value_of(round));
  if (update.report.run != update.key.run || update.report.round != round ||
      update.report.blob != update.key.blob) {
    violated("no stale update is accepted", fmt::format("{} was counted for a report of round {}",
                                                        who, value_of(update.report.round)));
  }
  if (!asynchronous() && (round != sum_round_ || round != next(committed))) {
    violated("no stale update is accepted",
             fmt::format("{} was counted while round {} was in progress", who,
                         value_of(next(committed))));
  }
  if (asynchronous()) {
    const bool known = value_of(round) >= 1 && round <= next(committed);
    const std::uint32_t age = known ? value_of(committed) + 1 - value_of(round) : 0;
    if (!known || age > options_.config.asynchronous.max_staleness || age != update.staleness) {
      violated("no stale update is accepted",
               fmt::format("{} was counted with a staleness of {}, {} rounds were committed", who,
                           update.staleness, value_of(committed)));
    }
  }
  const auto key = std::pair(round, update.key.client);
  if (!accepted_.emplace(key, update.report.weight).second || committed_updates_.contains(key)) {
    violated("one update counted per round and client", fmt::format("{} was counted twice", who));
  }
}

void Invariants::applying(RoundNumber round, std::size_t updates, std::optional<double> weight) {
  if (updates != accepted_.size()) {
    violated("the weight summed is the weight accepted",
             fmt::format("the sum of round {} holds {} updates, {} were accepted", value_of(round),
                         updates, accepted_.size()));
  }
  if (!weight) return;
  long double expected = 0;
  for (const auto& [key, own] : accepted_) expected += own;
  const auto difference = std::fabs(static_cast<long double>(*weight) - expected);
  if (!(difference <= kWeightTolerance * std::max(1.0L, std::fabs(expected)))) {
    violated(
        "the weight summed is the weight accepted",
        fmt::format("the sum of round {} weighs {}, the reports of its {} devices say {}",
                    value_of(round), *weight, accepted_.size(), static_cast<double>(expected)));
  }
}

// ---- commits

void Invariants::check_accepted_metrics(const RoundMetrics& metrics) {
  if (metrics.accepted == accepted_.size()) return;
  violated("the metrics say what was accepted",
           fmt::format("round {} says that {} updates were accepted, {} were",
                       value_of(metrics.round), metrics.accepted, accepted_.size()));
}

void Invariants::committing(const server::CommitRound& commit) {
  const RoundMetrics& metrics = commit.metrics;
  pending_.reset();
  check_accepted_metrics(metrics);
  if (!commit.model) return;
  if (metrics.round != next(durable_)) {
    violated("rounds go up by one", fmt::format("round {} is to be committed behind round {}",
                                                value_of(metrics.round), value_of(durable_)));
  }
  if (metrics.epsilon && *metrics.epsilon < epsilon_ * (1 - kEpsilonTolerance)) {
    violated("epsilon never falls", fmt::format("it falls from {} to {} in round {}", epsilon_,
                                                *metrics.epsilon, value_of(metrics.round)));
  }
  pending_ = Committed{metrics, commit.model->digest()};
}

void Invariants::stored() {
  if (!pending_) return;  // an abandoned round
  durable_ = pending_->metrics.round;
  epsilon_ = std::max(epsilon_, pending_->metrics.epsilon.value_or(0));
  rounds_[durable_] = std::move(*pending_);
  pending_.reset();
  const std::uint32_t most = most_participations();
  for (const auto& [key, weight] : accepted_) {
    if (asynchronous()) committed_updates_.insert(key);
    if (most == 0) continue;
    if (++participations_[key.second] <= most) continue;
    violated(
        "participations keep to their limit",
        fmt::format("client {} took part in {} rounds with round {}, it may in {}",
                    value_of(key.second), participations_[key.second], value_of(durable_), most));
  }
  if (asynchronous()) {  // what is older is rejected for its age
    const std::uint32_t oldest =
        value_of(durable_) -
        std::min(value_of(durable_), options_.config.asynchronous.max_staleness + 1);
    committed_updates_.erase(committed_updates_.begin(),
                             committed_updates_.lower_bound({RoundNumber{oldest}, ClientId{}}));
  }
}

void Invariants::published(const RoundMetrics& metrics) {
  if (!metrics.committed) return;
  if (metrics.round > durable_) {
    violated("nobody hears of a round before it is durable",
             fmt::format("round {} was published, round {} is the last that is durable",
                         value_of(metrics.round), value_of(durable_)));
    return;
  }
  const std::string shown = committed_figures(metrics);
  const std::string kept = committed_figures(rounds_.at(metrics.round).metrics);
  if (shown != kept) {
    violated("no committed round is lost or changed",
             fmt::format("committed was {}; published was {}", kept, shown));
  }
}

void Invariants::settled(const server::RoundCoordinator& coordinator) {
  const RoundNumber committed = coordinator.committed_round();
  if (committed > durable_) {
    violated("nobody hears of a round before it is durable",
             fmt::format("the coordinator counts on round {}, round {} is the last that is durable",
                         value_of(committed), value_of(durable_)));
  }
  if (committed < known_) {
    violated("rounds go up by one", fmt::format("the coordinator went back from round {} to {}",
                                                value_of(known_), value_of(committed)));
  }
  known_ = committed;
  const Digest digest = coordinator.model().digest();
  const auto [round, fresh] = rounds_.try_emplace(committed, Committed{{}, digest});
  if (round->second.model != digest) {
    violated("no committed round is lost or changed",
             fmt::format("the coordinator's model of round {} is {}, committed was {}",
                         value_of(committed), digest.hex(), round->second.model.hex()));
  }
}

// ---- crashes

void Invariants::crashed() {
  accepted_.clear();
  held_.clear();  // every connection is gone
  pending_.reset();
  sum_name_.reset();
}

void Invariants::check_stored_metrics(const std::vector<RoundMetrics>& metrics) {
  std::map<RoundNumber, const RoundMetrics*> found;
  for (const RoundMetrics& stored : metrics) {
    if (stored.committed) found[stored.round] = &stored;
  }
  for (const auto& [round, committed] : rounds_) {
    if (value_of(round) == 0) continue;
    const auto stored = found.find(round);
    if (stored == found.end()) {
      violated("no committed round is lost or changed",
               fmt::format("the store has forgotten the metrics of round {}", value_of(round)));
    } else if (committed_figures(*stored->second) != committed_figures(committed.metrics)) {
      violated(
          "no committed round is lost or changed",
          fmt::format("committed was {}; the store has {}", committed_figures(committed.metrics),
                      committed_figures(*stored->second)));
    }
  }
}

void Invariants::booted(const server::StoredRun& run, const std::vector<RoundMetrics>& metrics,
                        const std::map<ClientId, std::uint32_t>& participations,
                        const std::optional<server::PrivacyStatus>& privacy) {
  known_ = run.round;
  const auto round = rounds_.find(run.round);
  if (run.round != durable_) {
    violated("no committed round is lost or changed",
             fmt::format("the server starts again at round {}, round {} was committed",
                         value_of(run.round), value_of(durable_)));
  } else if (round != rounds_.end() && round->second.model != run.model.digest()) {
    violated("no committed round is lost or changed",
             fmt::format("the stored model of round {} is {}, committed was {}",
                         value_of(run.round), run.model.digest().hex(), round->second.model.hex()));
  }
  check_stored_metrics(metrics);
  if (privacy && privacy->spent.epsilon < epsilon_ * (1 - kEpsilonTolerance)) {
    violated("epsilon never falls",
             fmt::format("it falls from {} to {} when the server starts again at round {}",
                         epsilon_, privacy->spent.epsilon, value_of(run.round)));
  }
  if (most_participations() == 0) return;
  for (const auto& [client, rounds] : participations_) {
    const auto stored = participations.find(client);
    if (stored != participations.end() && stored->second == rounds) continue;
    violated("participations keep to their limit",
             fmt::format("client {} took part in {} rounds, the store says {}", value_of(client),
                         rounds, stored == participations.end() ? 0 : stored->second));
  }
}

// ---- devices

void Invariants::sent(ClientId client, ConnectionId connection, const ServerMessage& message) {
  if (const auto* assignment = std::get_if<Assignment>(&message)) {
    assigned(client, connection, *assignment);
  } else if (const auto* over = std::get_if<RoundOver>(&message)) {
    released(client, over->run, over->round);
  } else if (const auto* accepted = std::get_if<ReportAccepted>(&message)) {
    released(client, accepted->run, accepted->round);
  } else if (const auto* rejected = std::get_if<ReportRejected>(&message)) {
    released(client, rejected->run, rejected->round);
    const bool malformed = rejected->reason == RejectReason::kMalformed ||
                           rejected->reason == RejectReason::kWrongSize;
    if (malformed && options_.honest_network) {
      violated("an honest device is not refused",
               fmt::format("the report of client {} for round {} was rejected: {}",
                           value_of(client), value_of(rejected->round), rejected->text));
    }
  } else if (const auto* refusal = std::get_if<Refusal>(&message)) {
    if (refusal->reason == RefusalReason::kProtocol && options_.honest_network) {
      violated("an honest device is not refused",
               fmt::format("client {} was refused in round {}: {}", value_of(client),
                           value_of(next(known_)), refusal->text));
    }
  }
}

void Invariants::assigned(ClientId client, ConnectionId connection, const Assignment& assignment) {
  const RoundNumber round = assignment.round;
  // Asynchronously a device that is back is given the task again that it had, of an older model.
  const bool begun_before = asynchronous() && round <= durable_;
  if (round != next(durable_) && round != next(known_) && !begun_before) {
    violated("nobody hears of a round before it is durable",
             fmt::format("client {} was given round {}, round {} is the last that is durable",
                         value_of(client), value_of(round), value_of(durable_)));
    return;
  }
  const auto [model, first] =
      models_.try_emplace({round, digest_of(assignment.plan)}, assignment.model);
  const bool parameters =
      assignment.plan.precision == "fp32" && options_.config.client.classes.empty() &&
      options_.config.server.model_compressor == "off";
  const auto begun = rounds_.find(RoundNumber{value_of(round) - 1});
  const bool another = begun != rounds_.end() && begun->second.model != assignment.model;
  if (model->second != assignment.model || (parameters && another)) {
    violated("no committed round is lost or changed",
             fmt::format("client {} was given model {} for round {}, others {}", value_of(client),
                         assignment.model.hex(), value_of(round),
                         (another ? begun->second.model : model->second).hex()));
  }
  if (secure()) {
    if (!sum_name_ && !names_.insert(assignment.aggregation).second) {
      violated(
          "a secure sum has a name of its own",
          fmt::format("an attempt at round {} has the name of an earlier one", value_of(round)));
    }
    if (sum_name_ && *sum_name_ != assignment.aggregation) {
      violated("a secure sum has a name of its own",
               fmt::format("client {} was told another name of round {}'s sum than others",
                           value_of(client), value_of(round)));
    }
    sum_name_ = assignment.aggregation;
  }
  Held task{connection, assignment.run, round, assignment.aggregation};
  const auto [held, fresh] = held_.try_emplace(client, task);
  const Held before = std::exchange(held->second, task);
  const bool same = before.round == round && before.aggregation == assignment.aggregation;
  if (!fresh && !same && before.connection == connection) {
    violated("a device holds one assignment at a time",
             fmt::format("client {} was given round {} while it held round {}", value_of(client),
                         value_of(round), value_of(before.round)));
  }
}

void Invariants::released(ClientId client, RunId run, RoundNumber round) {
  const auto held = held_.find(client);
  if (held != held_.end() && held->second.run == run && held->second.round == round)
    held_.erase(held);
}

void Invariants::received(ClientId client, ConnectionId, const ClientMessage& message) {
  // What asks for work holds none, and what declines gives its own up.
  if (std::holds_alternative<CheckIn>(message) || std::holds_alternative<Decline>(message)) {
    held_.erase(client);
  }
}

// ---- the clock

void Invariants::elapsed(Time now, bool quiet, const server::RoundCoordinator& coordinator) {
  if (options_.recovery == Duration{}) return;
  if (!quiet) {
    quiet_since_.reset();
    return;
  }
  if (!quiet_since_ || quiet_round_ != durable_) {
    quiet_since_ = now;
    quiet_round_ = durable_;
    return;
  }
  if (now - *quiet_since_ <= options_.recovery) return;
  violated(
      "rounds go on",
      fmt::format("no round was committed in {:.0f} s without a fault behind round {}; the server "
                  "says {}",
                  seconds(now - *quiet_since_), value_of(durable_), coordinator.status_json(now)));
}

}  // namespace covey::simulation
