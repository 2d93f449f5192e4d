#include "flat_optimizer.hpp"

#include <ATen/ATen.h>

#include <cmath>

namespace covey::torch {
namespace {

/// A zero vector like `weights`; the one there is, when it has that shape.
void zero_like(at::Tensor& state, const at::Tensor& weights) {
  if (state.defined() && state.sizes() == weights.sizes()) {
    state.zero_();
  } else {
    state = at::zeros_like(weights);
  }
}

std::size_t bytes_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.nbytes() : 0; }

}  // namespace

void FlatOptimizer::begin(const OptimizerSpec& spec) {
  spec_ = spec;
  steps_ = 0;
}

void FlatOptimizer::step(at::Tensor& weights, at::Tensor& gradient, float learning_rate) {
  const double rate = learning_rate;
  if (spec_.clip_norm > 0) {
    const double norm = gradient.norm().item<double>();
    if (norm > spec_.clip_norm) gradient.mul_(spec_.clip_norm / norm);
  }
  if (spec_.weight_decay > 0) {
    if (spec_.kind == OptimizerKind::kAdamW) {
      weights.mul_(1 - rate * spec_.weight_decay);
    } else {
      gradient.add_(weights, spec_.weight_decay);
    }
  }
  switch (spec_.kind) {
    case OptimizerKind::kSgd:
      weights.sub_(gradient, rate);
      break;
    case OptimizerKind::kMomentum:
    case OptimizerKind::kNesterov:
      momentum_step(weights, gradient, rate);
      break;
    case OptimizerKind::kAdam:
    case OptimizerKind::kAdamW:
      adam_step(weights, gradient, rate);
      break;
  }
  ++steps_;
}

void FlatOptimizer::momentum_step(at::Tensor& weights, at::Tensor& gradient, double learning_rate) {
  if (steps_ == 0) zero_like(first_, weights);
  first_.mul_(spec_.momentum).add_(gradient);
  if (spec_.kind == OptimizerKind::kNesterov) {
    weights.sub_(gradient.add_(first_, spec_.momentum), learning_rate);
  } else {
    weights.sub_(first_, learning_rate);
  }
}

/// Kingma and Ba 2015, Algorithm 1, with both bias corrections.
void FlatOptimizer::adam_step(at::Tensor& weights, const at::Tensor& gradient,
                              double learning_rate) {
  if (steps_ == 0) {
    zero_like(first_, weights);
    zero_like(second_, weights);
    if (!scratch_.defined() || scratch_.sizes() != weights.sizes()) {
      scratch_ = at::empty_like(weights);
    }
  }
  const double beta1 = spec_.beta1, beta2 = spec_.beta2;
  const auto t = static_cast<double>(steps_ + 1);
  first_.mul_(beta1).add_(gradient, 1 - beta1);
  second_.mul_(beta2).addcmul_(gradient, gradient, 1 - beta2);
  at::sqrt_out(scratch_, second_);
  scratch_.div_(std::sqrt(1 - std::pow(beta2, t))).add_(spec_.epsilon);
  weights.addcdiv_(first_, scratch_, -learning_rate / (1 - std::pow(beta1, t)));
}

std::size_t FlatOptimizer::bytes() const {
  return bytes_of(first_) + bytes_of(second_) + bytes_of(scratch_);
}

}  // namespace covey::torch
