#pragma once

#include <cstddef>

#include "kernels/kernels.hpp"

/// The three products of a layer Y = X W for many rows at once: all steps of a batch of sequences,
/// or a large batch. The second operand goes through `panel`, kPanelFloats of scratch.
namespace covey::models {

struct RowProduct {
  std::size_t rows = 0;
  std::size_t inputs = 0;       ///< columns of X [rows x inputs], which has no gaps
  std::size_t outputs = 0;      ///< columns of Y
  std::size_t outputs_row = 0;  ///< floats from one row of Y to the next
  std::size_t weights_row = 0;  ///< floats from one row of W [inputs x outputs] to the next
};

/// Y = X W + bias.
void multiply_rows(const Kernels& kernels, const RowProduct& product, const float* x,
                   const float* weights, const float* bias, float* y, float* panel);

/// dX = dY W^T.
void multiply_rows_back(const Kernels& kernels, const RowProduct& product, const float* gradient_y,
                        const float* weights, float* gradient_x, float* panel);

/// values [inputs x outputs, weights_row] += factor * X^T dY.
void add_weight_gradient(const Kernels& kernels, const RowProduct& product, const float* x,
                         const float* gradient_y, float factor, float* values, float* panel);

}  // namespace covey::models
