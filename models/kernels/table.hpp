#pragma once

#include "kernels/activation.hpp"
#include "kernels/convolution.hpp"
#include "kernels/depthwise.hpp"
#include "kernels/descent.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/gemm.hpp"
#include "kernels/norm.hpp"
#include "kernels/packed.hpp"
#include "kernels/pool.hpp"
#include "kernels/quantise.hpp"
#include "kernels/recurrent.hpp"

/// Included once by each kernel file, after it has defined COVEY_KERNELS.
namespace covey::models::COVEY_KERNELS {

constexpr Kernels make_table(const char* instruction_set) {
  return {.instruction_set = instruction_set,
          .vector_floats = kWidth,
          .gemm = gemm,
          .pack_strips = pack_strips,
          .gemm_strips = gemm_strips,
          .gemm_panels = gemm_panels,
          .add_column_sums = add_column_sums,
          .relu = relu,
          .relu_backward = relu_backward,
          .scale = scale,
          .add_scaled = add_scaled,
          .pull = pull,
          .softmax = softmax,
          .gelu = gelu,
          .gelu_backward = gelu_backward,
          .tanh = tanh,
          .tanh_backward = tanh_backward,
          .sigmoid = sigmoid,
          .sigmoid_backward = sigmoid_backward,
          .dropout = dropout,
          .squared_error = squared_error,
          .squared_norm = squared_norm,
          .momentum_step = momentum_step,
          .adam_step = adam_step,
          .lstm_step = lstm_step,
          .lstm_step_backward = lstm_step_backward,
          .gru_step = gru_step,
          .gru_step_backward = gru_step_backward,
          .max_pool = max_pool,
          .max_pool_backward = max_pool_backward,
          .average_pool = average_pool,
          .average_pool_backward = average_pool_backward,
          .column_moments = column_moments,
          .map_columns = map_columns,
          .column_products = column_products,
          .normalise_backward = normalise_backward,
          .part_sums = part_sums,
          .depthwise = depthwise,
          .depthwise_input_gradient = depthwise_input_gradient,
          .depthwise_weight_gradient = depthwise_weight_gradient,
          .convolve = convolve,
          .list_gradient = list_gradient,
          .convolve_weight_gradient = convolve_weight_gradient,
          .convolve_input_gradient = convolve_input_gradient,
          .max_magnitude = max_magnitude,
          .max_column_magnitudes = max_column_magnitudes,
          .fake_quantise_columns = fake_quantise_columns,
          .fake_quantise = fake_quantise,
          .pass_within = pass_within};
}

}  // namespace covey::models::COVEY_KERNELS
