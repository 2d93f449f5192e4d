#pragma once

#include "layers/layer.hpp"

namespace covey::models {

/// In training, each value is dropped with chance `rate`, the others scaled by 1 / (1 - rate)
/// (Srivastava et al. 2014, inverted).
struct DropoutStage {
  std::size_t size = 0;  ///< of one example
  float rate = 0;
};

Result<void> plan_dropout(Planner& planner);
StageMemory memory_of(const DropoutStage& stage, std::size_t batch);
void forward(const DropoutStage& stage, const ForwardPass& pass);
void backward(const DropoutStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
