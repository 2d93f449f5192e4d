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
    : experiment_(experiment),
      trainer_(experiment.data.train, registry, experiment.make_engine, std::move(make_secrets)) {}

Result<client::TrainedUpdate> LocalWorker::train(const client::TrainingTask& task,
                                                 const client::TrainingControl& control) {
  if (experiment_.attack && experiment_.attack->is_attacker(task.client)) {
    return experiment_.attack->train({experiment_, trainer_, scratch_}, task, control);
  }
  const auto examples = experiment_.training_examples(task.client, scratch_);
  trainer_.use_examples(*examples.data, examples.indices);
  return trainer_.train(task, control);
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
