#include "bf16/bf16_dense.hpp"

#include <algorithm>

namespace covey::models {

namespace {

/// to[column * pitch + row] = from[row * columns + column].
void transpose(const std::uint16_t* from, std::size_t rows, std::size_t columns,
               std::uint16_t* to) {
  const std::size_t pitch = bf16_pitch(rows);
  for (std::size_t column = 0; column < columns; ++column) {
    std::uint16_t* line = to + column * pitch;
    for (std::size_t row = 0; row < rows; ++row) line[row] = from[row * columns + column];
  }
}

/// Rows [first, first + count) of dX^T = W dY^T.
void input_gradient_rows(const Bf16DenseBackward& p, std::size_t first, std::size_t count) {
  const std::size_t pitch = bf16_pitch(p.rows);
  Bf16Product product;
  product.a = p.weights + p.stage.weight + first * p.stage.outputs;
  product.a_row = p.stage.outputs;
  product.b = p.transposed;
  product.b_row = pitch;
  product.c = p.input_rows;
  product.c_row = pitch;
  product.rows = count;
  product.columns = p.rows;
  product.depth = p.stage.outputs;
  p.kernels.product(product);
  for (std::size_t b = 0; b < p.rows; ++b) {
    float* line = p.gradient_inputs + b * p.stage.inputs + first;
    for (std::size_t r = 0; r < count; ++r) line[r] = p.input_rows[r * pitch + b];
  }
}

/// Rows [first, first + count) of W stepped by X^T dY.
void update_rows(const Bf16DenseBackward& p, const Bf16Step& step, std::size_t first,
                 std::size_t count) {
  const std::size_t at = p.stage.weight + first * p.stage.outputs;
  Bf16Update update;
  update.weights = p.weights + at;
  update.input_pairs = p.pairs + first;
  update.pair_row = p.stage.inputs;
  update.gradient = p.gradient;
  update.rows = p.rows;
  update.inputs = count;
  update.outputs = p.stage.outputs;
  update.step = step;
  update.step.anchor = step.anchor == nullptr ? nullptr : step.anchor + at;
  update.step.rounding.index += static_cast<std::uint32_t>(at);
  p.kernels.update(update);
}

}  // namespace

void bf16_dense_forward(const DenseStage& stage, const Bf16Kernels& kernels,
                        const std::uint16_t* weights, std::size_t rows, const std::uint16_t* inputs,
                        const float* bias, float* outputs) {
  Bf16Product product;
  product.a = inputs;
  product.a_row = stage.inputs;
  product.b = weights + stage.weight;
  product.b_row = stage.outputs;
  product.c = outputs;
  product.c_row = stage.outputs;
  product.rows = rows;
  product.columns = stage.outputs;
  product.depth = stage.inputs;
  product.bias = bias;
  product.relu = stage.relu;
  kernels.product(product);
}

void bf16_dense_backward(const Bf16DenseBackward& pass, const float* gradient_outputs,
                         const Bf16Step* step) {
  pass.kernels.narrow(gradient_outputs, pass.rows * pass.stage.outputs, pass.gradient);
  const bool below = pass.gradient_inputs != nullptr;
  if (below) transpose(pass.gradient, pass.rows, pass.stage.outputs, pass.transposed);
  if (step != nullptr) {
    pass.kernels.pack_pairs(pass.inputs, pass.rows, pass.stage.inputs, pass.pairs);
  }
  for (std::size_t first = 0; first < pass.stage.inputs; first += kBf16TurnRows) {
    const std::size_t count = std::min(kBf16TurnRows, pass.stage.inputs - first);
    if (below) input_gradient_rows(pass, first, count);
    if (step != nullptr) update_rows(pass, *step, first, count);
  }
}

}  // namespace covey::models
