#include <algorithm>
#include <covey/server/standing.hpp>
#include <utility>

namespace covey::server {

Result<StoredStanding> restore(Store& store, const std::function<StoredRun()>& make_fresh) {
  StoredStanding standing;
  COVEY_ASSIGN(auto stored, store.load_run());
  if (!stored) {
    stored = make_fresh();
    COVEY_TRY(store.begin_run(*stored));
  }
  standing.run = std::move(*stored);
  COVEY_ASSIGN(standing.rounds, store.load_metrics());
  COVEY_ASSIGN(standing.participations, store.load_participations());
  COVEY_ASSIGN(standing.last_rounds, store.load_last_rounds());
  // Attempts at the next round may have been abandoned since.
  for (const RoundMetrics& round : standing.rounds) {
    if (round.committed && round.round == standing.run.round) standing.metrics = round;
  }
  return standing;
}

RunState run_state(const StoredStanding& standing, const UpdatePipeline& pipeline) {
  RunState state;
  state.run = standing.run.run;
  state.round = standing.run.round;
  state.model = pipeline.encoded_model();
  state.metrics = standing.metrics;
  state.privacy = pipeline.privacy_status();
  state.sum_clip = pipeline.sum_clip();
  state.participations = standing.participations;
  state.last_rounds = standing.last_rounds;
  return state;
}

bool evaluation_due(const RunConfig& config, RoundNumber round) {
  return value_of(round) >= config.num_rounds ||
         value_of(round) % std::max(config.eval_every, 1U) == 0;
}

std::vector<RoundMetrics> published_rounds(const StoredStanding& standing, const RunConfig& config,
                                           bool evaluates) {
  std::vector<RoundMetrics> rounds = standing.rounds;
  const RoundNumber last = standing.run.round;
  if (!evaluates || !evaluation_due(config, last) || !standing.metrics ||
      standing.metrics->accuracy) {
    return rounds;
  }
  std::erase_if(rounds,
                [&](const RoundMetrics& round) { return round.committed && round.round == last; });
  return rounds;
}

}  // namespace covey::server
