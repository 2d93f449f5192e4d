#include <algorithm>
#include <covey/encoding.hpp>
#include <covey/models/engine.hpp>
#include <covey/models/int8_network.hpp>
#include <covey/models/optimizer.hpp>
#include <covey/models/training_memory.hpp>

#include "bf16/bf16_plan.hpp"
#include "network_plan.hpp"
#include "workspace.hpp"

namespace covey::models {
namespace {

constexpr std::size_t kFloat = sizeof(float);

/// Vectors of R^d that the optimiser keeps (Optimizer's constructor).
std::size_t state_vectors(const OptimizerSpec& optimizer) {
  switch (optimizer.kind) {
    case OptimizerKind::kSgd:
      return 0;
    case OptimizerKind::kMomentum:
    case OptimizerKind::kNesterov:
      return 1;
    case OptimizerKind::kAdam:
    case OptimizerKind::kAdamW:
      return 2;
  }
  return 2;
}

TrainingMemory of_layout(const ModelLayout& layout, Encoding encoding) {
  TrainingMemory memory;
  memory.parameters = layout.size();
  for (const TensorLayout& tensor : layout.tensors()) {
    memory.largest_tensor = std::max(memory.largest_tensor, tensor.size());
  }
  memory.model_bytes = encoded_size(encoding, layout);
  return memory;
}

/// VectorEngine, and QatEngine that adds the weights as int8 has them.
Result<TrainingMemory> of_vectors(const ModelSpec& spec, std::string_view precision,
                                  std::size_t max_batch, const OptimizerSpec& optimizer) {
  COVEY_ASSIGN(const Network network, make_network(spec, precision));
  const NetworkPlan& plan = network.plan();
  TrainingMemory memory = of_layout(plan.layout, Encoding::kFp32);
  const std::size_t vector = memory.parameters * kFloat;
  memory.weight_bytes = precision == "qat-int8" ? 2 * vector : vector;
  const MemoryPlan buffers = plan_memory(plan, max_batch, true);
  const bool whole_gradient = buffers.chunk < max_batch || !Optimizer::is_fused(optimizer);
  memory.scratch_bytes =
      buffers.floats * kFloat + (whole_gradient ? vector : 0) + state_vectors(optimizer) * vector;
  memory.example_size = plan.inputs;
  memory.labels_per_example = plan.predictions;
  memory.training_flops_per_example = plan.training_flops;
  return memory;
}

Result<TrainingMemory> of_bf16(const ModelSpec& spec, std::size_t max_batch,
                               const OptimizerSpec& optimizer) {
  COVEY_ASSIGN(const NetworkPlan plan, NetworkPlan::make(spec));
  TrainingMemory memory = of_layout(plan.layout, Encoding::kBf16);
  memory.weight_bytes = 2 * memory.model_bytes;  // w^t, as kernels read beyond its end, and w
  const Bf16Plan buffers = Bf16Plan::make(plan, max_batch);
  const bool whole_gradient = buffers.chunk < max_batch || !Optimizer::is_fused(optimizer);
  const std::size_t vector = memory.parameters * kFloat;
  memory.scratch_bytes =
      buffers.floats * kFloat + (whole_gradient ? vector : 0) + state_vectors(optimizer) * vector;
  memory.example_size = plan.inputs;
  memory.labels_per_example = plan.predictions;
  memory.training_flops_per_example = plan.training_flops;
  return memory;
}

Result<TrainingMemory> of_int8(const ModelSpec& spec, std::size_t max_batch) {
  COVEY_ASSIGN(const Int8Network network, Int8Network::make(spec));
  TrainingMemory memory = of_layout(network.layout(), Encoding::kInt8);
  memory.weight_bytes = network.parameter_bytes();
  memory.scratch_bytes = network.training_bytes(std::min(max_batch, network.max_batch()));
  memory.scratch_bytes += network.parameter_bytes();  // w^t likewise, with a proximal term
  memory.example_size = network.inputs();
  COVEY_ASSIGN(const Network same, Network::make(spec));  // as many operations, on smaller numbers
  memory.training_flops_per_example = same.training_flops_per_example();
  return memory;
}

}  // namespace

Result<TrainingMemory> training_memory(const ModelSpec& spec, std::string_view precision,
                                       std::size_t max_batch, const OptimizerSpec& optimizer) {
  COVEY_TRY(model_encoding(precision));  // names the precisions there are
  if (!spec.torchscript.empty()) {
    return failed("what a TorchScript file takes of memory is known only to libtorch");
  }
  max_batch = std::max<std::size_t>(1, max_batch);
  if (precision == "bf16") return of_bf16(spec, max_batch, optimizer);
  if (precision == "int8") return of_int8(spec, max_batch);
  return of_vectors(spec, precision, max_batch, optimizer);
}

}  // namespace covey::models
