#pragma once

#include <covey/model_spec.hpp>
#include <covey/optimizer.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <string_view>

namespace covey::models {

/// What Covey's own engine for a network takes, from its plan: nothing of that size is allocated to
/// find out.
struct TrainingMemory {
  std::size_t parameters = 0;      ///< d
  std::size_t largest_tensor = 0;  ///< of them
  std::size_t model_bytes =
      0;  ///< of the round's model as it is sent, of which the engine keeps a share
  std::size_t weight_bytes = 0;  ///< as long as the engine is loaded
  std::size_t scratch_bytes =
      0;  ///< activations, gradients, optimiser: Engine::release_scratch frees them
  std::size_t example_size = 0;  ///< features of one example
  std::size_t labels_per_example = 1;
  double training_flops_per_example = 0;  ///< forward and backward
};

/// `max_batch`: what the engine is to have room for (Engine::reserve). Error for a network or a
/// precision that make_engine refuses.
Result<TrainingMemory> training_memory(const ModelSpec& spec, std::string_view precision,
                                       std::size_t max_batch, const OptimizerSpec& optimizer);

}  // namespace covey::models
