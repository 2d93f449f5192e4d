#include "workspace.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace covey::models {

namespace {

/// 32 MiB: batches of 50 of the cnn preset still run whole, evaluation of thousands of examples
/// takes no more.
constexpr std::size_t kMaxFloats = std::size_t{8} << 20;

}  // namespace

MemoryPlan plan_memory(const NetworkPlan& plan, std::size_t max_batch, bool training) {
  MemoryPlan memory = MemoryPlan::make(plan, max_batch, training);
  if (memory.floats <= kMaxFloats || (training && plan.needs_whole_batch())) return memory;
  // Memory is linear in the batch but for what the batch does not change.
  const std::size_t per_example = memory.floats / max_batch + 1;
  const std::size_t chunk = std::clamp<std::size_t>(kMaxFloats / per_example, 1, max_batch);
  return MemoryPlan::make(plan, chunk, training);
}

Result<void> check_step_memory(const NetworkPlan& plan, std::size_t batch) {
  constexpr std::size_t kMaxStepBytes = std::size_t{1} << 30;
  if (batch == 0) return {};
  const std::size_t bytes = plan_memory(plan, batch, true).floats * sizeof(float);
  if (bytes <= kMaxStepBytes) return {};
  return invalid_argument(
      fmt::format("a training step of this network on {} examples takes {} MiB beside the "
                  "parameters; at most {} MiB work",
                  batch, bytes >> 20, kMaxStepBytes >> 20));
}

Workspace::Buffers::Buffers(const NetworkPlan& plan, const WorkspaceOptions& wanted)
    : options(wanted) {
  options.max_batch = std::max<std::size_t>(options.max_batch, 1);
  memory = plan_memory(plan, options.max_batch, options.training);
  block = ParameterVector(memory.floats);
  const bool in_pieces = options.training && memory.chunk < options.max_batch;
  if (in_pieces || options.keeps_gradient) {
    parameter_gradient = ParameterVector(plan.layout.size());
  }
}

Workspace::Workspace(const Network& network, const WorkspaceOptions& options)
    : buffers_(std::make_unique<Buffers>(network.plan(), options)) {}
Workspace::Workspace(const Network& network, std::size_t max_batch)
    : Workspace(network, WorkspaceOptions{.max_batch = max_batch}) {}
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;
Workspace::~Workspace() = default;

std::size_t Workspace::max_batch() const { return buffers_->options.max_batch; }
std::size_t Workspace::bytes() const { return buffers_->bytes(); }

}  // namespace covey::models
