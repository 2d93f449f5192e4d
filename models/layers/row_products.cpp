#include "layers/row_products.hpp"

namespace covey::models {

void multiply_rows(const Kernels& kernels, const RowProduct& product, const float* x,
                   const float* weights, const float* bias, float* y, float* panel) {
  GemmTask task;
  task.a = x;
  task.a_row = product.inputs;
  task.b = weights;
  task.b_row = product.weights_row;
  task.c = y;
  task.c_row = product.outputs_row;
  task.rows = product.rows;
  task.columns = product.outputs;
  task.depth = product.inputs;
  task.bias = bias;
  kernels.gemm_panels(task, {.panel = panel});
}

void multiply_rows_back(const Kernels& kernels, const RowProduct& product, const float* gradient_y,
                        const float* weights, float* gradient_x, float* panel) {
  GemmTask task;
  task.a = gradient_y;
  task.a_row = product.outputs_row;
  task.b = weights;
  task.b_row = product.weights_row;
  task.c = gradient_x;
  task.c_row = product.inputs;
  task.rows = product.rows;
  task.columns = product.inputs;
  task.depth = product.outputs;
  kernels.gemm_panels(task, {.transposed = true, .panel = panel});
}

void add_weight_gradient(const Kernels& kernels, const RowProduct& product, const float* x,
                         const float* gradient_y, float factor, float* values, float* panel) {
  GemmTask task;
  task.a = x;
  task.a_row = 1;
  task.a_col = product.inputs;
  task.b = gradient_y;
  task.b_row = product.outputs_row;
  task.c = values;
  task.c_row = product.weights_row;
  task.rows = product.inputs;
  task.columns = product.outputs;
  task.depth = product.rows;
  task.accumulate = true;
  kernels.gemm_panels(task, {.factor = factor, .panel = panel});
}

}  // namespace covey::models
