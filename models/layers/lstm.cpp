#include "layers/lstm.hpp"

#include <algorithm>

#include "planner.hpp"

namespace covey::models {

namespace {

/// Where the parts of a batch's memory start.
struct Layout {
  Layout(const LstmStage& stage, std::size_t batch)
      : units(stage.weights.units),
        row(padded_row(4 * units)),
        state_row(padded_row(units)),
        rows(batch * stage.steps) {
    Parts saved;
    gates = saved.take(rows * row);
    cells = saved.take(rows * units);
    if (stage.last_only) hidden = saved.take(rows * units);
    memory.saved = saved.size();
    Parts forward;
    panel = forward.take(kPanelFloats);
    packed = forward.take(packed_floats(units, 4 * units));
    state = forward.take(batch * state_row);
    memory.forward_scratch = forward.size();
    Parts backward;
    backward_panel = backward.take(kPanelFloats);
    transposed = backward.take(packed_floats(4 * units, units));
    state_gradient = backward.take(batch * units);
    cells_gradient = backward.take(batch * units);
    gates_gradient = backward.take(batch * row);
    sums = backward.take(7 * units);
    memory.backward_scratch = backward.size();
  }

  std::size_t units, row, state_row;
  std::size_t rows;                            ///< of all steps: [batch x steps]
  std::size_t gates, cells, hidden = 0;        ///< saved
  std::size_t panel, packed, state;            ///< forward scratch; packed: U
  std::size_t backward_panel, transposed;      ///< backward scratch; transposed: U^T, packed
  std::size_t state_gradient, cells_gradient;  ///< [batch x units]
  std::size_t gates_gradient;                  ///< [batch x row], of one step
  std::size_t sums;                            ///< [7 x units], of biases and peepholes
  StageMemory memory;
};

/// Step t's rows, all but those of h.
LstmStep step_of(const LstmStage& stage, const Layout& layout, std::size_t batch,
                 const float* parameters, float* saved, std::size_t t) {
  LstmStep step;
  step.batch = batch;
  step.units = layout.units;
  step.peephole = stage.has_peephole ? parameters + stage.peephole : nullptr;
  step.gates = saved + layout.gates + t * layout.row;
  step.gates_row = stage.steps * layout.row;
  step.cells = saved + layout.cells + t * layout.units;
  step.cells_row = stage.steps * layout.units;
  step.cells_before = t == 0 ? nullptr : step.cells - layout.units;
  return step;
}

/// From the last step to the first: the gates become their gradients.
void backward_steps(const LstmStage& stage, const Layout& layout, const BackwardPass& pass) {
  const std::size_t units = layout.units;
  float* const scratch = pass.scratch;
  pass.kernels.pack_strips({.from = pass.parameters + stage.weights.recurrent,
                            .from_row = 4 * units,
                            .transposed = true,
                            .depth = 4 * units,
                            .columns = units,
                            .to = scratch + layout.transposed});
  std::fill_n(scratch + layout.state_gradient, pass.batch * units, 0.0f);
  std::fill_n(scratch + layout.cells_gradient, pass.batch * units, 0.0f);
  std::fill_n(scratch + layout.sums, 7 * units, 0.0f);
  GemmTask product;  // dh of the step before = dgates U^T
  product.a = scratch + layout.gates_gradient;
  product.a_row = layout.row;
  product.b = scratch + layout.transposed;
  product.c = scratch + layout.state_gradient;
  product.c_row = units;
  product.rows = pass.batch;
  product.columns = units;
  product.depth = 4 * units;
  LstmStepGradient gradient;
  gradient.hidden_row = stage.last_only ? units : stage.steps * units;
  gradient.state = scratch + layout.state_gradient;
  gradient.cells = scratch + layout.cells_gradient;
  gradient.gates = scratch + layout.gates_gradient;
  gradient.gates_row = layout.row;
  gradient.sums = scratch + layout.sums;
  for (std::size_t t = stage.steps; t-- > 0;) {
    if (stage.last_only) {
      gradient.hidden = t + 1 == stage.steps ? pass.gradient_outputs : nullptr;
    } else {
      gradient.hidden = pass.gradient_outputs + t * units;
    }
    pass.kernels.lstm_step_backward(
        step_of(stage, layout, pass.batch, pass.parameters, pass.saved, t), gradient);
    if (t > 0) pass.kernels.gemm_strips(product);
  }
}

/// From the gates' gradients to the parameters'.
void descend(const LstmStage& stage, const Layout& layout, const BackwardPass& pass,
             const Descent& descent) {
  const RecurrentWeights& weights = stage.weights;
  const Kernels& kernels = pass.kernels;
  float* const gates = pass.saved + layout.gates;
  float* const panel = pass.scratch + layout.backward_panel;
  const float* const sums = pass.scratch + layout.sums;
  const float factor = descent.factor();
  descent.pull(kernels, weights.weight, stage.parameters());
  kernels.add_scaled(sums, weights.gates, factor, descent.values + stage.bias);
  if (stage.has_peephole) {
    kernels.add_scaled(sums + weights.gates, 3 * layout.units, factor,
                       descent.values + stage.peephole);
  }
  add_weight_gradient(kernels, weights.input_product(layout.rows, layout.row), pass.inputs, gates,
                      factor, descent.values + weights.weight, panel);
  if (stage.steps == 1) return;
  clear_first_steps(gates, pass.batch, stage.steps, layout.row);
  add_weight_gradient(kernels, weights.state_product(layout.rows - 1, layout.row, weights.gates),
                      stage.last_only ? pass.saved + layout.hidden : pass.outputs,
                      gates + layout.row, factor, descent.values + weights.recurrent, panel);
}

}  // namespace

Result<void> plan_lstm(Planner& planner) {
  const LayerSpec& layer = planner.layer();
  COVEY_TRY(check_recurrent(planner, 4, layer.peephole ? 7 : 4));
  const std::uint32_t steps = planner.shape()[0];
  const std::uint32_t inputs = planner.shape()[1];
  const std::uint32_t units = layer.units;
  LstmStage stage{.steps = steps,
                  .weights = {.inputs = inputs, .units = units, .gates = std::size_t{4} * units},
                  .last_only = layer.last_only,
                  .has_peephole = layer.peephole};
  const std::string name = planner.number("lstm");
  // As PyTorch draws them: by the units, for both weights and the bias; no larger bias of the
  // forget gate.
  const TensorInit weight{TensorInit::Kind::kWeight, units, units};
  const TensorInit bias{TensorInit::Kind::kBias, units, units};
  stage.weights.weight = planner.add_tensor(name + ".weight", {inputs, 4 * units}, weight);
  stage.weights.recurrent = planner.add_tensor(name + ".recurrent", {units, 4 * units}, weight);
  stage.bias = planner.add_tensor(name + ".bias", {4 * units}, bias);
  if (layer.peephole) stage.peephole = planner.add_tensor(name + ".peephole", {3 * units}, bias);
  const double multiply_adds = static_cast<double>(steps) * (static_cast<double>(inputs) + units) *
                               static_cast<double>(stage.weights.gates);
  planner.add_stage(stage, layer.last_only ? Planner::Shape{units} : Planner::Shape{steps, units},
                    multiply_adds);
  return {};
}

StageMemory memory_of(const LstmStage& stage, std::size_t batch) {
  return Layout(stage, batch).memory;
}

void forward(const LstmStage& stage, const ForwardPass& pass) {
  const Layout layout(stage, pass.batch);
  const std::size_t units = layout.units;
  multiply_rows(pass.kernels, stage.weights.input_product(layout.rows, layout.row), pass.inputs,
                pass.parameters + stage.weights.weight, pass.parameters + stage.bias,
                pass.saved + layout.gates, pass.scratch + layout.panel);
  float* const packed = pass.scratch + layout.packed;
  if (stage.steps > 1) {
    pass.kernels.pack_strips({.from = pass.parameters + stage.weights.recurrent,
                              .from_row = 4 * units,
                              .depth = units,
                              .columns = 4 * units,
                              .to = packed});
  }
  float* const hidden = stage.last_only ? pass.saved + layout.hidden : pass.outputs;
  for (std::size_t t = 0; t < stage.steps; ++t) {
    LstmStep step = step_of(stage, layout, pass.batch, pass.parameters, pass.saved, t);
    step.hidden = hidden + t * units;
    step.hidden_row = stage.steps * units;
    step.state = pass.scratch + layout.state;
    step.state_row = layout.state_row;
    if (t > 0) {
      GemmTask product;  // gates += h of the step before U
      product.a = step.state;
      product.a_row = step.state_row;
      product.b = packed;
      product.c = step.gates;
      product.c_row = step.gates_row;
      product.rows = pass.batch;
      product.columns = 4 * units;
      product.depth = units;
      product.accumulate = true;
      pass.kernels.gemm_strips(product);
    }
    pass.kernels.lstm_step(step);
  }
  if (stage.last_only) copy_last_steps(hidden, pass.batch, stage.steps, units, pass.outputs);
}

void backward(const LstmStage& stage, const BackwardPass& pass, const Descent& descent) {
  const Layout layout(stage, pass.batch);
  backward_steps(stage, layout, pass);
  if (pass.gradient_inputs != nullptr) {
    multiply_rows_back(pass.kernels, stage.weights.input_product(layout.rows, layout.row),
                       pass.saved + layout.gates, pass.parameters + stage.weights.weight,
                       pass.gradient_inputs, pass.scratch + layout.backward_panel);
  }
  descend(stage, layout, pass, descent);
}

}  // namespace covey::models
