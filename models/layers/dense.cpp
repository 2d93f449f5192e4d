#include "layers/dense.hpp"

#include <algorithm>

#include "layers/row_products.hpp"
#include "planner.hpp"

namespace covey::models {

namespace {

/// Weight rows that go through the first-level cache together.
constexpr std::size_t kRowsPerTurn = 56;

/// Fewest rows for which packing pays in the backward pass; measured with the 2nn preset.
constexpr std::size_t kManyRows = 128;

/// Rows rounded up to whole vectors of the widest instruction set.
constexpr std::size_t pitch_of(std::size_t rows) { return (rows + 15) / 16 * 16; }

/// What the backward pass of a product works on.
struct Products {
  const DenseProduct& product;
  const Kernels& kernels;
  std::size_t rows;
  const float* weights;  ///< before the step
  const float* inputs;
  float* gradient_outputs;
  float* gradient_inputs;
  float* transposed;  ///< [outputs x pitch], gradient of the outputs
  float* input_rows;  ///< [kRowsPerTurn x pitch], gradient of some inputs
};

/// to[column * pitch + row] = from[row * columns + column], zero for rows in [rows, pitch).
void transpose_padded(const float* from, std::size_t rows, std::size_t columns, float* to,
                      std::size_t pitch) {
  for (std::size_t column = 0; column < columns; ++column) {
    float* line = to + column * pitch;
    for (std::size_t row = 0; row < rows; ++row) line[row] = from[row * columns + column];
    std::fill(line + rows, line + pitch, 0.0f);
  }
}

/// Rows [first, first + count) of dX^T = W dY^T, before W changes.
void input_gradient_rows(const Products& p, std::size_t first, std::size_t count) {
  const std::size_t pitch = pitch_of(p.rows);
  const std::size_t lanes = p.kernels.vector_floats;
  GemmTask task;
  task.a = p.weights + first * p.product.outputs;
  task.a_row = p.product.outputs;
  task.b = p.transposed;
  task.b_row = pitch;
  task.c = p.input_rows;
  task.c_row = pitch;
  task.rows = count;
  task.columns = (p.rows + lanes - 1) / lanes * lanes;
  task.depth = p.product.outputs;
  p.kernels.gemm(task);
  for (std::size_t b = 0; b < p.rows; ++b) {
    float* line = p.gradient_inputs + b * p.product.inputs + first;
    for (std::size_t r = 0; r < count; ++r) line[r] = p.input_rows[r * pitch + b];
  }
}

/// Rows [first, first + count) of W += X^T dY, where dY already carries descent.factor().
void add_weight_gradient_rows(const Products& p, const Descent& descent, std::size_t first,
                              std::size_t count) {
  GemmTask task;
  task.a = p.inputs + first;
  task.a_row = 1;
  task.a_col = p.product.inputs;
  task.b = p.gradient_outputs;
  task.b_row = p.product.outputs;
  task.c = descent.values + p.product.weight + first * p.product.outputs;
  task.c_row = p.product.outputs;
  task.rows = count;
  task.columns = p.product.outputs;
  task.depth = p.rows;
  task.accumulate = true;
  p.kernels.gemm(task);
}

/// Weight rows per turn: about 24 KiB, so that a row is read from memory once for the input's
/// gradient, the proximal term and the update.
std::size_t rows_per_turn(std::size_t outputs) {
  constexpr std::size_t kTurnFloats = 6 * 1024;
  constexpr std::size_t kFewest = 14;  // one register tile of the widest kernels
  return std::clamp(kTurnFloats / outputs, kFewest, kRowsPerTurn) / kFewest * kFewest;
}

DenseProduct product_of(const DenseStage& stage) {
  return {stage.inputs, stage.outputs, stage.weight};
}

RowProduct row_product(const DenseProduct& product, std::size_t rows) {
  return {rows, product.inputs, product.outputs, product.outputs, product.outputs};
}

/// dense_product_backward for a few rows: each weight row comes from memory once.
void few_rows_backward(const Products& p, const Descent& descent) {
  if (p.gradient_inputs != nullptr) {
    transpose_padded(p.gradient_outputs, p.rows, p.product.outputs, p.transposed, pitch_of(p.rows));
  }
  if (descent.update) {
    p.kernels.scale(p.gradient_outputs, p.rows * p.product.outputs, descent.factor());
  }
  const std::size_t turn = rows_per_turn(p.product.outputs);
  for (std::size_t first = 0; first < p.product.inputs; first += turn) {
    const std::size_t count = std::min(turn, p.product.inputs - first);
    if (p.gradient_inputs != nullptr) input_gradient_rows(p, first, count);
    descent.pull(p.kernels, p.product.weight + first * p.product.outputs,
                 count * p.product.outputs);
    add_weight_gradient_rows(p, descent, first, count);
  }
}

}  // namespace

Result<void> plan_dense(Planner& planner) {
  const auto& shape = planner.shape();
  const std::uint32_t units = planner.layer().units;
  if (shape.size() == 3) {
    return planner.refuse("takes a vector or a sequence but receives " + Planner::text(shape) +
                          "; put a flatten layer before it");
  }
  if (units == 0) return planner.refuse("has no units");
  DenseStage stage{.inputs = shape.back(), .outputs = units};
  stage.rows = shape.size() == 2 ? shape[0] : 1;
  // inputs <= 2^26 and units < 2^32: the products fit 64 bits
  COVEY_TRY(planner.check_sizes((std::uint64_t{stage.inputs} + 1) * units,
                                std::uint64_t{stage.rows} * units));
  const std::string name = planner.number("dense");
  const TensorInit init{TensorInit::Kind::kWeight, stage.inputs, units};
  stage.weight = planner.add_tensor(name + ".weight", {shape.back(), units}, init);
  stage.bias =
      planner.add_tensor(name + ".bias", {units}, {TensorInit::Kind::kBias, stage.inputs, units});
  Planner::Shape output = shape;
  output.back() = units;
  planner.add_stage(stage, std::move(output),
                    static_cast<double>(stage.rows) * static_cast<double>(stage.inputs) *
                        static_cast<double>(units));
  return {};
}

StageMemory memory_of(const DenseStage& stage, std::size_t batch) {
  return {.backward_scratch = dense_product_scratch(product_of(stage), batch * stage.rows)};
}

void forward(const DenseStage& stage, const ForwardPass& pass) {
  GemmTask task;
  task.a = pass.inputs;
  task.a_row = stage.inputs;
  task.b = pass.parameters + stage.weight;
  task.b_row = stage.outputs;
  task.c = pass.outputs;
  task.c_row = stage.outputs;
  task.rows = pass.batch * stage.rows;
  task.columns = stage.outputs;
  task.depth = stage.inputs;
  task.bias = pass.parameters + stage.bias;
  task.relu = stage.relu;
  pass.kernels.gemm(task);
}

void backward(const DenseStage& stage, const BackwardPass& pass, const Descent& descent) {
  const std::size_t rows = pass.batch * stage.rows;
  if (stage.relu) {
    pass.kernels.relu_backward(pass.outputs, rows * stage.outputs, pass.gradient_outputs);
  }
  descent.pull(pass.kernels, stage.bias, stage.outputs);
  pass.kernels.add_column_sums(pass.gradient_outputs, rows, stage.outputs, descent.factor(),
                               descent.values + stage.bias);
  dense_product_backward(product_of(stage), pass.kernels, rows, pass.parameters, pass.inputs,
                         pass.gradient_outputs, pass.gradient_inputs, pass.scratch, descent);
}

std::size_t dense_product_scratch(const DenseProduct& product, std::size_t rows) {
  const std::size_t few = std::min(rows, kManyRows - 1);
  const std::size_t floats = (product.outputs + kRowsPerTurn) * pitch_of(few) + kKernelSlack;
  return rows < kManyRows ? floats : std::max(floats, kPanelFloats);
}

void dense_product_backward(const DenseProduct& product, const Kernels& kernels, std::size_t rows,
                            const float* parameters, const float* inputs, float* gradient_outputs,
                            float* gradient_inputs, float* scratch, const Descent& descent) {
  const float* const weights = parameters + product.weight;
  if (rows < kManyRows) {
    few_rows_backward({.product = product,
                       .kernels = kernels,
                       .rows = rows,
                       .weights = weights,
                       .inputs = inputs,
                       .gradient_outputs = gradient_outputs,
                       .gradient_inputs = gradient_inputs,
                       .transposed = scratch,
                       .input_rows = scratch + product.outputs * pitch_of(rows)},
                      descent);
    return;
  }
  const RowProduct many = row_product(product, rows);
  if (gradient_inputs != nullptr) {
    multiply_rows_back(kernels, many, gradient_outputs, weights, gradient_inputs, scratch);
  }
  descent.pull(kernels, product.weight, product.inputs * product.outputs);
  add_weight_gradient(kernels, many, inputs, gradient_outputs, descent.factor(),
                      descent.values + product.weight, scratch);
}

}  // namespace covey::models
