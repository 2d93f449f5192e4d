#pragma once

#include "layers/layer.hpp"

namespace covey::models {

/// Largest or mean value of each window, channel by channel.
struct PoolStage {
  PoolShape shape;
  std::size_t out_height = 0;
  std::size_t out_width = 0;
  bool average = false;

  std::size_t inputs() const { return shape.height * shape.width * shape.channels; }
  std::size_t outputs() const { return out_height * out_width * shape.channels; }
};

/// Mean of each channel over all positions.
struct GlobalPoolStage {
  std::size_t positions = 0;
  std::size_t channels = 0;
};

Result<void> plan_pool(Planner& planner);
Result<void> plan_global_pool(Planner& planner);
StageMemory memory_of(const PoolStage& stage, std::size_t batch);
void forward(const PoolStage& stage, const ForwardPass& pass);
void backward(const PoolStage& stage, const BackwardPass& pass, const Descent& descent);
StageMemory memory_of(const GlobalPoolStage& stage, std::size_t batch);
void forward(const GlobalPoolStage& stage, const ForwardPass& pass);
void backward(const GlobalPoolStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
