#pragma once

#include "layers/recurrent.hpp"

namespace covey::models {

/// A GRU (Cho et al. 2014) as PyTorch defines it, with the reset gate behind the recurrent product,
/// from a zero state. Of the inputs x_t and the state h_{t-1}:
///   r, z = sigmoid(x W + b_input + h U + b_recurrent)
///   n = tanh(x W + b_input + r (h U + b_recurrent)), h_t = (1 - z) n + z h_{t-1}
/// Gates lie in the order r, z, n.
struct GruStage {
  std::size_t steps = 0;
  RecurrentWeights weights;        ///< gates = 3 units
  std::size_t bias_input = 0;      ///< [3 x units]
  std::size_t bias_recurrent = 0;  ///< [3 x units]
  bool last_only = false;          ///< outputs are the last h alone

  /// All tensors lie behind each other, the weight first.
  std::size_t parameters() const { return (weights.inputs + weights.units + 2) * weights.gates; }
};

Result<void> plan_gru(Planner& planner);
StageMemory memory_of(const GruStage& stage, std::size_t batch);
void forward(const GruStage& stage, const ForwardPass& pass);
void backward(const GruStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
