#pragma once

#include "layers/layer.hpp"

namespace covey::models {

/// The sum of two earlier outputs of one shape. The engine hands the gradient on to both.
struct AddStage {
  std::size_t size = 0;  ///< of one example
};

StageMemory memory_of(const AddStage& stage, std::size_t batch);
void forward(const AddStage& stage, const ForwardPass& pass);
void backward(const AddStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
