#pragma once

#include "layers/recurrent.hpp"

namespace covey::models {

/// An LSTM (Hochreiter and Schmidhuber 1997) with forget gate, from a zero state. Of the inputs
/// x_t, the state h_{t-1} and the cell c_{t-1}:
///   i, f, o = sigmoid(x W + h U + b + peephole), g = tanh(x W + h U + b)
///   c_t = f c_{t-1} + i g, h_t = o tanh(c_t)
/// where the peephole terms (Gers and Schmidhuber 2000) are p_i c_{t-1}, p_f c_{t-1} and p_o c_t.
/// Gates lie in the order i, f, g, o, as in PyTorch, which has two bias vectors where this has one.
struct LstmStage {
  std::size_t steps = 0;
  RecurrentWeights weights;  ///< gates = 4 units
  std::size_t bias = 0;      ///< [4 x units]
  std::size_t peephole = 0;  ///< [3 x units], where there is one
  bool last_only = false;    ///< outputs are the last h alone
  bool has_peephole = false;

  /// All tensors lie behind each other, the weight first.
  std::size_t parameters() const {
    const RecurrentWeights& w = weights;
    return (w.inputs + w.units + 1) * w.gates + (has_peephole ? 3 * w.units : 0);
  }
};

Result<void> plan_lstm(Planner& planner);
StageMemory memory_of(const LstmStage& stage, std::size_t batch);
void forward(const LstmStage& stage, const ForwardPass& pass);
void backward(const LstmStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
