#include <algorithm>

#include "layers.hpp"

namespace covey::models {

namespace {

/// to[column * pitch + row] = from[row * columns + column], zero for rows in [rows, pitch).
void transpose_padded(const float* from, std::size_t rows, std::size_t columns, float* to,
                      std::size_t pitch) {
  for (std::size_t column = 0; column < columns; ++column) {
    float* line = to + column * pitch;
    for (std::size_t row = 0; row < rows; ++row) line[row] = from[row * columns + column];
    std::fill(line + rows, line + pitch, 0.0f);
  }
}

/// gradient_inputs[b, first + r] = rows[r * pitch + b].
void write_input_gradient(const float* rows, std::size_t count, std::size_t pitch,
                          const DenseStage& stage, std::size_t first, const BackwardPass& pass) {
  for (std::size_t b = 0; b < pass.batch; ++b) {
    float* line = pass.gradient_inputs + b * stage.inputs + first;
    for (std::size_t r = 0; r < count; ++r) line[r] = rows[r * pitch + b];
  }
}

/// Rows [first, first + count) of dX^T = W dY^T, before W changes.
void input_gradient_rows(const DenseStage& stage, const BackwardPass& pass, std::size_t first,
                         std::size_t count) {
  const std::size_t pitch = batch_pitch(pass.batch);
  const std::size_t lanes = pass.kernels.vector_floats;
  GemmTask task;
  task.a = pass.parameters + stage.weight + first * stage.outputs;
  task.a_row = stage.outputs;
  task.b = pass.buffers.output_transposed;
  task.b_row = pitch;
  task.c = pass.buffers.input_rows;
  task.c_row = pitch;
  task.rows = count;
  task.columns = (pass.batch + lanes - 1) / lanes * lanes;
  task.depth = stage.outputs;
  pass.kernels.gemm(task);
  write_input_gradient(pass.buffers.input_rows, count, pitch, stage, first, pass);
}

/// Rows [first, first + count) of W += X^T dY, where dY already carries descent.factor().
void add_weight_gradient_rows(const DenseStage& stage, const BackwardPass& pass,
                              const Descent& descent, std::size_t first, std::size_t count) {
  GemmTask task;
  task.a = pass.inputs + first;
  task.a_row = 1;
  task.a_col = stage.inputs;
  task.b = pass.gradient_outputs;
  task.b_row = stage.outputs;
  task.c = descent.values + stage.weight + first * stage.outputs;
  task.c_row = stage.outputs;
  task.rows = count;
  task.columns = stage.outputs;
  task.depth = pass.batch;
  task.accumulate = true;
  pass.kernels.gemm(task);
}

/// Weight rows per turn: about 24 KiB, so that a row is read from memory once for the input's
/// gradient, the proximal term and the update.
std::size_t rows_per_turn(const DenseStage& stage) {
  constexpr std::size_t kTurnFloats = 6 * 1024;
  constexpr std::size_t kFewest = 14;  // one register tile of the widest kernels
  return std::clamp(kTurnFloats / stage.outputs, kFewest, kDenseRows) / kFewest * kFewest;
}

}  // namespace

void dense_forward(const DenseStage& stage, const Kernels& kernels, std::size_t batch,
                   const float* parameters, const float* inputs, float* outputs) {
  GemmTask task;
  task.a = inputs;
  task.a_row = stage.inputs;
  task.b = parameters + stage.weight;
  task.b_row = stage.outputs;
  task.c = outputs;
  task.c_row = stage.outputs;
  task.rows = batch;
  task.columns = stage.outputs;
  task.depth = stage.inputs;
  task.bias = parameters + stage.bias;
  task.relu = stage.relu;
  kernels.gemm(task);
}

void dense_backward(const DenseStage& stage, const BackwardPass& pass, const Descent& descent) {
  const Kernels& kernels = pass.kernels;
  const std::size_t size = pass.batch * stage.outputs;
  if (stage.relu) kernels.relu_backward(pass.outputs, size, pass.gradient_outputs);
  descent.pull(kernels, stage.bias, stage.outputs);
  kernels.add_column_sums(pass.gradient_outputs, pass.batch, stage.outputs, descent.factor(),
                          descent.values + stage.bias);
  if (pass.gradient_inputs != nullptr) {
    transpose_padded(pass.gradient_outputs, pass.batch, stage.outputs,
                     pass.buffers.output_transposed, batch_pitch(pass.batch));
  }
  if (descent.update) kernels.scale(pass.gradient_outputs, size, descent.factor());
  const std::size_t turn = rows_per_turn(stage);
  for (std::size_t first = 0; first < stage.inputs; first += turn) {
    const std::size_t count = std::min(turn, stage.inputs - first);
    if (pass.gradient_inputs != nullptr) input_gradient_rows(stage, pass, first, count);
    descent.pull(kernels, stage.weight + first * stage.outputs, count * stage.outputs);
    add_weight_gradient_rows(stage, pass, descent, first, count);
  }
}

}  // namespace covey::models
