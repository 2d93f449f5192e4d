#pragma once

#include "layers/layer.hpp"

namespace covey::models {

struct ConvolutionStage {
  ConvolutionShape shape;
  std::size_t weight = 0;  ///< [kernel x kernel x channels_in x channels_out]
  std::size_t bias = 0;
  bool relu = false;

  std::size_t inputs() const { return shape.height * shape.width * shape.channels_in; }
  std::size_t outputs() const { return shape.out_height * shape.out_width * shape.channels_out; }
  std::size_t padded_row() const { return shape.padded_width * shape.channels_in; }
  /// Floats of one padded image; whole cache lines, and room for a kernel to read past its end.
  std::size_t padded_size() const;
  std::size_t depth() const { return shape.kernel * shape.kernel * shape.channels_in; }
  std::size_t transposed_size() const {
    return shape.kernel * shape.channels_out * shape.tap_pitch;
  }
  /// A dense layer over the channels of every position: no windows, nothing to pad.
  bool pointwise() const { return shape.kernel == 1 && shape.stride == 1; }
};

Result<void> plan_convolution(Planner& planner);
StageMemory memory_of(const ConvolutionStage& stage, std::size_t batch);
void forward(const ConvolutionStage& stage, const ForwardPass& pass);
void backward(const ConvolutionStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
