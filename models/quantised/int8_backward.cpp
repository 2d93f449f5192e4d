#include "int8_backward.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace covey::models {

namespace {

/// What a weight's gradient sums over.
std::size_t terms_of(const Int8Stage& stage, std::size_t batch) {
  const auto* convolution = std::get_if<Int8ConvolutionStage>(&stage);
  return convolution == nullptr ? batch : batch * convolution->positions();
}

void backward_without_weights(const Int8Pass& pass, std::size_t s, const std::int8_t* dy,
                              std::int8_t* dx) {
  const Int8Stage& stage = pass.plan.stages[s];
  const std::int8_t* x = pass.buffers.activations(s);
  bool masked = true;
  std::size_t size = 0;
  if (const auto* relu = std::get_if<Int8ReluStage>(&stage)) {
    size = pass.batch * example_pitch(relu->size);
    std::memcpy(dx, dy, size);
  } else {
    const auto& pool = std::get<Int8PoolStage>(stage);
    const std::size_t in = example_pitch(pool.inputs());
    size = pass.batch * in;
    for (std::size_t b = 0; b < pass.batch; ++b) {
      pool_backward(pool, x + b * in, dy + b * example_pitch(pool.values()), dx + b * in);
    }
    masked = stage_relu(pass.plan.stages[s - 1]);  // of the stage that made x
  }
  for (std::size_t i = 0; masked && i < size; ++i) dx[i] = x[i] > 0 ? dx[i] : std::int8_t{0};
}

}  // namespace

void weight_steps(const Int8Pass& pass, std::size_t s, float gradient_scale,
                  const Int8Descent& descent, float* step) {
  const Int8Weights& weights = *stage_weights(pass.plan.stages[s]);
  const float* scales = pass.parameters.scales(weights);
  const float most = kMostStepSum / (kMostInt8 * kMostInt8 *
                                     static_cast<float>(terms_of(pass.plan.stages[s], pass.batch)));
  for (std::size_t o = 0; o < weights.padded_outputs(); ++o) {
    const float rate =
        descent.learning_rate * pass.buffers.scales[s] * gradient_scale * kStepFraction;
    step[o] = o < weights.outputs ? std::min(rate / scales[o] / scales[o], most) : 0.0f;
  }
}

void proximal_pull(const Int8Pass& pass, std::size_t s, const Int8Descent& descent) {
  if (descent.proximal_mu <= 0) return;
  const Int8Weights& weights = *stage_weights(pass.plan.stages[s]);
  const float rate = std::min(descent.learning_rate * descent.proximal_mu, 1.0f);
  pass.kernels.proximal_step(pass.parameters.values(weights), descent.anchor->values(weights),
                             weights.bytes(), rate * kStepFraction, descent.key(s, kProximal));
  float* biases = pass.parameters.biases(weights);
  const float* anchor = descent.anchor->biases(weights);
  for (std::size_t o = 0; o < weights.outputs; ++o) biases[o] -= rate * (biases[o] - anchor[o]);
}

void step_biases(const Int8Pass& pass, const Int8Weights& weights, const std::int32_t* sums,
                 float gradient_scale, float learning_rate) {
  const float* scales = pass.parameters.scales(weights);
  float* biases = pass.parameters.biases(weights);
  for (std::size_t o = 0; o < weights.outputs; ++o) {
    biases[o] -= learning_rate * (gradient_scale / scales[o]) * static_cast<float>(sums[o]);
  }
}

Int8Below below(const Int8Pass& pass, std::size_t s, std::size_t from) {
  const Int8Weights& weights = pass.plan.weights_below(s);
  return {.scales = pass.parameters.scales(weights),
          .channels = weights.outputs,
          .activations = pass.buffers.activations(s),
          .masked = stage_relu(pass.plan.stages[s - 1]),
          .out = pass.buffers.gradient(1 - from),
          .pitch = example_pitch(stage_values(pass.plan.stages[s - 1]))};
}

std::uint32_t Int8Descent::key(std::size_t stage, std::uint32_t purpose) const {
  // splitmix64's finaliser (Steele, Lea and Flood 2014)
  std::uint64_t x = seed + 0x9E3779B97F4A7C15u * (stage * 4 + purpose);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return static_cast<std::uint32_t>((x ^ (x >> 31)) >> 32);
}

float quantise_loss_gradient(const Int8Pass& pass, const Int8Descent& descent) {
  const std::size_t last = pass.plan.stages.size() - 1;
  const Int8DenseStage& stage = pass.plan.last();
  const float* scales = pass.parameters.scales(stage.weights);
  const std::size_t classes = stage.values();
  const std::size_t padded = stage.weights.padded_outputs();
  const float* gradient = pass.buffers.logits();
  float largest = 0;
  for (std::size_t i = 0; i < pass.batch * classes; ++i) {
    largest = std::max(largest, std::abs(gradient[i] * scales[i % classes]));
  }
  const float scale = int8_scale_for(largest);
  std::int8_t* out = pass.buffers.gradient(0);
  // room for one row as sums: the gradient in 2^-16 of the new unit is rounded like any other
  Carver carver(pass.buffers.scratch());
  auto* row = carver.take<std::int32_t>(padded);
  auto* ones = carver.take<float>(padded);
  std::fill_n(ones, padded, 1.0f);
  std::fill_n(row, padded, 0);
  for (std::size_t b = 0; b < pass.batch; ++b) {
    for (std::size_t o = 0; o < classes; ++o) {
      const float value = gradient[b * classes + o] * scales[o] / scale * kStepFraction;
      row[o] = static_cast<std::int32_t>(std::nearbyint(value));
    }
    pass.kernels.quantise_randomly(row, padded, ones, nullptr, descent.key(last + 1, kGradient),
                                   static_cast<std::uint32_t>(b * padded), out + b * padded);
  }
  return scale;
}

float backward(const Int8Pass& pass, std::size_t s, std::size_t from, float gradient_scale,
               const Int8Descent& descent) {
  const Int8Stage& stage = pass.plan.stages[s];
  if (const auto* dense = std::get_if<Int8DenseStage>(&stage)) {
    return backward_dense(pass, *dense, s, from, gradient_scale, descent);
  }
  if (const auto* convolution = std::get_if<Int8ConvolutionStage>(&stage)) {
    return backward_convolution(pass, *convolution, s, from, gradient_scale, descent);
  }
  backward_without_weights(pass, s, pass.buffers.gradient(from), pass.buffers.gradient(1 - from));
  return gradient_scale;
}

void pool_backward(const Int8PoolStage& stage, const std::int8_t* x, const std::int8_t* dy,
                   std::int8_t* dx) {
  std::memset(dx, 0, example_pitch(stage.inputs()));
  for (std::size_t py = 0; py < stage.height / stage.window; ++py) {
    for (std::size_t px = 0; px < stage.width / stage.window; ++px, dy += stage.channels) {
      for (std::size_t c = 0; c < stage.channels; ++c) {
        std::size_t best = 0;
        for (std::size_t i = 0; i < stage.window * stage.window; ++i) {
          const std::size_t row = py * stage.window + i / stage.window;
          const std::size_t column = px * stage.window + i % stage.window;
          const std::size_t at = (row * stage.width + column) * stage.channels + c;
          if (i == 0 || x[at] > x[best]) best = at;
        }
        dx[best] = dy[c];
      }
    }
  }
}

}  // namespace covey::models
