#include <utility>

#include "fleet.hpp"

// Every answer of the fleet's computing, on its way through the run's journal where there is one.
namespace covey::simulation {

/// What becomes of a finished training.
Result<client::TrainedUpdate> Fleet::update_of(DeviceIndex index, const Training& training) {
  if (training.failure) return *training.failure;
  const auto compute = [&] { return pool_.take(*training.job); };
  if (!journal_) return compute();
  auto update = journal_->take(static_cast<ClientId>(index), compute);
  check_journal();
  return update;
}

std::optional<RunJournal::Rejection> Fleet::judgement_of(const server::JudgeUpdate& action,
                                                         const SharedBytes& bytes) {
  const auto compute = [&] { return server_->pipeline.judge(action, bytes); };
  if (!journal_) return compute();
  auto rejection = journal_->judge(action, compute);
  check_journal();
  return rejection;
}

server::StrategyApplied Fleet::apply(const server::ApplyStrategy& action) {
  const auto compute = [&] {
    return server::apply_strategy(server_->pipeline, action, [this] { check_sum(); });
  };
  if (!journal_) return compute();
  if (journal_->replaying()) unmasked_.clear();
  auto applied = journal_->apply(action.round, compute,
                                 [this](const Snapshot& snapshot) { return put_back(snapshot); });
  check_journal();
  return applied;
}

server::ModelEvaluated Fleet::evaluation_of(RoundNumber round) {
  const auto compute = [&]() -> server::ModelEvaluated {
    const auto figures =
        evaluator_.evaluate(experiment_.data.test, server_->pipeline.model().span());
    return {round, figures.accuracy(), figures.loss()};
  };
  if (!journal_) return compute();
  auto figures = journal_->evaluate(round, compute);
  check_journal();
  return figures;
}

/// Of a round's metrics what virtual time does not say.
void Fleet::add_computed_figures(RoundMetrics& metrics) {
  const auto compute = [this](RoundMetrics& round) {
    round.wall_s = elapsed_s();
    const std::uint32_t every = experiment_.config.fairness_every;
    if (every > 0 && round.committed && value_of(round.round) % every == 0 &&
        has_accuracy(experiment_.plan.model)) {
      round.devices = fairness(evaluator_.accuracies(
          experiment_.data.test, experiment_.tested_devices(), server_->pipeline.model().span()));
    }
  };
  if (!journal_) return compute(metrics);
  journal_->publish(metrics, compute);
  check_journal();
}

/// The round is durable: a run that goes on may begin behind it.
void Fleet::write_down(RoundNumber round) {
  if (!journal_) return;
  journal_->committed(round, [this](Snapshot& snapshot) {
    snapshot.state = server_->pipeline.state();
    snapshot.noise_bytes = *noise_bytes_;
    snapshot.wall_s = elapsed_s();
  });
  check_journal();
}

/// The pipeline as it was at the snapshot's round.
Result<void> Fleet::put_back(const Snapshot& snapshot) {
  COVEY_ASSIGN(server_->pipeline, put_back_(snapshot));
  began_ = std::chrono::steady_clock::now() -
           std::chrono::duration_cast<std::chrono::steady_clock::duration>(
               std::chrono::duration<double>(snapshot.wall_s));
  return {};
}

void Fleet::check_journal() {
  if (journal_->error() && !internal_error_) internal_error_ = *journal_->error();
}

/// The run ended before it was back where it had been.
Error Fleet::recalled_too_little() const {
  if (!result_.finished) {
    return failed("stopped on the way to where the run had been; --resume goes on from there");
  }
  return failed(
      "the journal tells of rounds behind the end of this run: it was written by another "
      "version of the program, or with other data; run it again");
}

double Fleet::elapsed_s() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
}

}  // namespace covey::simulation
