#include "int8_scratch.hpp"

#include <algorithm>
#include <utility>

namespace covey::models {

namespace {

/// Window quads of a band of image rows stay in the nearest caches.
constexpr std::size_t kBandBytes = 64 * 1024;

}  // namespace

DenseForward::DenseForward(Carver& carver, const Int8DenseStage& stage, std::size_t batch,
                           std::size_t operand_bytes)
    : operand_pitch(stage.weights.quads() * kQuad) {
  const std::size_t outputs = stage.weights.padded_outputs();
  operand = carver.take<std::byte>(batch * operand_pitch * operand_bytes);
  initial = carver.take<std::int32_t>(outputs);
  scale = carver.take<float>(outputs);
  factor = carver.take<float>(outputs);
  sums = carver.take<std::int32_t>(batch * outputs);
}

ConvolutionForward::ConvolutionForward(Carver& carver, const Int8ConvolutionStage& stage,
                                       std::size_t batch, std::size_t operand_bytes)
    : padded_row((stage.width + stage.kernel - 1) * stage.channels),
      padded_rows(stage.height + stage.kernel - 1) {
  const std::size_t outputs = stage.weights.padded_outputs();
  image_values = padded_row * padded_rows + kQuad;
  image = carver.take<std::byte>(image_values * operand_bytes);
  initial = carver.take<std::int32_t>(outputs);
  scale = carver.take<float>(outputs);
  factor = carver.take<float>(outputs);
  rows = carver.take<std::int32_t>(stage.pool > 1 ? stage.pool * stage.width * outputs : 0);
  where = carver.take<std::uint8_t>(stage.pool > 1 ? stage.pooled_width() * outputs : 0);
  sums = carver.take<std::int32_t>(batch * stage.pooled_positions() * outputs);
}

DenseBackward::DenseBackward(Carver& carver, const Int8DenseStage& stage, std::size_t batch,
                             std::size_t operand_bytes, bool passes_down) {
  const Int8Weights& weights = stage.weights;
  const std::size_t outputs = weights.padded_outputs();
  const std::size_t below = passes_down ? example_pitch(weights.run) : 0;
  const std::size_t batch_quads = (batch + kQuad - 1) / kQuad;
  Carver down = carver;  // the two halves follow each other and share their room
  spread = down.take<std::byte>(passes_down ? batch * outputs * kQuad * operand_bytes : 0);
  corrections = down.take<std::int32_t>(passes_down ? batch : 0);
  scale = down.take<float>(below);
  factor = down.take<float>(below);
  sums = down.take<std::int32_t>(batch * below);
  inputs = carver.take<std::byte>(weights.quads() * kQuad * batch_quads * kQuad * operand_bytes);
  live = carver.take<std::uint8_t>(weights.quads());
  gradient = carver.take<std::int8_t>(batch_quads * outputs * kQuad);
  offsets = carver.take<std::int32_t>(outputs);
  step = carver.take<float>(outputs);
  if (down.used() > carver.used()) carver = down;
}

ConvolutionBackward::ConvolutionBackward(Carver& carver, const Int8ConvolutionStage& stage,
                                         std::size_t batch, std::size_t operand_bytes,
                                         bool passes_down) {
  const Int8Weights& weights = stage.weights;
  const std::size_t outputs = weights.padded_outputs();
  const std::size_t position_quads = (stage.width + kQuad - 1) / kQuad;
  starts = position_quads * kQuad + stage.kernel - 1;
  inputs_row = padded_to(starts * stage.channels, 16) * kQuad;
  const std::size_t row_bytes = inputs_row * operand_bytes;
  band_rows = std::clamp(kBandBytes / row_bytes, stage.kernel, stage.height + stage.kernel - 1) -
              (stage.kernel - 1);
  gradient = carver.take<std::int8_t>(stage.positions() * outputs);
  input_row = carver.take<std::int8_t>((starts + kQuad) * stage.channels + 16);
  inputs = carver.take<std::byte>((band_rows + stage.kernel - 1) * row_bytes);
  interleaved = carver.take<std::int8_t>(band_rows * position_quads * outputs * kQuad);
  offsets = carver.take<std::int32_t>(outputs);
  weight_sums = carver.take<std::int32_t>(weights.rows * weights.quads() * kQuad * outputs);
  bias_sums = carver.take<std::int32_t>(outputs);
  step = carver.take<float>(outputs);
  turned.rows = stage.kernel;
  turned.run = stage.kernel * stage.filters();
  turned.outputs = stage.channels;
  const std::size_t channels = passes_down ? turned.padded_outputs() : 0;
  padded_row = (stage.width + stage.kernel - 1) * stage.filters();
  padded_rows = stage.height + stage.kernel - 1;
  image_values = padded_row * padded_rows + kQuad;
  turned_weights = carver.take<std::int8_t>(passes_down ? turned.bytes() : 0);
  image = carver.take<std::byte>(passes_down ? image_values * operand_bytes : 0);
  initial = carver.take<std::int32_t>(channels);
  scale = carver.take<float>(channels);
  factor = carver.take<float>(channels);
  sums = carver.take<std::int32_t>(batch * stage.positions() * channels);
}

std::size_t stage_scratch(const Int8Plan& plan, std::size_t s, std::size_t batch, bool training) {
  const std::size_t operand_bytes = plan.kernels->operand_bytes;
  const bool passes_down = s > plan.first_trained;
  Carver forward;
  Carver backward;
  if (const auto* dense = std::get_if<Int8DenseStage>(&plan.stages[s])) {
    DenseForward(forward, *dense, batch, operand_bytes);
    if (training) DenseBackward(backward, *dense, batch, operand_bytes, passes_down);
  }
  if (const auto* convolution = std::get_if<Int8ConvolutionStage>(&plan.stages[s])) {
    ConvolutionForward(forward, *convolution, batch, operand_bytes);
    if (training) ConvolutionBackward(backward, *convolution, batch, operand_bytes, passes_down);
  }
  return std::max(forward.used(), backward.used());
}

namespace {

std::size_t where_bytes(const Int8Stage& stage, std::size_t batch) {
  const auto* convolution = std::get_if<Int8ConvolutionStage>(&stage);
  if (convolution == nullptr || convolution->pool == 1) return 0;
  return batch * convolution->pooled_positions() * convolution->weights.padded_outputs();
}

std::size_t activation_bytes(std::size_t values, std::size_t batch) {
  return batch * example_pitch(values) + kInt8Slack;
}

}  // namespace

Int8WorkspaceLayout::Int8WorkspaceLayout(const Int8Plan& plan, std::size_t batch, bool for_training)
    : max_batch(batch), training(for_training), where(plan.stages.size()) {
  Carver carver;
  const auto place = [&carver](std::size_t bytes) {
    const std::size_t offset = carver.used();
    carver.take<std::byte>(bytes);
    return offset;
  };
  std::size_t widest_gradient = 0;
  std::size_t widest[2] = {activation_bytes(plan.inputs, batch), 0};  // even and odd activations
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const std::size_t bytes = activation_bytes(stage_values(plan.stages[s]), batch);
    if (s >= plan.first_trained) widest_gradient = std::max(widest_gradient, bytes);
    widest[(s + 1) % 2] = std::max(widest[(s + 1) % 2], bytes);
  }
  const std::size_t in_turn[2] = {training ? 0 : place(widest[0]), training ? 0 : place(widest[1])};
  for (std::size_t i = 0; i <= plan.stages.size(); ++i) {
    const std::size_t values = i == 0 ? plan.inputs : stage_values(plan.stages[i - 1]);
    activations.push_back(training ? place(activation_bytes(values, batch)) : in_turn[i % 2]);
  }
  for (std::size_t s = 0; training && s < plan.stages.size(); ++s) {
    where[s] = place(where_bytes(plan.stages[s], batch) + kInt8Slack);
  }
  for (std::size_t& gradient : gradients) gradient = place(training ? widest_gradient : 0);
  logits = place(batch * plan.classes * sizeof(float));
  std::size_t most = 0;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    most = std::max(most, stage_scratch(plan, s, batch, training));
  }
  scratch = place(most + kInt8Slack);
  size = carver.used();
}

Int8MemoryPlan Int8WorkspaceLayout::memory(const Int8Plan& plan, std::size_t batch,
                                           bool for_training) {
  const Int8WorkspaceLayout layout(plan, batch, for_training);
  Int8MemoryPlan memory;
  memory.weights = plan.storage_bytes;
  memory.activations = layout.gradients[0];
  memory.gradients = layout.scratch - layout.gradients[0];
  memory.scratch = layout.size - layout.scratch;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    Int8MemoryPlan::Layer layer;
    layer.name = plan.names[s];
    if (const Int8Weights* weights = stage_weights(plan.stages[s])) {
      layer.weights =
          padded_to(weights->bytes(), 64) + 2 * weights->padded_outputs() * sizeof(float);
    }
    layer.activations = activation_bytes(stage_values(plan.stages[s]), batch) +
                        (for_training ? where_bytes(plan.stages[s], batch) : 0);
    layer.scratch = stage_scratch(plan, s, batch, for_training);
    memory.layers.push_back(std::move(layer));
  }
  return memory;
}

}  // namespace covey::models
