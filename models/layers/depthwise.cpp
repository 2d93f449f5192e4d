#include "layers/depthwise.hpp"

#include "layers/windows.hpp"
#include "planner.hpp"

namespace covey::models {

Result<void> plan_depthwise(Planner& planner) {
  COVEY_TRY(planner.need_image());
  COVEY_ASSIGN(const ConvolutionShape shape, plan_windows(planner, planner.shape()[2]));
  const auto kernel = static_cast<std::uint32_t>(shape.kernel);
  const auto channels = static_cast<std::uint32_t>(shape.channels_in);
  const std::size_t taps = shape.kernel * shape.kernel;  // <= 2^12, channels <= 2^26
  COVEY_TRY(planner.check_sizes((taps + 1) * channels, positions_of(shape) * channels));
  DepthwiseStage stage{.shape = shape};
  const std::string name = planner.number("depthwise");
  stage.weight = planner.add_tensor(name + ".weight", {kernel, kernel, channels},
                                    {TensorInit::Kind::kWeight, taps, taps});
  stage.bias =
      planner.add_tensor(name + ".bias", {channels}, {TensorInit::Kind::kBias, taps, taps});
  planner.add_stage(stage,
                    {static_cast<std::uint32_t>(shape.out_height),
                     static_cast<std::uint32_t>(shape.out_width), channels},
                    static_cast<double>(positions_of(shape) * taps) * channels);
  return {};
}

StageMemory memory_of(const DepthwiseStage&, std::size_t) { return {}; }

void forward(const DepthwiseStage& stage, const ForwardPass& pass) {
  for (std::size_t b = 0; b < pass.batch; ++b) {
    pass.kernels.depthwise(stage.shape, pass.inputs + b * stage.inputs(),
                           pass.parameters + stage.weight, pass.parameters + stage.bias, stage.relu,
                           pass.outputs + b * stage.outputs());
  }
}

void backward(const DepthwiseStage& stage, const BackwardPass& pass, const Descent& descent) {
  const ConvolutionShape& shape = stage.shape;
  const std::size_t size = pass.batch * stage.outputs();
  if (stage.relu) pass.kernels.relu_backward(pass.outputs, size, pass.gradient_outputs);
  for (std::size_t b = 0; pass.gradient_inputs != nullptr && b < pass.batch; ++b) {
    pass.kernels.depthwise_input_gradient(shape, pass.gradient_outputs + b * stage.outputs(),
                                          pass.parameters + stage.weight,
                                          pass.gradient_inputs + b * stage.inputs());
  }
  descent.pull(pass.kernels, stage.bias, shape.channels_in);
  pass.kernels.add_column_sums(pass.gradient_outputs, size / shape.channels_in, shape.channels_in,
                               descent.factor(), descent.values + stage.bias);
  descent.pull(pass.kernels, stage.weight, shape.kernel * shape.kernel * shape.channels_in);
  pass.kernels.depthwise_weight_gradient(shape, pass.batch, pass.inputs, pass.gradient_outputs,
                                         descent.factor(), descent.values + stage.weight);
}

}  // namespace covey::models
