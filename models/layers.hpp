#pragma once

#include <cstddef>

#include "network_plan.hpp"
#include "workspace.hpp"

/// One stage's share of a step. `batch` examples at a time, at most the workspace's chunk.
namespace covey::models {

/// What becomes of a parameter's gradient g: added to `values` (gradient), or, where `update` is
/// set, values <- values - learning_rate * (g + proximal_mu * (values - anchor)) on the parameters
/// themselves, in the pass that computes g.
struct Descent {
  float* values = nullptr;  ///< R^d
  bool update = false;
  float learning_rate = 0;
  float proximal_mu = 0;
  const float* anchor = nullptr;  ///< R^d where proximal_mu > 0

  /// Factor of g as it is added to values.
  float factor() const { return update ? -learning_rate : 1.0f; }
  /// values[offset, offset + n) -= learning_rate * proximal_mu * (values - anchor), where asked
  /// for. Before the gradient is added: both terms see the parameters before the step.
  void pull(const Kernels& kernels, std::size_t offset, std::size_t n) const {
    if (!update || proximal_mu == 0) return;
    kernels.pull(anchor + offset, n, learning_rate * proximal_mu, values + offset);
  }
};

/// What a stage's backward pass reads and writes; [batch x ...], row-major.
struct BackwardPass {
  const Kernels& kernels;
  WorkspaceBuffers& buffers;
  std::size_t batch;
  const float* parameters;  ///< before the step; the same memory as descent.values when updating
  const float* inputs;
  const float* outputs;
  float* gradient_outputs;  ///< overwritten
  float* gradient_inputs;   ///< null: nothing below needs it
};

void dense_forward(const DenseStage& stage, const Kernels& kernels, std::size_t batch,
                   const float* parameters, const float* inputs, float* outputs);
void dense_backward(const DenseStage& stage, const BackwardPass& pass, const Descent& descent);

void convolution_forward(const ConvolutionStage& stage, const Kernels& kernels,
                         WorkspaceBuffers& buffers, std::size_t batch, const float* parameters,
                         const float* inputs, float* outputs);
void convolution_backward(const ConvolutionStage& stage, const BackwardPass& pass,
                          const Descent& descent);

}  // namespace covey::models
