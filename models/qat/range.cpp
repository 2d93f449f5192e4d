#include "qat/range.hpp"

#include <algorithm>

namespace covey::models {

namespace {

/// Weight of the range so far in the moving average. Half of it is forgotten in 13 steps: short
/// enough to follow activations that grow in a round of a hundred steps, long enough that one
/// batch's outlier moves the range by a twentieth of its excess.
constexpr float kDecay = 0.95f;

float next_range(float range, float batch) {
  return range > 0 ? kDecay * range + (1 - kDecay) * batch : batch;
}

}  // namespace

StageMemory memory_of(const RangeStage&, std::size_t) { return {.saved = 1}; }

void forward(const RangeStage& stage, const ForwardPass& pass) {
  const std::size_t n = pass.batch * stage.size;
  float range = pass.parameters[stage.range];
  if (pass.training && pass.running != nullptr) {
    range = next_range(pass.running[stage.range], pass.kernels.max_magnitude(pass.inputs, n));
    pass.running[stage.range] = range;
  }
  if (!stage.rounds) range = 0;
  pass.saved[0] = range;
  if (range > 0) {
    pass.kernels.fake_quantise(pass.inputs, n, activation_scale(range), pass.outputs);
  } else {
    std::copy_n(pass.inputs, n, pass.outputs);
  }
}

void backward(const RangeStage& stage, const BackwardPass& pass, const Descent&) {
  if (pass.gradient_inputs == nullptr) return;
  const std::size_t n = pass.batch * stage.size;
  if (const float range = pass.saved[0]; range > 0) {
    pass.kernels.pass_within(pass.inputs, n, range, pass.gradient_outputs, pass.gradient_inputs);
  } else {
    std::copy_n(pass.gradient_outputs, n, pass.gradient_inputs);
  }
}

}  // namespace covey::models
