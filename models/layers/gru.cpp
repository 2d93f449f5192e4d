#include "layers/gru.hpp"

#include <algorithm>

#include "planner.hpp"

namespace covey::models {

namespace {

/// Where the parts of a batch's memory start.
struct Layout {
  Layout(const GruStage& stage, std::size_t batch)
      : units(stage.weights.units),
        row(padded_row(4 * units)),
        state_row(padded_row(units)),
        rows(batch * stage.steps) {
    Parts saved;
    gates = saved.take(rows * row);
    if (stage.last_only) hidden = saved.take(rows * units);
    memory.saved = saved.size();
    Parts forward;
    panel = forward.take(kPanelFloats);
    packed = forward.take(packed_floats(units, 3 * units));
    state = forward.take(batch * state_row);
    recurrent = forward.take(batch * 3 * units);
    memory.forward_scratch = forward.size();
    Parts backward;
    backward_panel = backward.take(kPanelFloats);
    transposed = backward.take(packed_floats(3 * units, units));
    state_gradient = backward.take(batch * units);
    gates_gradient = backward.take(batch * row);
    sums = backward.take(4 * units);
    memory.backward_scratch = backward.size();
  }

  std::size_t units, row, state_row;
  std::size_t rows;                        ///< of all steps: [batch x steps]
  std::size_t gates, hidden = 0;           ///< saved; gates: r, z, n and q = h U + b_recurrent of n
  std::size_t panel, packed, state;        ///< forward scratch; packed: U
  std::size_t recurrent;                   ///< [batch x 3 units], h U + b_recurrent of one step
  std::size_t backward_panel, transposed;  ///< backward scratch; transposed: U^T, packed
  std::size_t state_gradient;              ///< [batch x units]
  std::size_t gates_gradient;              ///< [batch x row], of r, z and q of one step
  std::size_t sums;                        ///< [4 x units], of the gradients of r, z, n, q
  StageMemory memory;
};

/// Step t's rows, all but those of h.
GruStep step_of(const GruStage& stage, const Layout& layout, std::size_t batch, float* saved,
                std::size_t t) {
  GruStep step;
  step.batch = batch;
  step.units = layout.units;
  step.gates = saved + layout.gates + t * layout.row;
  step.gates_row = stage.steps * layout.row;
  step.hidden_row = stage.steps * layout.units;
  return step;
}

/// From the last step to the first: the gates become their gradients.
void backward_steps(const GruStage& stage, const Layout& layout, const BackwardPass& pass,
                    const float* hidden) {
  const std::size_t units = layout.units;
  float* const scratch = pass.scratch;
  pass.kernels.pack_strips({.from = pass.parameters + stage.weights.recurrent,
                            .from_row = 3 * units,
                            .transposed = true,
                            .depth = 3 * units,
                            .columns = units,
                            .to = scratch + layout.transposed});
  std::fill_n(scratch + layout.state_gradient, pass.batch * units, 0.0f);
  std::fill_n(scratch + layout.sums, 4 * units, 0.0f);
  GemmTask product;  // dh of the step before += d(r, z, q) U^T
  product.a = scratch + layout.gates_gradient;
  product.a_row = layout.row;
  product.b = scratch + layout.transposed;
  product.c = scratch + layout.state_gradient;
  product.c_row = units;
  product.rows = pass.batch;
  product.columns = units;
  product.depth = 3 * units;
  product.accumulate = true;
  GruStepGradient gradient;
  gradient.hidden_row = stage.last_only ? units : stage.steps * units;
  gradient.state = scratch + layout.state_gradient;
  gradient.gates = scratch + layout.gates_gradient;
  gradient.gates_row = layout.row;
  gradient.sums = scratch + layout.sums;
  for (std::size_t t = stage.steps; t-- > 0;) {
    if (stage.last_only) {
      gradient.hidden = t + 1 == stage.steps ? pass.gradient_outputs : nullptr;
    } else {
      gradient.hidden = pass.gradient_outputs + t * units;
    }
    GruStep step = step_of(stage, layout, pass.batch, pass.saved, t);
    step.hidden_before = t == 0 ? nullptr : hidden + (t - 1) * units;
    pass.kernels.gru_step_backward(step, gradient);
    if (t > 0) pass.kernels.gemm_strips(product);
  }
}

/// From the gates' gradients to the parameters'.
void descend(const GruStage& stage, const Layout& layout, const BackwardPass& pass,
             const Descent& descent, const float* hidden) {
  const RecurrentWeights& weights = stage.weights;
  const Kernels& kernels = pass.kernels;
  const std::size_t units = layout.units;
  float* const gates = pass.saved + layout.gates;
  float* const panel = pass.scratch + layout.backward_panel;
  const float* const sums = pass.scratch + layout.sums;
  const float factor = descent.factor();
  descent.pull(kernels, weights.weight, stage.parameters());
  float* const bias_recurrent = descent.values + stage.bias_recurrent;
  kernels.add_scaled(sums, 3 * units, factor, descent.values + stage.bias_input);
  kernels.add_scaled(sums, 2 * units, factor, bias_recurrent);
  kernels.add_scaled(sums + 3 * units, units, factor, bias_recurrent + 2 * units);
  add_weight_gradient(kernels, weights.input_product(layout.rows, layout.row), pass.inputs, gates,
                      factor, descent.values + weights.weight, panel);
  if (stage.steps == 1) return;
  clear_first_steps(gates, pass.batch, stage.steps, layout.row);
  const float* const later = gates + layout.row;
  float* const values = descent.values + weights.recurrent;
  // r and z, then q, which lies behind n.
  add_weight_gradient(kernels, weights.state_product(layout.rows - 1, layout.row, 2 * units),
                      hidden, later, factor, values, panel);
  add_weight_gradient(kernels, weights.state_product(layout.rows - 1, layout.row, units), hidden,
                      later + 3 * units, factor, values + 2 * units, panel);
}

}  // namespace

Result<void> plan_gru(Planner& planner) {
  const LayerSpec& layer = planner.layer();
  COVEY_TRY(check_recurrent(planner, 3, 6));
  const std::uint32_t steps = planner.shape()[0];
  const std::uint32_t inputs = planner.shape()[1];
  const std::uint32_t units = layer.units;
  GruStage stage{.steps = steps,
                 .weights = {.inputs = inputs, .units = units, .gates = std::size_t{3} * units},
                 .last_only = layer.last_only};
  const std::string name = planner.number("gru");
  // As PyTorch draws them: by the units, all four.
  const TensorInit weight{TensorInit::Kind::kWeight, units, units};
  const TensorInit bias{TensorInit::Kind::kBias, units, units};
  stage.weights.weight = planner.add_tensor(name + ".weight", {inputs, 3 * units}, weight);
  stage.weights.recurrent = planner.add_tensor(name + ".recurrent", {units, 3 * units}, weight);
  stage.bias_input = planner.add_tensor(name + ".bias_input", {3 * units}, bias);
  stage.bias_recurrent = planner.add_tensor(name + ".bias_recurrent", {3 * units}, bias);
  const double multiply_adds = static_cast<double>(steps) * (static_cast<double>(inputs) + units) *
                               static_cast<double>(stage.weights.gates);
  planner.add_stage(stage, layer.last_only ? Planner::Shape{units} : Planner::Shape{steps, units},
                    multiply_adds);
  return {};
}

StageMemory memory_of(const GruStage& stage, std::size_t batch) {
  return Layout(stage, batch).memory;
}

void forward(const GruStage& stage, const ForwardPass& pass) {
  const Layout layout(stage, pass.batch);
  const std::size_t units = layout.units;
  multiply_rows(pass.kernels, stage.weights.input_product(layout.rows, layout.row), pass.inputs,
                pass.parameters + stage.weights.weight, pass.parameters + stage.bias_input,
                pass.saved + layout.gates, pass.scratch + layout.panel);
  pass.kernels.pack_strips({.from = pass.parameters + stage.weights.recurrent,
                            .from_row = 3 * units,
                            .depth = units,
                            .columns = 3 * units,
                            .to = pass.scratch + layout.packed});
  float* const state = pass.scratch + layout.state;
  std::fill_n(state, pass.batch * layout.state_row, 0.0f);
  GemmTask product;  // h of the step before U + b_recurrent
  product.a = state;
  product.a_row = layout.state_row;
  product.b = pass.scratch + layout.packed;
  product.c = pass.scratch + layout.recurrent;
  product.c_row = 3 * units;
  product.rows = pass.batch;
  product.columns = 3 * units;
  product.depth = units;
  product.bias = pass.parameters + stage.bias_recurrent;
  float* const hidden = stage.last_only ? pass.saved + layout.hidden : pass.outputs;
  for (std::size_t t = 0; t < stage.steps; ++t) {
    GruStep step = step_of(stage, layout, pass.batch, pass.saved, t);
    step.recurrent = product.c;
    step.hidden = hidden + t * units;
    step.hidden_before = t == 0 ? nullptr : step.hidden - units;
    step.state = state;
    step.state_row = layout.state_row;
    pass.kernels.gemm_strips(product);
    pass.kernels.gru_step(step);
  }
  if (stage.last_only) copy_last_steps(hidden, pass.batch, stage.steps, units, pass.outputs);
}

void backward(const GruStage& stage, const BackwardPass& pass, const Descent& descent) {
  const Layout layout(stage, pass.batch);
  const float* const hidden = stage.last_only ? pass.saved + layout.hidden : pass.outputs;
  backward_steps(stage, layout, pass, hidden);
  if (pass.gradient_inputs != nullptr) {
    multiply_rows_back(pass.kernels, stage.weights.input_product(layout.rows, layout.row),
                       pass.saved + layout.gates, pass.parameters + stage.weights.weight,
                       pass.gradient_inputs, pass.scratch + layout.backward_panel);
  }
  descend(stage, layout, pass, descent, hidden);
}

}  // namespace covey::models
