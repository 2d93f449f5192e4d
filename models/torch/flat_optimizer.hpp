#pragma once

#include <ATen/core/Tensor.h>

#include <covey/optimizer.hpp>
#include <cstddef>
#include <cstdint>

namespace covey::torch {

/// The optimisers of OptimizerSpec on one flat tensor: a handful of whole-vector operations a step,
/// however many tensors the module has. State is allocated at the first step that needs it and
/// kept. One thread at a time.
class FlatOptimizer {
 public:
  /// Forgets all state.
  void begin(const OptimizerSpec& spec);
  /// weights: R^p, moved; gradient: R^p, overwritten.
  void step(at::Tensor& weights, at::Tensor& gradient, float learning_rate);

  std::size_t bytes() const;

 private:
  void momentum_step(at::Tensor& weights, at::Tensor& gradient, double learning_rate);
  void adam_step(at::Tensor& weights, const at::Tensor& gradient, double learning_rate);

  OptimizerSpec spec_;
  std::int64_t steps_ = 0;
  at::Tensor first_;    ///< momentum, or Adam's mean of gradients
  at::Tensor second_;   ///< Adam's mean of squared gradients
  at::Tensor scratch_;  ///< Adam's denominator
};

}  // namespace covey::torch
