#pragma once

#include <covey/optimizer.hpp>
#include <covey/parameter_vector.hpp>
#include <cstddef>
#include <cstdint>
#include <span>

namespace covey::models {

struct Kernels;

/// Turns gradients into steps, with the state that takes: none for SGD, R^d for momentum and
/// nesterov, 2 R^d for adam and adamw. One model, one thread.
class Optimizer {
 public:
  Optimizer(const OptimizerSpec& spec, std::size_t num_parameters);

  const OptimizerSpec& spec() const { return spec_; }
  /// True where steps need no state and no look at the whole gradient, so that they can be taken
  /// while it is computed.
  static bool is_fused(const OptimizerSpec& spec) {
    return spec.kind == OptimizerKind::kSgd && spec.clip_norm == 0;
  }
  /// Forgets everything: the next step is the first.
  void reset();

  /// Before the update() calls of a step.
  void begin_step() { ++steps_; }
  /// The step on parameters [offset, offset + gradient.size()); `gradient` is overwritten.
  void update(std::size_t offset, std::span<float> gradient, std::span<float> parameters,
              float learning_rate);
  std::size_t bytes() const { return (first_.size() + second_.size()) * sizeof(float); }

 private:
  OptimizerSpec spec_;
  const Kernels* kernels_;
  std::uint64_t steps_ = 0;
  ParameterVector first_;   ///< momentum, or Adam's m
  ParameterVector second_;  ///< Adam's v
};

/// Scales `gradient` to the l2 norm `clip_norm` if its own is larger. Returns the factor.
float clip_gradient(std::span<float> gradient, float clip_norm);

}  // namespace covey::models
