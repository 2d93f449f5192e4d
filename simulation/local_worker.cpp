#include "local_worker.hpp"

#include <utility>

#include "attack.hpp"

namespace covey::simulation {

client::SecretsFactory training_secrets(std::uint64_t seed) {
  return [seed](RoundNumber round, ClientId client) {
    return privacy::seeded_secrets(seed, round, client);
  };
}

LocalWorker::LocalWorker(const Experiment& experiment, const strategies::Registry& registry,
                         client::SecretsFactory make_secrets)
    : experiment_(experiment), registry_(registry), make_secrets_(std::move(make_secrets)) {}

LocalWorker::Bench::Bench(const TrainingPlan& plan, const LocalWorker& worker)
    : model(plan.model),
      precision(plan.precision),
      trainer(worker.experiment_.data.train, worker.registry_, worker.experiment_.make_engine,
              worker.make_secrets_) {}

client::SgdTrainer& LocalWorker::trainer_for(const TrainingPlan& plan) {
  for (const auto& bench : benches_) {
    if (bench->precision == plan.precision && bench->model == plan.model) return bench->trainer;
  }
  benches_.push_back(std::make_unique<Bench>(plan, *this));
  return benches_.back()->trainer;
}

Result<client::TrainedUpdate> LocalWorker::train(const client::TrainingTask& task,
                                                 const client::TrainingControl& control) {
  client::SgdTrainer& trainer = trainer_for(task.plan);
  if (experiment_.attack && experiment_.attack->is_attacker(task.client)) {
    return experiment_.attack->train({experiment_, trainer, scratch_}, task, control);
  }
  const auto examples = experiment_.training_examples(task.client, scratch_);
  trainer.use_examples(*examples.data, examples.indices);
  return trainer.train(task, control);
}

TrainingWorker::Outcome LocalWorker::compute(const TrainingJob& job,
                                             const std::atomic<bool>& cancelled) {
  client::TrainingControl control;
  control.cancelled = &cancelled;
  control.max_epochs = job.max_epochs;
  auto result = train(job.task, control);
  if (!result.ok() && cancelled.load(std::memory_order_relaxed)) return std::nullopt;
  return result;
}

}  // namespace covey::simulation
