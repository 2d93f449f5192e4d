#pragma once

#include <covey/client/trainer.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/result.hpp>
#include <covey/strategies/strategy.hpp>
#include <span>

namespace covey::client {

/// What a device's training made, before it is made private.
struct Contribution {
  std::span<float> update;  ///< R^d; overwritten
  strategies::Contribution weights;
  std::uint64_t num_examples = 0;
  std::uint32_t steps = 0;
  double train_loss = 0;
};

/// True where the plan asks for more than the update as it is.
bool needs_privacy(const TrainingPlan& plan);

/// Clips, adds the device's own noise, and, under secure aggregation, turns the update with its figures into
/// the fixed-point vector that is masked later. What the returned Report fields say is what the plan's
/// privacy lets the server know of one device: under secure aggregation nothing.
Result<TrainedUpdate> make_private(const TrainingTask& task, const ModelLayout& layout,
                                   Contribution contribution, privacy::SecretSource& secrets);

}  // namespace covey::client
