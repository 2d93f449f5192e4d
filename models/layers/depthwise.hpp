#pragma once

#include "layers/layer.hpp"

namespace covey::models {

/// One kernel x kernel filter per channel.
struct DepthwiseStage {
  ConvolutionShape shape;
  std::size_t weight = 0;  ///< [kernel x kernel x channels]
  std::size_t bias = 0;
  bool relu = false;

  std::size_t inputs() const { return shape.height * shape.width * shape.channels_in; }
  std::size_t outputs() const { return shape.out_height * shape.out_width * shape.channels_in; }
};

Result<void> plan_depthwise(Planner& planner);
StageMemory memory_of(const DepthwiseStage& stage, std::size_t batch);
void forward(const DepthwiseStage& stage, const ForwardPass& pass);
void backward(const DepthwiseStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
