#pragma once

#include <covey/model_spec.hpp>

#include "layers/layer.hpp"

namespace covey::models {

/// relu (where nothing can take it in), gelu, tanh or sigmoid, value by value.
struct ActivationStage {
  LayerKind kind = LayerKind::kRelu;
  std::size_t size = 0;  ///< of one example
};

Result<void> plan_activation(Planner& planner);
StageMemory memory_of(const ActivationStage& stage, std::size_t batch);
void forward(const ActivationStage& stage, const ForwardPass& pass);
void backward(const ActivationStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
