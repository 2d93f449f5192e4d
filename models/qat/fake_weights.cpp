#include "qat/fake_weights.hpp"

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/int8_encoding.hpp>

namespace covey::models {

namespace {

/// The last dimension of a weight tensor; 0 for a tensor that stays as it is.
std::size_t channels_of(const TensorLayout& tensor) {
  return tensor.shape.size() < 2 ? 0 : tensor.shape.back();
}

}  // namespace

FakeWeights::FakeWeights(const ModelLayout& layout, const Kernels& kernels)
    : layout_(layout), kernels_(kernels), values_(layout.size()) {
  for (const TensorLayout& tensor : layout.tensors()) {
    most_channels_ = std::max(most_channels_, channels_of(tensor));
  }
  scales_ = ParameterVector(2 * most_channels_);
}

std::span<const float> FakeWeights::quantise(std::span<const float> parameters) {
  COVEY_ASSERT(parameters.size() == values_.size());
  float* scales = scales_.data();
  float* inverses = scales + most_channels_;
  for (const TensorLayout& tensor : layout_.tensors()) {
    const float* from = parameters.data() + tensor.offset;
    float* to = values_.data() + tensor.offset;
    const std::size_t channels = channels_of(tensor);
    if (channels == 0) {
      std::copy_n(from, tensor.size(), to);
      continue;
    }
    const std::size_t rows = tensor.size() / channels;
    kernels_.max_column_magnitudes(from, rows, channels, scales);
    for (std::size_t c = 0; c < channels; ++c) {
      scales[c] = round_up_to_int8_scale(scales[c] / 127);
      inverses[c] = 1 / scales[c];
    }
    kernels_.fake_quantise_columns(from, rows, channels, scales, inverses, to);
  }
  return values_.span();
}

}  // namespace covey::models
