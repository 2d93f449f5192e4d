#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "int8_stages.hpp"

namespace covey::models {

namespace {

constexpr float kMost = 127;
/// A bias in units of its sums; with it a sum of 65,536 products stays below 2^31.
constexpr float kMostInitial = 0x1p29f;

/// scale[o] = what one unit of a sum is worth; initial[o] = the bias in that unit.
void biases_as_sums(const Int8Weights& weights, const Int8Storage& parameters, float input_scale,
                    float* scale, std::int32_t* initial) {
  const float* weight_scales = parameters.scales(weights);
  const float* biases = parameters.biases(weights);
  const std::size_t padded = weights.padded_outputs();
  for (std::size_t o = 0; o < padded; ++o) {
    scale[o] = input_scale * weight_scales[o];
    const float units = o < weights.outputs && scale[o] > 0 ? biases[o] / scale[o] : 0.0f;
    initial[o] =
        static_cast<std::int32_t>(std::nearbyint(std::clamp(units, -kMostInitial, kMostInitial)));
  }
}

/// The scale that maps the largest magnitude to 127; 1 where everything is zero.
/// Never 0: the smallest activations would be divided by it.
float scale_for(float largest) {
  return largest > 0 ? std::max(largest / kMost, std::numeric_limits<float>::min()) : 1.0f;
}

void factors_for(const float* scale, std::size_t n, float output_scale, float* factor) {
  for (std::size_t o = 0; o < n; ++o) factor[o] = scale[o] / output_scale;
}

void logits_from(const Int8Pass& pass, const Int8DenseStage& stage, const DenseForward& frame) {
  const std::size_t padded = stage.weights.padded_outputs();
  float* logits = pass.buffers.logits();
  for (std::size_t b = 0; b < pass.batch; ++b) {
    for (std::size_t o = 0; o < stage.values(); ++o) {
      *logits++ = static_cast<float>(frame.sums[b * padded + o]) * frame.scale[o];
    }
  }
}

void forward_dense(const Int8Pass& pass, const Int8DenseStage& stage, std::size_t s) {
  Carver carver(pass.buffers.scratch());
  const DenseForward frame(carver, stage, pass.batch, pass.kernels.operand_bytes);
  const Int8Weights& weights = stage.weights;
  const std::size_t padded = weights.padded_outputs();
  const std::int8_t* values = pass.parameters.values(weights);
  biases_as_sums(weights, pass.parameters, pass.buffers.scales[s], frame.scale, frame.initial);
  prepare_initial(pass.kernels, weights, values, frame.initial);
  dense_sums(pass.kernels, stage, values, pass.buffers.activations(s), pass.batch, frame);
  if (s + 1 == pass.plan.stages.size()) return logits_from(pass, stage, frame);
  const float scale =
      scale_for(pass.kernels.largest(frame.sums, pass.batch, padded, frame.scale, stage.relu));
  pass.buffers.scales[s + 1] = scale;
  factors_for(frame.scale, padded, scale, frame.factor);
  std::int8_t* out = pass.buffers.activations(s + 1);
  for (std::size_t b = 0; b < pass.batch; ++b) {
    pass.kernels.quantise(frame.sums + b * padded, padded, frame.factor, stage.relu,
                          out + b * padded);
  }
}

void forward_convolution(const Int8Pass& pass, const Int8ConvolutionStage& stage, std::size_t s) {
  Carver carver(pass.buffers.scratch());
  const ConvolutionForward frame(carver, stage, pass.batch, pass.kernels.operand_bytes);
  const Int8Weights& weights = stage.weights;
  const std::size_t padded = weights.padded_outputs();
  const std::size_t positions = stage.pooled_positions();
  const std::int8_t* values = pass.parameters.values(weights);
  biases_as_sums(weights, pass.parameters, pass.buffers.scales[s], frame.scale, frame.initial);
  prepare_initial(pass.kernels, weights, values, frame.initial);
  const std::int8_t* in = pass.buffers.activations(s);
  for (std::size_t b = 0; b < pass.batch; ++b) {
    std::uint8_t* where = pass.buffers.layout.training && stage.pool > 1
                              ? pass.buffers.where(s) + b * positions * padded
                              : nullptr;
    convolution_sums(pass.kernels, stage, values, in + b * example_pitch(stage.inputs()), frame,
                     where, frame.sums + b * positions * padded);
  }
  const float scale = scale_for(
      pass.kernels.largest(frame.sums, pass.batch * positions, padded, frame.scale, stage.relu));
  pass.buffers.scales[s + 1] = scale;
  factors_for(frame.scale, padded, scale, frame.factor);
  std::int8_t* out = pass.buffers.activations(s + 1);
  for (std::size_t b = 0; b < pass.batch; ++b, out += example_pitch(stage.values())) {
    const std::int32_t* sums = frame.sums + b * positions * padded;
    // a position's surplus lanes are zeros that the next position overwrites
    for (std::size_t p = 0; p < positions; ++p) {
      pass.kernels.quantise(sums + p * padded, padded, frame.factor, stage.relu,
                            out + p * stage.filters());
    }
  }
}

}  // namespace

bool quantise_inputs(const Int8Pass& pass, const float* inputs) {
  const std::size_t size = pass.plan.inputs;
  const float largest = pass.kernels.largest_float(inputs, pass.batch * size);
  if (!std::isfinite(largest)) return false;
  const float scale = scale_for(largest);
  pass.buffers.scales[0] = scale;
  const float factor = 1.0f / scale;
  std::int8_t* out = pass.buffers.activations(0);
  for (std::size_t b = 0; b < pass.batch; ++b) {
    std::int8_t* row = out + b * example_pitch(size);
    pass.kernels.quantise_floats(inputs + b * size, size, factor, row);
    std::memset(row + size, 0, example_pitch(size) - size);
  }
  return true;
}

void forward(const Int8Pass& pass, std::size_t s) {
  const Int8Stage& stage = pass.plan.stages[s];
  if (const auto* dense = std::get_if<Int8DenseStage>(&stage))
    return forward_dense(pass, *dense, s);
  if (const auto* convolution = std::get_if<Int8ConvolutionStage>(&stage)) {
    return forward_convolution(pass, *convolution, s);
  }
  const std::int8_t* x = pass.buffers.activations(s);
  std::int8_t* y = pass.buffers.activations(s + 1);
  pass.buffers.scales[s + 1] = pass.buffers.scales[s];
  forward_without_weights(stage, pass.batch, x, y);
}

void forward_without_weights(const Int8Stage& stage, std::size_t batch, const std::int8_t* x,
                             std::int8_t* y) {
  if (const auto* relu = std::get_if<Int8ReluStage>(&stage)) {
    const std::size_t size = batch * example_pitch(relu->size);
    for (std::size_t i = 0; i < size; ++i) y[i] = std::max<std::int8_t>(x[i], 0);
    return;
  }
  const auto& pool = std::get<Int8PoolStage>(stage);
  for (std::size_t b = 0; b < batch; ++b) {
    pool_forward(pool, x + b * example_pitch(pool.inputs()), y + b * example_pitch(pool.values()));
  }
}

void prepare_initial(const Int8Kernels& kernels, const Int8Weights& weights,
                     const std::int8_t* values, std::int32_t* initial) {
  kernels.offset_initial(values, weights.rows * weights.quads(), weights.padded_outputs(), initial);
}

void dense_sums(const Int8Kernels& kernels, const Int8DenseStage& stage, const std::int8_t* values,
                const std::int8_t* inputs, std::size_t batch, const DenseForward& frame) {
  const std::size_t pitch = frame.operand_pitch;
  for (std::size_t b = 0; b < batch; ++b) {
    kernels.to_operand(inputs + b * example_pitch(stage.inputs()), pitch,
                       frame.operand + b * pitch * kernels.operand_bytes);
  }
  kernels.product({.operand = frame.operand,
                   .step = pitch,
                   .row = 0,
                   .positions = batch,
                   .rows = 1,
                   .quads = stage.weights.quads(),
                   .outputs = stage.weights.padded_outputs(),
                   .weights = values,
                   .initial = frame.initial,
                   .sums = frame.sums});
}

void pad_image(const Int8Kernels& kernels, const PaddedImage& shape, const std::int8_t* image,
               std::byte* padded) {
  const std::size_t bytes = kernels.operand_bytes;
  const std::size_t row = (shape.width + shape.kernel - 1) * shape.channels;
  const std::size_t rows = shape.height + shape.kernel - 1;
  std::memset(padded, kernels.zero_byte, (row * rows + kQuad) * bytes);
  for (std::size_t y = 0; y < shape.height; ++y) {
    std::byte* to =
        padded + ((y + shape.pad_before) * row + shape.pad_before * shape.channels) * bytes;
    if (shape.pitch == shape.channels) {
      kernels.to_operand(image + y * shape.width * shape.pitch, shape.width * shape.channels, to);
      continue;
    }
    for (std::size_t x = 0; x < shape.width; ++x) {
      kernels.to_operand(image + (y * shape.width + x) * shape.pitch, shape.channels,
                         to + x * shape.channels * bytes);
    }
  }
}

void convolution_sums(const Int8Kernels& kernels, const Int8ConvolutionStage& stage,
                      const std::int8_t* values, const std::int8_t* inputs,
                      const ConvolutionForward& frame, std::uint8_t* where, std::int32_t* sums) {
  const std::size_t padded = stage.weights.padded_outputs();
  pad_image(
      kernels,
      {stage.height, stage.width, stage.channels, stage.kernel, stage.pad_before(), stage.channels},
      inputs, frame.image);
  const auto image_row = [&](std::size_t y, std::int32_t* out) {
    kernels.product({.operand = frame.image + y * frame.padded_row * kernels.operand_bytes,
                     .step = stage.channels,
                     .row = frame.padded_row,
                     .positions = stage.width,
                     .rows = stage.weights.rows,
                     .quads = stage.weights.quads(),
                     .outputs = padded,
                     .weights = values,
                     .initial = frame.initial,
                     .sums = out});
  };
  if (stage.pool == 1) {
    for (std::size_t y = 0; y < stage.height; ++y) image_row(y, sums + y * stage.width * padded);
    return;
  }
  const std::size_t pooled_row = stage.pooled_width() * padded;
  for (std::size_t y = 0; y < stage.height / stage.pool; ++y) {
    for (std::size_t k = 0; k < stage.pool; ++k) {
      image_row(y * stage.pool + k, frame.rows + k * stage.width * padded);
    }
    kernels.max_pool(frame.rows, stage.width, padded, stage.pool, sums + y * pooled_row,
                     where == nullptr ? frame.where : where + y * pooled_row);
  }
}

void pool_forward(const Int8PoolStage& stage, const std::int8_t* x, std::int8_t* y) {
  for (std::size_t py = 0; py < stage.height / stage.window; ++py) {
    for (std::size_t px = 0; px < stage.width / stage.window; ++px, y += stage.channels) {
      for (std::size_t c = 0; c < stage.channels; ++c) {
        std::int8_t most = -128;
        for (std::size_t i = 0; i < stage.window * stage.window; ++i) {
          const std::size_t row = py * stage.window + i / stage.window;
          const std::size_t column = px * stage.window + i % stage.window;
          most = std::max(most, x[(row * stage.width + column) * stage.channels + c]);
        }
        y[c] = most;
      }
    }
  }
}

}  // namespace covey::models
