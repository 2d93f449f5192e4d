#include "bf16/bf16_pass.hpp"

#include <algorithm>
#include <bit>

#include "bf16/bf16_dense.hpp"

namespace covey::models {

namespace {

/// A stage finds its parameters at their offsets in R^d, of which it gets only its own: where R^d
/// would start. Computed as a number, because no such array exists.
float* as_whole_vector(float* own, std::size_t offset) {
  return std::bit_cast<float*>(std::bit_cast<std::uintptr_t>(own) - offset * sizeof(float));
}

}  // namespace

template <typename F>
void Bf16Pass::for_each_piece(const Bf16Batch& batch, std::size_t size, F f) {
  std::size_t index = 0;
  for (std::size_t first = 0; first < batch.size; first += size, ++index) {
    f(Piece{first, std::min(size, batch.size - first), index});
  }
}

LossResult Bf16Pass::evaluate(const Bf16Batch& batch) const {
  forward(batch, nullptr);
  return loss_of(network_, batch.size, batch.inputs, batch.labels, block_.floats(plan_.scores), 0,
                 nullptr);
}

double Bf16Pass::descend(const Bf16Batch& batch, const Bf16Descent& descent) const {
  forward(batch, &descent);
  const LossResult result =
      loss_of(network_, batch.size, batch.inputs, batch.labels, block_.floats(plan_.scores),
              descent.scale, block_.floats(plan_.stages.back().gradient));
  backward(batch, descent);
  return result.sum;
}

// ---- what stages see

const float* Bf16Pass::widened_input(std::size_t s, const Bf16Batch& batch, const Piece& piece,
                                     std::size_t working) const {
  const std::size_t size = network_.stages[s].inputs;
  if (s == 0) return batch.inputs + piece.first * size;
  float* to = block_.floats(working);
  kernels_.widen(block_.halves(plan_.stages[s - 1].outputs) + piece.first * size, piece.size * size,
                 to);
  return to;
}

const float* Bf16Pass::widened_skip(std::size_t s, const Bf16Batch& batch,
                                    const Piece& piece) const {
  const auto& skip = network_.stages[s].skip;
  if (!skip) return nullptr;
  return widened_input(*skip, batch, piece, plan_.stages[s].forward.skip);
}

const std::uint16_t* Bf16Pass::dense_input(std::size_t s) const {
  return block_.halves(s == 0 ? plan_.inputs : plan_.stages[s - 1].outputs);
}

float* Bf16Pass::saved_of(std::size_t s, const Piece& piece, std::size_t working) const {
  const Bf16Stage& stage = plan_.stages[s];
  if (!stage.exact_saved) return block_.floats(working);
  const std::size_t per_piece = memory_of(network_.stages[s].kind, stage.piece).saved;
  return per_piece == 0 ? nullptr : block_.floats(stage.saved) + piece.index * per_piece;
}

float* Bf16Pass::widened_weights(std::size_t s, std::size_t working) const {
  const std::size_t offset = plan_.stages[s].parameter;
  const std::size_t n = network_.stages[s].parameters;
  if (n == 0) return nullptr;
  float* own = block_.floats(working);
  kernels_.widen(weights_ + offset, n, own);
  return as_whole_vector(own, offset);
}

// ---- forward

void Bf16Pass::forward(const Bf16Batch& batch, const Bf16Descent* training) const {
  if (plan_.inputs != StageBuffers::kNone) {
    kernels_.narrow(batch.inputs, batch.size * network_.inputs, block_.halves(plan_.inputs));
  }
  for (std::size_t s = 0; s < network_.stages.size(); ++s) {
    if (const auto* dense = std::get_if<DenseStage>(&network_.stages[s].kind)) {
      forward_dense(s, *dense, batch);
    } else {
      forward_stage(s, batch, training);
    }
  }
}

void Bf16Pass::keep_outputs(std::size_t s, const Piece& piece) const {
  const std::size_t size = network_.stages[s].outputs;
  const float* outputs = block_.floats(plan_.stages[s].forward.outputs);
  kernels_.narrow(outputs, piece.size * size,
                  block_.halves(plan_.stages[s].outputs) + piece.first * size);
  if (s + 1 < network_.stages.size()) return;
  std::copy_n(outputs, piece.size * size, block_.floats(plan_.scores) + piece.first * size);
}

void Bf16Pass::forward_dense(std::size_t s, const DenseStage& dense, const Bf16Batch& batch) const {
  const Bf16Working& work = plan_.stages[s].forward;
  float* bias = block_.floats(work.weights);
  kernels_.widen(weights_ + dense.bias, dense.outputs, bias);
  for_each_piece(batch, plan_.stages[s].piece, [&](const Piece& piece) {
    bf16_dense_forward(dense, kernels_, weights_, piece.size * dense.rows,
                       dense_input(s) + piece.first * network_.stages[s].inputs, bias,
                       block_.floats(work.outputs));
    keep_outputs(s, piece);
  });
}

void Bf16Pass::forward_stage(std::size_t s, const Bf16Batch& batch,
                             const Bf16Descent* training) const {
  widened_weights(s, plan_.stages[s].forward.weights);
  for_each_piece(batch, plan_.stages[s].piece,
                 [&](const Piece& piece) { forward_piece(s, batch, piece, training); });
  if (training != nullptr) store_running(s, training->step.rounding);
}

void Bf16Pass::forward_piece(std::size_t s, const Bf16Batch& batch, const Piece& piece,
                             const Bf16Descent* training) const {
  const Bf16Stage& stage = plan_.stages[s];
  const Bf16Working& work = stage.forward;
  const Stage& kind = network_.stages[s].kind;
  float* parameters = network_.stages[s].parameters == 0
                          ? nullptr
                          : as_whole_vector(block_.floats(work.weights), stage.parameter);
  const std::uint64_t key = training == nullptr ? 0 : training->random_key;
  const ForwardPass pass{.kernels = *network_.kernels,
                         .batch = piece.size,
                         .parameters = parameters,
                         .inputs = widened_input(s, batch, piece, work.inputs),
                         .skip = widened_skip(s, batch, piece),
                         .outputs = block_.floats(work.outputs),
                         .saved = saved_of(s, piece, work.saved),
                         .scratch = block_.floats(work.scratch),
                         .training = training != nullptr,
                         .running = training != nullptr ? parameters : nullptr,
                         .random_key = stage_key(key, s),
                         .first_example = batch.first + piece.first};
  std::visit([&](const auto& k) { models::forward(k, pass); }, kind);
  keep_outputs(s, piece);
  if (stage.exact_saved || training == nullptr || pass.saved == nullptr) return;
  kernels_.narrow(pass.saved, memory_of(kind, piece.size).saved,
                  block_.halves(stage.saved) + piece.index * memory_of(kind, stage.piece).saved);
}

/// What the forward pass itself changed of the stage's parameters: running statistics.
void Bf16Pass::store_running(std::size_t s, const StochasticRounding& rounding) const {
  const Bf16Stage& stage = plan_.stages[s];
  const std::size_t end = stage.parameter + network_.stages[s].parameters;
  const auto& tensors = network_.layout.tensors();
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const std::size_t offset = tensors[t].offset;
    if (network_.init[t].trained || offset < stage.parameter || offset >= end) continue;
    kernels_.narrow_stochastic(
        block_.floats(stage.forward.weights) + (offset - stage.parameter), tensors[t].size(),
        {rounding.key, static_cast<std::uint32_t>(offset)}, weights_ + offset);
  }
}

// ---- backward

void Bf16Pass::backward(const Bf16Batch& batch, const Bf16Descent& descent) const {
  for (std::size_t s = network_.stages.size(); s-- > network_.first_trained;) {
    pass_to_residual(s, batch.size);
    if (const auto* dense = std::get_if<DenseStage>(&network_.stages[s].kind)) {
      backward_dense(s, *dense, batch, descent);
    } else {
      backward_stage(s, batch, descent);
    }
    if (s > network_.first_trained) add_residual_gradient(s - 1, batch.size);
  }
}

void Bf16Pass::step(std::size_t offset, std::size_t n, const float* g,
                    const Bf16Step& whole) const {
  Bf16Step part = whole;
  if (part.anchor != nullptr) part.anchor += offset;
  part.rounding.index += static_cast<std::uint32_t>(offset);
  kernels_.descend(weights_ + offset, g, n, part);
}

void Bf16Pass::backward_dense(std::size_t s, const DenseStage& dense, const Bf16Batch& batch,
                              const Bf16Descent& descent) const {
  const Bf16Stage& stage = plan_.stages[s];
  const Kernels& kernels = *network_.kernels;
  const std::size_t rows = batch.size * dense.rows;
  float* gradient = block_.floats(stage.gradient);
  if (dense.relu) {
    for_each_piece(batch, plan_.stages[s].piece, [&](const Piece& piece) {
      const std::size_t size = network_.stages[s].outputs;
      float* outputs = block_.floats(stage.backward.outputs);
      kernels_.widen(block_.halves(stage.outputs) + piece.first * size, piece.size * size, outputs);
      kernels.relu_backward(outputs, piece.size * size, gradient + piece.first * size);
    });
  }
  const bool lowest = s == network_.first_trained;
  const Bf16DenseBackward pass{
      .stage = dense,
      .kernels = kernels_,
      .rows = rows,
      .weights = weights_,
      .inputs = dense_input(s),
      .gradient = block_.halves(stage.dense.gradient),
      .transposed = block_.halves(stage.dense.transposed),
      .pairs = block_.words(stage.dense.pairs),
      .input_rows = block_.floats(stage.dense.rows),
      .gradient_inputs = lowest ? nullptr : block_.floats(plan_.stages[s - 1].gradient)};
  if (descent.gathered != nullptr) {
    gather_dense(s, dense, batch, descent);
    bf16_dense_backward(pass, gradient, nullptr);
    return;
  }
  float* bias = block_.floats(stage.backward.gradient);
  std::fill_n(bias, dense.outputs, 0.0f);
  kernels.add_column_sums(gradient, rows, dense.outputs, 1.0f, bias);
  step(dense.bias, dense.outputs, bias, descent.step);
  bf16_dense_backward(pass, gradient, &descent.step);
}

void Bf16Pass::gather_dense(std::size_t s, const DenseStage& dense, const Bf16Batch& batch,
                            const Bf16Descent& descent) const {
  const Bf16Stage& stage = plan_.stages[s];
  const float* gradient = block_.floats(stage.gradient);
  network_.kernels->add_column_sums(gradient, batch.size * dense.rows, dense.outputs, 1.0f,
                                    descent.gathered + dense.bias);
  for_each_piece(batch, stage.dense.gather_piece, [&](const Piece& piece) {
    GemmTask task;
    task.a = widened_input(s, batch, piece, stage.backward.inputs);
    task.a_row = 1;
    task.a_col = dense.inputs;
    task.b = gradient + piece.first * network_.stages[s].outputs;
    task.b_row = dense.outputs;
    task.c = descent.gathered + dense.weight;
    task.c_row = dense.outputs;
    task.rows = dense.inputs;
    task.columns = dense.outputs;
    task.depth = piece.size * dense.rows;
    task.accumulate = true;
    network_.kernels->gemm(task);
  });
}

void Bf16Pass::backward_stage(std::size_t s, const Bf16Batch& batch,
                              const Bf16Descent& descent) const {
  const Bf16Stage& stage = plan_.stages[s];
  const PlannedStage& planned = network_.stages[s];
  Descent values{.values = descent.gathered};
  float* own = block_.floats(stage.backward.gradient);
  if (descent.gathered == nullptr && planned.parameters > 0) {
    std::fill_n(own, planned.parameters, 0.0f);
    values.values = as_whole_vector(own, stage.parameter);
  }
  const BackwardPass common{.kernels = *network_.kernels,
                            .batch = 0,
                            .parameters = widened_weights(s, stage.backward.weights),
                            .inputs = nullptr,
                            .outputs = nullptr,
                            .gradient_outputs = nullptr,
                            .gradient_inputs = nullptr,
                            .saved = nullptr,
                            .scratch = block_.floats(stage.backward.scratch),
                            .random_key = stage_key(descent.random_key, s),
                            .first_example = 0};
  for_each_piece(batch, plan_.stages[s].piece,
                 [&](const Piece& piece) { backward_piece(s, batch, piece, common, values); });
  if (descent.gathered != nullptr) return;
  const std::size_t end = stage.parameter + planned.parameters;
  network_.for_each_trained([&](std::size_t offset, std::size_t n) {
    if (offset < stage.parameter || offset >= end) return;
    step(offset, n, own + (offset - stage.parameter), descent.step);
  });
}

void Bf16Pass::backward_piece(std::size_t s, const Bf16Batch& batch, const Piece& piece,
                              const BackwardPass& common, const Descent& descent) const {
  const Bf16Stage& stage = plan_.stages[s];
  const PlannedStage& planned = network_.stages[s];
  float* outputs = block_.floats(stage.backward.outputs);
  kernels_.widen(block_.halves(stage.outputs) + piece.first * planned.outputs,
                 piece.size * planned.outputs, outputs);
  float* saved = saved_of(s, piece, stage.backward.saved);
  if (!stage.exact_saved && saved != nullptr) {
    kernels_.widen(
        block_.halves(stage.saved) + piece.index * memory_of(planned.kind, stage.piece).saved,
        memory_of(planned.kind, piece.size).saved, saved);
  }
  BackwardPass pass = common;
  pass.batch = piece.size;
  pass.inputs = widened_input(s, batch, piece, stage.backward.inputs);
  pass.outputs = outputs;
  pass.gradient_outputs = block_.floats(stage.gradient) + piece.first * planned.outputs;
  pass.gradient_inputs = s == network_.first_trained ? nullptr
                                                     : block_.floats(plan_.stages[s - 1].gradient) +
                                                           piece.first * planned.inputs;
  pass.saved = saved;
  pass.first_example = batch.first + piece.first;
  std::visit([&](const auto& kind) { models::backward(kind, pass, descent); }, planned.kind);
}

/// As network.cpp: an add stage's gradient also waits at its second input.
void Bf16Pass::pass_to_residual(std::size_t s, std::size_t batch) const {
  const auto& skip = network_.stages[s].skip;
  if (!skip || *skip == 0 || *skip - 1 < network_.first_trained) return;
  float* waiting = block_.floats(plan_.stages[*skip - 1].skip_gradient);
  const float* gradient = block_.floats(plan_.stages[s].gradient);
  const std::size_t size = batch * network_.stages[s].outputs;
  if (network_.last_residual(*skip - 1) == s) {
    std::copy_n(gradient, size, waiting);
  } else {
    network_.kernels->add_scaled(gradient, size, 1.0f, waiting);
  }
}

void Bf16Pass::add_residual_gradient(std::size_t s, std::size_t batch) const {
  if (plan_.stages[s].skip_gradient == StageBuffers::kNone) return;
  network_.kernels->add_scaled(block_.floats(plan_.stages[s].skip_gradient),
                               batch * network_.stages[s].outputs, 1.0f,
                               block_.floats(plan_.stages[s].gradient));
}

}  // namespace covey::models
