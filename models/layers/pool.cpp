#include "layers/pool.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "planner.hpp"

namespace covey::models {

Result<void> plan_pool(Planner& planner) {
  COVEY_TRY(planner.need_image());
  const LayerSpec& layer = planner.layer();
  const auto& shape = planner.shape();
  if (layer.kernel == 0 || layer.kernel > shape[0] || layer.kernel > shape[1]) {
    return planner.refuse(fmt::format("has a window of {}x{}, which does not fit its input {}",
                                      layer.kernel, layer.kernel, Planner::text(shape)));
  }
  const std::uint32_t stride = layer.stride == 0 ? layer.kernel : layer.stride;
  const std::uint32_t height = (shape[0] - layer.kernel) / stride + 1;
  const std::uint32_t width = (shape[1] - layer.kernel) / stride + 1;
  const PoolStage stage{.shape = {.height = shape[0],
                                  .width = shape[1],
                                  .channels = shape[2],
                                  .kernel = layer.kernel,
                                  .stride = stride},
                        .out_height = height,
                        .out_width = width,
                        .average = layer.kind == LayerKind::kAveragePool2d};
  COVEY_TRY(planner.check_sizes(0, stage.outputs()));
  planner.add_stage(stage, {height, width, shape[2]});
  return {};
}

Result<void> plan_global_pool(Planner& planner) {
  const auto& shape = planner.shape();
  if (shape.size() < 2) {
    return planner.refuse(
        "takes [height, width, channels] or a sequence [steps, features] but receives " +
        Planner::text(shape));
  }
  const GlobalPoolStage stage{.positions = planner.shape_size() / shape.back(),
                              .channels = shape.back()};
  COVEY_TRY(planner.check_sizes(0, stage.channels));
  planner.add_stage(stage, {shape.back()});
  return {};
}

StageMemory memory_of(const PoolStage&, std::size_t) { return {}; }

void forward(const PoolStage& stage, const ForwardPass& pass) {
  const auto pool = stage.average ? pass.kernels.average_pool : pass.kernels.max_pool;
  for (std::size_t b = 0; b < pass.batch; ++b) {
    pool(stage.shape, pass.inputs + b * stage.inputs(), pass.outputs + b * stage.outputs());
  }
}

void backward(const PoolStage& stage, const BackwardPass& pass, const Descent&) {
  if (pass.gradient_inputs == nullptr) return;
  for (std::size_t b = 0; b < pass.batch; ++b) {
    const std::size_t in = b * stage.inputs();
    const std::size_t out = b * stage.outputs();
    if (stage.average) {
      pass.kernels.average_pool_backward(stage.shape, pass.gradient_outputs + out,
                                         pass.gradient_inputs + in);
    } else {
      pass.kernels.max_pool_backward(stage.shape, pass.inputs + in, pass.outputs + out,
                                     pass.gradient_outputs + out, pass.gradient_inputs + in);
    }
  }
}

StageMemory memory_of(const GlobalPoolStage&, std::size_t) { return {}; }

void forward(const GlobalPoolStage& stage, const ForwardPass& pass) {
  const float share = 1.0f / static_cast<float>(stage.positions);
  std::fill_n(pass.outputs, pass.batch * stage.channels, 0.0f);
  for (std::size_t b = 0; b < pass.batch; ++b) {
    pass.kernels.add_column_sums(pass.inputs + b * stage.positions * stage.channels,
                                 stage.positions, stage.channels, share,
                                 pass.outputs + b * stage.channels);
  }
}

void backward(const GlobalPoolStage& stage, const BackwardPass& pass, const Descent&) {
  if (pass.gradient_inputs == nullptr) return;
  pass.kernels.scale(pass.gradient_outputs, pass.batch * stage.channels,
                     1.0f / static_cast<float>(stage.positions));
  float* to = pass.gradient_inputs;
  for (std::size_t b = 0; b < pass.batch; ++b) {
    for (std::size_t p = 0; p < stage.positions; ++p) {
      to = std::copy_n(pass.gradient_outputs + b * stage.channels, stage.channels, to);
    }
  }
}

}  // namespace covey::models
