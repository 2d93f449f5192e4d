#pragma once

#include "layers/layer.hpp"

namespace covey::models {

/// y[rows x outputs] = x[rows x inputs] W[inputs x outputs] + bias, then relu where fused. A row is
/// an example, or a step of a sequence.
struct DenseStage {
  std::size_t inputs = 0;
  std::size_t outputs = 0;
  std::size_t rows = 1;    ///< of one example
  std::size_t weight = 0;  ///< offsets in the parameter vector
  std::size_t bias = 0;
  bool relu = false;
};

Result<void> plan_dense(Planner& planner);
StageMemory memory_of(const DenseStage& stage, std::size_t batch);
void forward(const DenseStage& stage, const ForwardPass& pass);
void backward(const DenseStage& stage, const BackwardPass& pass, const Descent& descent);

/// dW[inputs x outputs] = X^T dY and dX = dY W^T for `rows` rows, with the update fused in; what a
/// dense layer and a 1x1 convolution share. `weight`: offset of W in the vector. gradient_outputs
/// may be overwritten.
struct DenseProduct {
  std::size_t inputs;
  std::size_t outputs;
  std::size_t weight;
};
/// Floats of scratch that dense_product_backward needs.
std::size_t dense_product_scratch(const DenseProduct& product, std::size_t rows);
/// `gradient_inputs` null: not wanted.
void dense_product_backward(const DenseProduct& product, const Kernels& kernels, std::size_t rows,
                            const float* parameters, const float* inputs, float* gradient_outputs,
                            float* gradient_inputs, float* scratch, const Descent& descent);

}  // namespace covey::models
