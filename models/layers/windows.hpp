#pragma once

#include "layers/layer.hpp"

namespace covey::models {

/// Floats rounded up to whole vectors of the widest instruction set.
constexpr std::size_t round_to_vectors(std::size_t floats) { return (floats + 15) / 16 * 16; }

/// The windows of a convolution over what the layer receives. Same padding gives ceil(extent /
/// stride) outputs along a side and puts floor(total / 2) zeros before the image, the rest behind
/// (as TensorFlow); valid padding gives the windows that fit. Error where none fits, or kernel or
/// padding are none.
Result<ConvolutionShape> plan_windows(Planner& planner, std::size_t channels_out);

/// Output positions of one example.
inline std::size_t positions_of(const ConvolutionShape& shape) {
  return shape.out_height * shape.out_width;
}

}  // namespace covey::models
