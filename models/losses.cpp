#include "losses.hpp"

#include <algorithm>
#include <cmath>

namespace covey::models {

namespace {

/// What output `o` of an example should be.
float target_of(const NetworkPlan& plan, const float* inputs, std::int32_t label, std::size_t o) {
  if (plan.spec.target == Target::kInput) return inputs[o];
  if (plan.outputs == 1) return static_cast<float>(label);
  return static_cast<std::size_t>(label) == o ? 1.0f : 0.0f;
}

bool is_correct(const NetworkPlan& plan, const float* outputs, std::int32_t label) {
  if (plan.spec.target == Target::kInput) return false;
  if (plan.outputs == 1) {
    if (plan.spec.loss == Loss::kBinaryCrossEntropy) return (outputs[0] > 0) == (label == 1);
    return std::abs(outputs[0] - static_cast<float>(label)) < 0.5f;
  }
  const float* best = std::max_element(outputs, outputs + plan.outputs);
  return best - outputs == label;
}

struct Term {
  float loss;
  float gradient;
};

/// (y - t)^2
Term squared_error(float y, float t) { return {(y - t) * (y - t), 2 * (y - t)}; }

/// -t log p - (1 - t) log(1 - p), p = sigmoid(z), in the form that does not overflow.
Term logistic_loss(float z, float t) {
  const float e = std::exp(-std::abs(z));
  const float p = z >= 0 ? 1 / (1 + e) : e / (1 + e);
  return {(z > 0 ? z : 0) - z * t + std::log1p(e), p - t};
}

/// Whether a row with this label counts: any where the target is the input.
bool has_target(const NetworkPlan& plan, std::int32_t label) {
  return label >= 0 || plan.spec.target == Target::kInput;
}

/// One example's sum over its outputs; gradient, where not null: factor * d(term) / d(output).
double terms(const NetworkPlan& plan, const float* inputs, std::int32_t label, const float* y,
             float factor, float* gradient) {
  const bool squared = plan.spec.loss == Loss::kMeanSquaredError;
  if (squared && plan.spec.target == Target::kInput) {
    return plan.kernels->squared_error(y, inputs, plan.outputs, 2 * factor, gradient);
  }
  double sum = 0;
  for (std::size_t o = 0; o < plan.outputs; ++o) {
    const float target = target_of(plan, inputs, label, o);
    const Term term = squared ? squared_error(y[o], target) : logistic_loss(y[o], target);
    sum += static_cast<double>(term.loss);
    if (gradient != nullptr) gradient[o] = factor * term.gradient;
  }
  return sum;
}

}  // namespace

std::size_t count_targets(const NetworkPlan& plan, std::span<const std::int32_t> labels,
                          std::size_t batch) {
  if (plan.spec.target == Target::kInput) return batch;
  return static_cast<std::size_t>(
      std::ranges::count_if(labels, [](std::int32_t label) { return label >= 0; }));
}

LossResult loss_of(const NetworkPlan& plan, std::size_t batch, const float* inputs,
                   const std::int32_t* labels, const float* outputs, float scale, float* gradient) {
  if (plan.spec.loss == Loss::kCrossEntropy) {
    const SoftmaxResult result = plan.kernels->softmax(outputs, labels, batch * plan.predictions,
                                                       plan.classes, scale, gradient);
    return {result.loss_sum, result.correct};
  }
  LossResult result;
  const float per_output = scale / static_cast<float>(plan.outputs);
  for (std::size_t b = 0; b < batch; ++b) {
    float* row_gradient = gradient == nullptr ? nullptr : gradient + b * plan.outputs;
    if (!has_target(plan, labels[b])) {
      if (row_gradient != nullptr) std::fill_n(row_gradient, plan.outputs, 0.0f);
      continue;
    }
    const float* y = outputs + b * plan.outputs;
    const double sum =
        terms(plan, inputs + b * plan.inputs, labels[b], y, per_output, row_gradient);
    result.sum += sum / static_cast<double>(plan.outputs);
    result.correct += is_correct(plan, y, labels[b]) ? 1 : 0;
  }
  return result;
}

}  // namespace covey::models
