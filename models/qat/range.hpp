#pragma once

#include "layers/layer.hpp"

namespace covey::models {

struct NetworkPlan;

/// The scale of a tensor's int8 values: its range is 127 steps wide in either direction.
constexpr float activation_scale(float range) { return range / 127.0f; }

/// Fake quantisation of activations: y = scale * clip(round(x / scale), -127, 127) with scale =
/// range / 127 (Jacob et al. 2018, section 3, symmetric). The gradient passes unchanged where |x|
/// <= range and not at all beyond (Choi et al. 2018, "PACT", eq. 2).
///
/// The range is one float of the parameter vector that no optimiser touches: in training the moving
/// average of each batch's largest |x|, begun with the first batch's. While it is not known (not
/// positive) values pass as they are.
struct RangeStage {
  std::size_t range = 0;  ///< offset in the parameter vector
  std::size_t size = 0;   ///< of one example
  /// False for the scores: integers keep them in 32 bits, so only their range is noted.
  bool rounds = true;
};

StageMemory memory_of(const RangeStage& stage, std::size_t batch);
void forward(const RangeStage& stage, const ForwardPass& pass);
void backward(const RangeStage& stage, const BackwardPass& pass, const Descent& descent);

/// Makes a plan one for quantisation-aware training: the network's input and the outputs of every
/// dense and convolution stage (with its relu; behind the pooling that follows, which changes no
/// value) are fake-quantised, and the layout ends with their ranges: "input.range", "conv1.range",
/// "dense1.range", ... {1}, in the order of the stages. Error naming the first layer that the
/// integer engine does not know.
Result<void> add_ranges(NetworkPlan& plan);

}  // namespace covey::models
