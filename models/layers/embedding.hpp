#pragma once

#include "layers/layer.hpp"

namespace covey::models {

/// Row `token` of a table for each step's token; tokens are floats that hold integers.
struct EmbeddingStage {
  std::size_t steps = 0;
  std::size_t units = 0;
  std::size_t vocabulary = 0;
  std::size_t table = 0;  ///< [vocabulary x units]
};

Result<void> plan_embedding(Planner& planner);
StageMemory memory_of(const EmbeddingStage& stage, std::size_t batch);
void forward(const EmbeddingStage& stage, const ForwardPass& pass);
void backward(const EmbeddingStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
