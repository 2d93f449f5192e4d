#include <algorithm>
#include <cstring>

#include "int8_backward.hpp"

namespace covey::models {

namespace {

/// One example's gradient at the convolution's own outputs: [height][width][padded outputs].
void unpool(const Int8ConvolutionStage& stage, const std::int8_t* d, const std::uint8_t* where,
            std::int8_t* out) {
  const std::size_t outputs = stage.weights.padded_outputs();
  std::memset(out, 0, stage.positions() * outputs);
  if (stage.pool == 1) {
    for (std::size_t p = 0; p < stage.positions(); ++p) {
      std::memcpy(out + p * outputs, d + p * stage.filters(), stage.filters());
    }
    return;
  }
  std::size_t offset[128];  // where -> distance from the window's first position
  for (std::size_t i = 0; i < stage.pool * stage.pool; ++i) {
    offset[i] = (i / stage.pool * stage.width + i % stage.pool) * outputs;
  }
  for (std::size_t p = 0; p < stage.pooled_positions(); ++p) {
    const std::size_t row = p / stage.pooled_width() * stage.pool;
    const std::size_t column = p % stage.pooled_width() * stage.pool;
    std::int8_t* window = out + (row * stage.width + column) * outputs;
    for (std::size_t c = 0; c < stage.filters(); ++c) {
      window[offset[where[p * outputs + c]] + c] = d[p * stage.filters() + c];
    }
  }
}

/// Adds one example to the sums of the weights' and biases' gradients.
void add_window_gradient(const Int8Kernels& kernels, const Int8ConvolutionStage& stage,
                         const std::int8_t* x, const ConvolutionBackward& frame) {
  const std::size_t outputs = stage.weights.padded_outputs();
  const std::size_t position_quads = (stage.width + kQuad - 1) / kQuad;
  const std::size_t row_values = stage.width * stage.channels;
  for (std::size_t first = 0; first < stage.height; first += frame.band_rows) {
    const std::size_t rows = std::min(frame.band_rows, stage.height - first);
    for (std::size_t r = 0; r < rows + stage.kernel - 1; ++r) {
      // row `first + r` of the padded image
      const std::size_t y = first + r - stage.pad_before();
      std::memset(frame.input_row, 0, (frame.starts + kQuad) * stage.channels + 16);
      if (y < stage.height) {  // also false for a row above the image, which wraps around
        std::memcpy(frame.input_row + stage.pad_before() * stage.channels, x + y * row_values,
                    row_values);
      }
      kernels.window_quads(frame.input_row, stage.channels, frame.starts * stage.channels,
                           frame.inputs + r * frame.inputs_row * kernels.operand_bytes);
    }
    for (std::size_t r = 0; r < rows; ++r) {
      kernels.interleave(frame.gradient + (first + r) * stage.width * outputs, stage.width, outputs,
                         frame.interleaved + r * position_quads * outputs * kQuad);
    }
    kernels.gradient_offsets(frame.interleaved, rows * position_quads, outputs, frame.offsets);
    kernels.window_gradient({.inputs = frame.inputs,
                             .row = frame.inputs_row,
                             .step = kQuad * stage.channels * kQuad,
                             .gradient = frame.interleaved,
                             .offsets = frame.offsets,
                             .image_rows = rows,
                             .position_quads = position_quads,
                             .kernel = stage.kernel,
                             .run = stage.weights.run,
                             .outputs = outputs,
                             .sums = frame.weight_sums});
  }
  for (std::size_t p = 0; p < stage.positions(); ++p) {
    const std::int8_t* d = frame.gradient + p * outputs;
    for (std::size_t o = 0; o < outputs; ++o) frame.bias_sums[o] += d[o];
  }
}

/// The weights as a convolution from filters to channels has them: turned by 180 degrees, and
/// inputs and outputs exchanged.
void turn_weights(const Int8ConvolutionStage& stage, const std::int8_t* values,
                  const ConvolutionBackward& frame) {
  const Int8Weights& from = stage.weights;
  const Int8Weights& to = frame.turned;
  std::memset(frame.turned_weights, 0, to.bytes());
  const std::size_t last = stage.kernel - 1;
  const bool whole_quads = stage.channels % kQuad == 0 && stage.filters() % kQuad == 0;
  const std::size_t block = whole_quads ? kQuad : 1;
  for (std::size_t tap = 0; tap < stage.kernel * stage.kernel; ++tap) {
    const std::size_t ky = tap / stage.kernel;
    const std::size_t kx = tap % stage.kernel;
    for (std::size_t c = 0; c < stage.channels; c += block) {
      for (std::size_t o = 0; o < stage.filters(); o += block) {
        const std::int8_t* source = values + from.index(ky, kx * stage.channels + c, o);
        std::int8_t* target =
            frame.turned_weights + to.index(last - ky, (last - kx) * stage.filters() + o, c);
        if (!whole_quads) {
          *target = *source;
          continue;
        }
        for (std::size_t i = 0; i < kQuad; ++i) {
          for (std::size_t k = 0; k < kQuad; ++k) target[i * kQuad + k] = source[k * kQuad + i];
        }
      }
    }
  }
}

/// The sums of one example's gradient at the inputs: [positions][padded channels].
void input_sums(const Int8Kernels& kernels, const Int8ConvolutionStage& stage,
                const ConvolutionBackward& frame, std::int32_t* sums) {
  const std::size_t channels = frame.turned.padded_outputs();
  // what the forward pass pads in front, its transpose pads behind
  pad_image(kernels,
            {stage.height, stage.width, stage.filters(), stage.kernel,
             stage.kernel - 1 - stage.pad_before(), stage.weights.padded_outputs()},
            frame.gradient, frame.image);
  for (std::size_t y = 0; y < stage.height; ++y) {
    kernels.product({.operand = frame.image + y * frame.padded_row * kernels.operand_bytes,
                     .step = stage.filters(),
                     .row = frame.padded_row,
                     .positions = stage.width,
                     .rows = frame.turned.rows,
                     .quads = frame.turned.quads(),
                     .outputs = channels,
                     .weights = frame.turned_weights,
                     .initial = frame.initial,
                     .sums = sums + y * stage.width * channels});
  }
}

float pass_down_convolution(const Int8Pass& pass, const Int8ConvolutionStage& stage,
                            const Int8Below& down, float gradient_scale,
                            const ConvolutionBackward& frame, std::uint32_t key) {
  const std::size_t channels = frame.turned.padded_outputs();
  const std::size_t positions = stage.positions();
  for (std::size_t c = 0; c < channels; ++c) {
    frame.scale[c] = c < stage.channels ? gradient_scale * down.scales[c % down.channels] : 0.0f;
  }
  float largest = 0;
  for (std::size_t b = 0; b < pass.batch; ++b) {
    const std::int32_t* sums = frame.sums + b * positions * channels;
    const std::int8_t* mask = down.activations + b * down.pitch;
    if (!down.masked) {
      largest =
          std::max(largest, pass.kernels.largest(sums, positions, channels, frame.scale, false));
      continue;
    }
    for (std::size_t p = 0; p < positions; ++p) {
      largest =
          std::max(largest, pass.kernels.largest_masked(sums + p * channels, channels, frame.scale,
                                                        mask + p * stage.channels));
    }
  }
  const float scale = int8_scale_for(largest);
  for (std::size_t c = 0; c < channels; ++c)
    frame.factor[c] = frame.scale[c] / scale * kStepFraction;
  for (std::size_t b = 0; b < pass.batch; ++b) {
    for (std::size_t p = 0; p < positions; ++p) {
      const std::size_t row = b * positions + p;
      const std::size_t at = b * down.pitch + p * stage.channels;
      pass.kernels.quantise_randomly(frame.sums + row * channels, channels, frame.factor,
                                     down.masked ? down.activations + at : nullptr, key,
                                     static_cast<std::uint32_t>(row * channels), down.out + at);
    }
  }
  return scale;
}

}  // namespace

float backward_convolution(const Int8Pass& pass, const Int8ConvolutionStage& stage, std::size_t s,
                           std::size_t from, float gradient_scale, const Int8Descent& descent) {
  const Int8Kernels& kernels = pass.kernels;
  const Int8Weights& weights = stage.weights;
  const bool passes_down = s > pass.plan.first_trained;
  const std::size_t outputs = weights.padded_outputs();
  Carver carver(pass.buffers.scratch());
  const ConvolutionBackward frame(carver, stage, pass.batch, kernels.operand_bytes, passes_down);
  const std::size_t all_quads = weights.rows * weights.quads();
  std::fill_n(frame.weight_sums, all_quads * kQuad * outputs, 0);
  std::fill_n(frame.bias_sums, outputs, 0);
  if (passes_down) {
    turn_weights(stage, pass.parameters.values(weights), frame);
    std::fill_n(frame.initial, frame.turned.padded_outputs(), 0);
    kernels.offset_initial(frame.turned_weights, frame.turned.rows * frame.turned.quads(),
                           frame.turned.padded_outputs(), frame.initial);
  }
  const std::int8_t* d = pass.buffers.gradient(from);
  for (std::size_t b = 0; b < pass.batch; ++b) {
    const std::size_t pooled = stage.pool > 1 ? b * stage.pooled_positions() * outputs : 0;
    unpool(stage, d + b * example_pitch(stage.values()), pass.buffers.where(s) + pooled,
           frame.gradient);
    add_window_gradient(kernels, stage,
                        pass.buffers.activations(s) + b * example_pitch(stage.inputs()), frame);
    if (passes_down) {
      input_sums(kernels, stage, frame,
                 frame.sums + b * stage.positions() * frame.turned.padded_outputs());
    }
  }
  float scale = 1;
  if (passes_down) {
    scale = pass_down_convolution(pass, stage, below(pass, s, from), gradient_scale, frame,
                                  descent.key(s, kGradient));
  }
  proximal_pull(pass, s, descent);
  step_biases(pass, weights, frame.bias_sums, gradient_scale, descent.learning_rate);
  weight_steps(pass, s, gradient_scale, descent, frame.step);
  kernels.weight_step(frame.weight_sums, all_quads, outputs, {frame.step, descent.key(s, kWeights)},
                      pass.parameters.values(weights));
  return scale;
}

}  // namespace covey::models
