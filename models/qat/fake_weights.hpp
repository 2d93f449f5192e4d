#pragma once

#include <covey/parameter_vector.hpp>
#include <cstddef>
#include <span>

#include "kernels/kernels.hpp"

namespace covey::models {

/// Parameters as an int8 model has them: every weight tensor w^ = s * round(w / s), s the scale of
/// its output channel by the rule of core's int8 encoding, so that w^ is to the bit what encoding
/// and decoding gives; tensors of one dimension (biases, ranges) as they are. One thread at a time.
class FakeWeights {
 public:
  /// `layout` must outlive this.
  FakeWeights(const ModelLayout& layout, const Kernels& kernels);

  /// parameters: R^d. The result, R^d, holds until the next call. Allocates nothing.
  std::span<const float> quantise(std::span<const float> parameters);

  std::size_t bytes() const { return (values_.size() + scales_.size()) * sizeof(float); }

 private:
  const ModelLayout& layout_;
  const Kernels& kernels_;
  ParameterVector values_;  ///< R^d
  ParameterVector scales_;  ///< of one tensor's channels, then their inverses
  std::size_t most_channels_ = 0;
};

}  // namespace covey::models
