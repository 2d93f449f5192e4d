#include <algorithm>
#include <covey/models/inspect.hpp>
#include <covey/models/optimizer.hpp>

#include "memory_plan.hpp"
#include "network_plan.hpp"
#include "workspace.hpp"

namespace covey::models {

namespace {

std::size_t bytes(std::size_t floats) { return floats * sizeof(float); }

/// The kinds of the layers from this stage's own to the one before the next stage's.
std::string name_of(const NetworkPlan& plan, std::size_t stage) {
  const std::size_t first = plan.stages[stage].layer;
  const bool last = stage + 1 == plan.stages.size();
  const std::size_t end = last ? plan.spec.layers.size() : plan.stages[stage + 1].layer;
  std::string name;
  for (std::size_t layer = first; layer < end; ++layer) {
    if (!name.empty()) name += " + ";
    name += to_string(plan.spec.layers[layer].kind);
  }
  return name;
}

}  // namespace

ModelReport inspect(const Network& network, std::size_t batch, const OptimizerSpec& optimizer) {
  const NetworkPlan& plan = network.plan();
  const Workspace::Buffers training(plan, {.max_batch = batch});
  const Workspace::Buffers inference(plan, {.max_batch = batch, .training = false});
  const std::size_t chunk = training.memory.chunk;
  ModelReport report;
  report.batch = batch;
  report.chunk = chunk;
  report.parameters = plan.layout.size();
  report.training_flops = plan.training_flops;
  report.training_bytes = training.bytes();
  report.unshared_bytes = bytes(training.memory.unshared + training.parameter_gradient.size());
  report.inference_bytes = inference.bytes();
  if (!Optimizer::is_fused(optimizer)) {
    const bool counted = training.parameter_gradient.size() > 0;
    report.optimizer_bytes = Optimizer(optimizer, plan.layout.size()).bytes() +
                             (counted ? 0 : bytes(plan.layout.size()));
  }
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const PlannedStage& stage = plan.stages[s];
    const StageMemory memory = memory_of(stage.kind, chunk);
    LayerReport layer{.name = name_of(plan, s),
                      .output_shape = stage.output_shape,
                      .parameters = stage.parameters,
                      .forward_flops = 2 * stage.multiply_adds};
    layer.output_bytes = bytes(stage.outputs * chunk);
    layer.saved_bytes = bytes(memory.saved);
    layer.scratch_bytes = bytes(std::max(memory.forward_scratch, memory.backward_scratch));
    if (s >= plan.first_trained) layer.gradient_bytes = layer.output_bytes;
    report.forward_flops += layer.forward_flops;
    report.layers.push_back(std::move(layer));
  }
  return report;
}

}  // namespace covey::models
