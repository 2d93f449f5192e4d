#pragma once

#include <covey/client/trainer.hpp>
#include <covey/simulation/experiment.hpp>
#include <covey/simulation/training_worker.hpp>
#include <covey/strategies/registry.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace covey::simulation {

/// Where virtual devices' noise comes from: the run's seed, wherever they are trained.
client::SecretsFactory training_secrets(std::uint64_t seed);

/// Trains in this process, with an engine and buffers of its own: nothing is allocated per step.
/// `experiment` and `registry` outlive it. One thread at a time.
class LocalWorker : public TrainingWorker {
 public:
  LocalWorker(const Experiment& experiment, const strategies::Registry& registry,
              client::SecretsFactory make_secrets);

  Outcome compute(const TrainingJob& job, const std::atomic<bool>& cancelled) override;

 private:
  Result<client::TrainedUpdate> train(const client::TrainingTask& task,
                                      const client::TrainingControl& control);

  client::SgdTrainer& trainer_for(const TrainingPlan& plan);

  /// A trainer keeps the engine of one network and precision; classes of devices may have several.
  struct Bench {
    ModelSpec model;
    std::string precision;
    client::SgdTrainer trainer;
    Bench(const TrainingPlan& plan, const LocalWorker& worker);
  };
  const Experiment& experiment_;
  const strategies::Registry& registry_;
  client::SecretsFactory make_secrets_;
  Experiment::Scratch scratch_;
  std::vector<std::unique_ptr<Bench>> benches_;
};

}  // namespace covey::simulation
