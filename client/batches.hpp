#pragma once

#include <algorithm>
#include <covey/messages.hpp>
#include <covey/strategies/strategy.hpp>
#include <cstddef>

namespace covey::client {

/// Examples that go through the network together.
struct Batches {
  std::size_t training = 0;    ///< in a step
  std::size_t evaluation = 0;  ///< in the pass before the first step; 0: there is none

  std::size_t largest() const { return std::max(training, evaluation); }
};

/// `num_examples` > 0: of the device. `labels_per_example`: predictions of the network for each.
inline Batches batches_of(const TrainingPlan& plan, const strategies::Strategy& strategy,
                          std::size_t num_examples, std::size_t labels_per_example) {
  // Predictions in a batch of the pass over all local examples that computes F_k(w^t), and most
  // examples in it: large enough for efficient matrix products, small enough for the workspace of a
  // convolutional network (tens of megabytes).
  constexpr std::size_t kEvaluationPredictions = 2048;
  constexpr std::size_t kEvaluationBatch = 256;
  Batches batches;
  batches.training =
      plan.batch_size == 0 ? num_examples : std::min<std::size_t>(plan.batch_size, num_examples);
  if (!strategy.local_rule().needs_initial_loss) return batches;
  const std::size_t efficient =
      std::clamp<std::size_t>(kEvaluationPredictions / labels_per_example, 1, kEvaluationBatch);
  batches.evaluation = std::max(batches.training, std::min(efficient, num_examples));
  return batches;
}

}  // namespace covey::client
