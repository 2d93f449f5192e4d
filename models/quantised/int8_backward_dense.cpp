#include <algorithm>
#include <cstring>

#include "int8_backward.hpp"

namespace covey::models {

namespace {

float pass_down_dense(const Int8Pass& pass, const Int8DenseStage& stage, const Int8Below& down,
                      const std::int8_t* d, float gradient_scale, const DenseBackward& frame,
                      std::uint32_t key) {
  const Int8Weights& weights = stage.weights;
  pass.kernels.spread_gradient(d, pass.batch, weights.padded_outputs(), frame.spread,
                               frame.corrections);
  pass.kernels.input_gradient({.gradient = frame.spread,
                               .corrections = frame.corrections,
                               .batch = pass.batch,
                               .quads = weights.quads(),
                               .outputs = weights.padded_outputs(),
                               .pitch = down.pitch,
                               .weights = pass.parameters.values(weights),
                               .sums = frame.sums});
  for (std::size_t i = 0; i < down.pitch; ++i) {
    frame.scale[i] = i < stage.inputs() ? gradient_scale * down.scales[i % down.channels] : 0.0f;
  }
  float largest = 0;
  for (std::size_t b = 0; b < pass.batch; ++b) {
    const std::int32_t* sums = frame.sums + b * down.pitch;
    const std::int8_t* mask = down.activations + b * down.pitch;
    largest = std::max(
        largest, down.masked ? pass.kernels.largest_masked(sums, down.pitch, frame.scale, mask)
                             : pass.kernels.largest(sums, 1, down.pitch, frame.scale, false));
  }
  const float scale = int8_scale_for(largest);
  for (std::size_t i = 0; i < down.pitch; ++i)
    frame.factor[i] = frame.scale[i] / scale * kStepFraction;
  for (std::size_t b = 0; b < pass.batch; ++b) {
    pass.kernels.quantise_randomly(frame.sums + b * down.pitch, down.pitch, frame.factor,
                                   down.masked ? down.activations + b * down.pitch : nullptr, key,
                                   static_cast<std::uint32_t>(b * down.pitch),
                                   down.out + b * down.pitch);
  }
  return scale;
}

}  // namespace

float backward_dense(const Int8Pass& pass, const Int8DenseStage& stage, std::size_t s,
                     std::size_t from, float gradient_scale, const Int8Descent& descent) {
  const Int8Weights& weights = stage.weights;
  const std::size_t outputs = weights.padded_outputs();
  const bool passes_down = s > pass.plan.first_trained;
  Carver carver(pass.buffers.scratch());
  const DenseBackward frame(carver, stage, pass.batch, pass.kernels.operand_bytes, passes_down);
  const std::int8_t* d = pass.buffers.gradient(from);
  float scale = 1;
  if (passes_down) {
    scale = pass_down_dense(pass, stage, below(pass, s, from), d, gradient_scale, frame,
                            descent.key(s, kGradient));
  }
  proximal_pull(pass, s, descent);
  // the biases' gradient, in the room of the offsets
  std::fill_n(frame.offsets, outputs, 0);
  for (std::size_t b = 0; b < pass.batch; ++b) {
    for (std::size_t o = 0; o < outputs; ++o) frame.offsets[o] += d[b * outputs + o];
  }
  step_biases(pass, weights, frame.offsets, gradient_scale, descent.learning_rate);
  const std::size_t batch_quads = (pass.batch + kQuad - 1) / kQuad;
  pass.kernels.transpose_inputs(pass.buffers.activations(s), pass.batch,
                                example_pitch(stage.inputs()), stage.inputs(), frame.inputs,
                                frame.live);
  pass.kernels.interleave(d, pass.batch, outputs, frame.gradient);
  pass.kernels.gradient_offsets(frame.gradient, batch_quads, outputs, frame.offsets);
  weight_steps(pass, s, gradient_scale, descent, frame.step);
  pass.kernels.dense_step({.inputs = frame.inputs,
                           .live = frame.live,
                           .gradient = frame.gradient,
                           .offsets = frame.offsets,
                           .batch_quads = batch_quads,
                           .quads = weights.quads(),
                           .outputs = outputs,
                           .rounding = {frame.step, descent.key(s, kWeights)},
                           .weights = pass.parameters.values(weights)});
  return scale;
}

}  // namespace covey::models
