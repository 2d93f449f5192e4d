#pragma once

#include "bf16/bf16_plan.hpp"
#include "bf16/kernels_bf16.hpp"

namespace covey::models {

/// y[rows x outputs] = relu(x W + bias), W read as bf16. `bias`: outputs widened.
void bf16_dense_forward(const DenseStage& stage, const Bf16Kernels& kernels,
                        const std::uint16_t* weights, std::size_t rows, const std::uint16_t* inputs,
                        const float* bias, float* outputs);

/// What a dense stage's backward pass works on, for a whole batch.
struct Bf16DenseBackward {
  const DenseStage& stage;
  const Bf16Kernels& kernels;
  std::size_t rows;
  std::uint16_t* weights;       ///< R^d
  const std::uint16_t* inputs;  ///< [rows x inputs]
  std::uint16_t* gradient;      ///< bf16 dY [rows x outputs], filled in
  std::uint16_t* transposed;    ///< null: nothing below needs the inputs' gradient
  std::uint32_t* pairs;
  float* input_rows;
  float* gradient_inputs;  ///< [rows x inputs], written whole; null as `transposed`
};

/// dY to bf16, the inputs' gradient from the weights as they are, and, where `step` is not null,
/// the step, a few rows of weights at a time. step->rounding.index and anchor are of the whole
/// vector.
void bf16_dense_backward(const Bf16DenseBackward& pass, const float* gradient_outputs,
                         const Bf16Step* step);

}  // namespace covey::models
