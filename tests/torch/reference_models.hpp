#pragma once

#include <ATen/core/Tensor.h>

#include <covey/parameter_vector.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace covey::torch_tests {

/// The named networks of preset_model written with libtorch's operations and its autograd: an
/// independent computation of what Covey's own kernels compute, from the same flat vector.
class ReferenceModel {
 public:
  /// preset: "2nn", "cnn" or "char-lstm". layout and weights: of the native network.
  ReferenceModel(std::string preset, const ModelLayout& layout, std::span<const float> weights);

  /// One step of plain SGD on the mean cross-entropy; returns it, as before the step.
  double step(std::int64_t batch, std::span<const float> inputs,
              std::span<const std::int32_t> labels, float learning_rate);
  std::vector<float> weights() const;

 private:
  at::Tensor forward(const at::Tensor& inputs) const;
  at::Tensor two_nn(const at::Tensor& images) const;
  at::Tensor cnn(const at::Tensor& images) const;
  at::Tensor char_lstm(const at::Tensor& tokens) const;

  std::string preset_;
  std::vector<at::Tensor> tensors_;  ///< in the layout's order and shapes
};

}  // namespace covey::torch_tests
