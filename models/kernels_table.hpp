#pragma once

#include "kernels_convolution.hpp"
#include "kernels_elementwise.hpp"
#include "kernels_gemm.hpp"

/// Included once by each kernel file, after it has defined COVEY_KERNELS.
namespace covey::models::COVEY_KERNELS {

constexpr Kernels make_table(const char* instruction_set) {
  return {.instruction_set = instruction_set,
          .vector_floats = kWidth,
          .gemm = gemm,
          .add_column_sums = add_column_sums,
          .relu = relu,
          .relu_backward = relu_backward,
          .scale = scale,
          .add_scaled = add_scaled,
          .pull = pull,
          .softmax = softmax,
          .max_pool = max_pool,
          .max_pool_backward = max_pool_backward,
          .convolve = convolve,
          .list_gradient = list_gradient,
          .convolve_weight_gradient = convolve_weight_gradient,
          .convolve_input_gradient = convolve_input_gradient};
}

}  // namespace covey::models::COVEY_KERNELS
