#include <algorithm>
#include <cmath>
#include <covey/models/optimizer.hpp>

#include "kernels/kernels.hpp"

namespace covey::models {

Optimizer::Optimizer(const OptimizerSpec& spec, std::size_t num_parameters)
    : spec_(spec), kernels_(&selected_kernels()) {
  if (spec.kind == OptimizerKind::kSgd) return;
  first_ = ParameterVector(num_parameters);
  const bool adam = spec.kind == OptimizerKind::kAdam || spec.kind == OptimizerKind::kAdamW;
  if (adam) second_ = ParameterVector(num_parameters);
}

void Optimizer::reset() {
  steps_ = 0;
  std::ranges::fill(first_.span(), 0.0f);
  std::ranges::fill(second_.span(), 0.0f);
}

void Optimizer::update(std::size_t offset, std::span<float> gradient, std::span<float> parameters,
                       float learning_rate) {
  const std::size_t n = gradient.size();
  float* g = gradient.data();
  float* w = parameters.data();
  if (spec_.weight_decay != 0) {
    if (spec_.kind == OptimizerKind::kAdamW) {
      kernels_->scale(w, n, 1.0f - learning_rate * spec_.weight_decay);
    } else {
      kernels_->add_scaled(w, n, spec_.weight_decay, g);
    }
  }
  float* first = first_.size() == 0 ? nullptr : first_.data() + offset;
  switch (spec_.kind) {
    case OptimizerKind::kSgd:
      kernels_->add_scaled(g, n, -learning_rate, w);
      return;
    case OptimizerKind::kMomentum:
    case OptimizerKind::kNesterov:
      kernels_->momentum_step(g, n, spec_.momentum, learning_rate,
                              spec_.kind == OptimizerKind::kNesterov, first, w);
      return;
    case OptimizerKind::kAdam:
    case OptimizerKind::kAdamW: {
      const auto t = static_cast<double>(steps_);
      const double unbias1 = 1.0 - std::pow(static_cast<double>(spec_.beta1), t);
      const double unbias2 = 1.0 - std::pow(static_cast<double>(spec_.beta2), t);
      const AdamStep step{.beta1 = spec_.beta1,
                          .beta2 = spec_.beta2,
                          .rate = static_cast<float>(static_cast<double>(learning_rate) / unbias1),
                          .root = static_cast<float>(1.0 / std::sqrt(unbias2)),
                          .epsilon = spec_.epsilon};
      kernels_->adam_step(step, g, n, first, second_.data() + offset, w);
      return;
    }
  }
}

float clip_gradient(std::span<float> gradient, float clip_norm) {
  const Kernels& kernels = selected_kernels();
  const double norm = std::sqrt(kernels.squared_norm(gradient.data(), gradient.size()));
  if (!(norm > static_cast<double>(clip_norm))) return 1.0f;  // NaN stays, and shows in the loss
  const auto factor = static_cast<float>(static_cast<double>(clip_norm) / norm);
  kernels.scale(gradient.data(), gradient.size(), factor);
  return factor;
}

}  // namespace covey::models
