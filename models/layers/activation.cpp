#include "layers/activation.hpp"

#include <algorithm>

#include "planner.hpp"

namespace covey::models {

namespace {

/// Whether the stage before can do the relu itself.
bool fuse_relu(Stage& last) {
  return std::visit(
      [](auto& stage) {
        if constexpr (requires { stage.relu; }) {
          stage.relu = true;
          return true;
        } else {
          return false;
        }
      },
      last);
}

}  // namespace

Result<void> plan_activation(Planner& planner) {
  const LayerKind kind = planner.layer().kind;
  Stage* last = kind == LayerKind::kRelu ? planner.fusable() : nullptr;
  if (last != nullptr && fuse_relu(*last)) {
    planner.add_nothing(planner.shape());
    return {};
  }
  COVEY_TRY(planner.check_sizes(0, planner.shape_size()));
  planner.add_stage(ActivationStage{kind, planner.shape_size()}, planner.shape());
  return {};
}

StageMemory memory_of(const ActivationStage&, std::size_t) { return {}; }

void forward(const ActivationStage& stage, const ForwardPass& pass) {
  const Kernels& kernels = pass.kernels;
  const auto function = stage.kind == LayerKind::kGelu      ? kernels.gelu
                        : stage.kind == LayerKind::kTanh    ? kernels.tanh
                        : stage.kind == LayerKind::kSigmoid ? kernels.sigmoid
                                                            : kernels.relu;
  function(pass.inputs, pass.batch * stage.size, pass.outputs);
}

void backward(const ActivationStage& stage, const BackwardPass& pass, const Descent&) {
  if (pass.gradient_inputs == nullptr) return;
  const Kernels& kernels = pass.kernels;
  const std::size_t size = pass.batch * stage.size;
  std::copy_n(pass.gradient_outputs, size, pass.gradient_inputs);
  if (stage.kind == LayerKind::kGelu) {
    kernels.gelu_backward(pass.inputs, size, pass.gradient_inputs);
    return;
  }
  const auto function = stage.kind == LayerKind::kTanh      ? kernels.tanh_backward
                        : stage.kind == LayerKind::kSigmoid ? kernels.sigmoid_backward
                                                            : kernels.relu_backward;
  function(pass.outputs, size, pass.gradient_inputs);
}

}  // namespace covey::models
