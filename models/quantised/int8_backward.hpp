#pragma once

/// What the backward passes of stages with weights share.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "int8_stages.hpp"

namespace covey::models {

inline constexpr float kMostInt8 = 127;
/// Weight steps and stochastically rounded values count in 2^-16.
inline constexpr float kStepFraction = 0x1p16f;
/// A sum times its factor stays within 2^30 (Int8Rounding).
inline constexpr float kMostStepSum = 0x1p30f;
enum Int8Purpose : std::uint32_t { kGradient = 1, kWeights = 2, kProximal = 3 };

/// The scale that maps the largest magnitude to 127; 1 where everything is zero.
/// Never 0: the smallest gradients would be divided by it.
inline float int8_scale_for(float largest) {
  return largest > 0 ? std::max(largest / kMostInt8, std::numeric_limits<float>::min()) : 1.0f;
}

/// Where a gradient at the inputs of stage s goes: units of the scales of the weights that made
/// them.
struct Int8Below {
  const float* scales;  ///< per channel of the stage that the gradient belongs to
  std::size_t channels;
  const std::int8_t* activations;
  bool masked;  ///< by relu: no gradient where the activation is zero
  std::int8_t* out;
  std::size_t pitch;
};
Int8Below below(const Int8Pass& pass, std::size_t stage, std::size_t from);

/// step[o] = learning_rate * s_x * s_d / s_w[o], in 2^-16 weight steps per unit of the sums, where
/// the gradient's unit is gradient_scale / s_w[o]: Lin et al. 2022, eq. 7, with both factors
/// s_w^-1.
void weight_steps(const Int8Pass& pass, std::size_t stage, float gradient_scale,
                  const Int8Descent& descent, float* step);
/// w <- w - learning_rate * mu * (w - anchor), before the gradient's step.
void proximal_pull(const Int8Pass& pass, std::size_t stage, const Int8Descent& descent);
/// sums[o]: of the int8 gradients of output o.
void step_biases(const Int8Pass& pass, const Int8Weights& weights, const std::int32_t* sums,
                 float gradient_scale, float learning_rate);

/// As backward() in int8_stages.hpp.
float backward_dense(const Int8Pass& pass, const Int8DenseStage& stage, std::size_t s,
                     std::size_t from, float gradient_scale, const Int8Descent& descent);
float backward_convolution(const Int8Pass& pass, const Int8ConvolutionStage& stage, std::size_t s,
                           std::size_t from, float gradient_scale, const Int8Descent& descent);

}  // namespace covey::models
