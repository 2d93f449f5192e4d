#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.hpp"

/// What every stage's forward and backward pass are given. [batch x ...], row-major; a batch is at
/// most the workspace's chunk.
namespace covey::models {

/// Floats that a stage needs beside its inputs and outputs, for a batch of a given size.
struct StageMemory {
  std::size_t saved = 0;             ///< written by the forward pass, read by the backward pass
  std::size_t forward_scratch = 0;   ///< contents are arbitrary when the pass begins
  std::size_t backward_scratch = 0;  ///< likewise
};

/// Another key for each stage of a step (SplitMix64's increment and finaliser, Steele et al. 2014).
constexpr std::uint64_t stage_key(std::uint64_t key, std::size_t stage) {
  std::uint64_t z = key + (stage + 1) * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

struct ForwardPass {
  const Kernels& kernels;
  std::size_t batch;
  const float* parameters;  ///< R^d
  const float* inputs;
  const float* skip;  ///< the second input of an add stage, else null
  float* outputs;
  float* saved;
  float* scratch;
  bool training;             ///< batch statistics instead of running ones; dropout
  float* running;            ///< R^d where running statistics are to be updated, else null
  std::uint64_t random_key;  ///< of this step and stage: what dropout draws from
  std::size_t first_example = 0;  ///< of this part within the batch
};

struct BackwardPass {
  const Kernels& kernels;
  std::size_t batch;
  const float* parameters;  ///< before the step; the same memory as Descent::values when updating
  const float* inputs;
  const float* outputs;
  float* gradient_outputs;  ///< may be overwritten
  float* gradient_inputs;   ///< to be written whole; null: nothing below needs it
  float* saved;
  float* scratch;
  std::uint64_t random_key;  ///< as in the forward pass
  std::size_t first_example = 0;
};

/// What becomes of a parameter's gradient g: added to `values` (gradient), or, where `update` is
/// set, values <- values - learning_rate * (g + proximal_mu * (values - anchor) + weight_decay *
/// values + correction) on the parameters themselves, in the pass that computes g.
struct Descent {
  float* values = nullptr;  ///< R^d
  bool update = false;
  float learning_rate = 0;
  float proximal_mu = 0;
  float weight_decay = 0;
  const float* anchor = nullptr;      ///< R^d where proximal_mu > 0
  const float* correction = nullptr;  ///< R^d, or null

  /// Factor of g as it is added to values.
  float factor() const { return update ? -learning_rate : 1.0f; }

  /// The terms beside g, on values[offset, offset + n), where asked for. Before the gradient is
  /// added: all terms see the parameters before the step.
  void pull(const Kernels& kernels, std::size_t offset, std::size_t n) const {
    if (!update) return;
    if (proximal_mu != 0 && weight_decay == 0) {
      kernels.pull(anchor + offset, n, learning_rate * proximal_mu, values + offset);
    } else if (proximal_mu != 0 || weight_decay != 0) {
      kernels.scale(values + offset, n, 1.0f - learning_rate * (proximal_mu + weight_decay));
      if (proximal_mu != 0) {
        kernels.add_scaled(anchor + offset, n, learning_rate * proximal_mu, values + offset);
      }
    }
    if (correction != nullptr) {
      kernels.add_scaled(correction + offset, n, -learning_rate, values + offset);
    }
  }
};

}  // namespace covey::models
