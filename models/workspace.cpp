#include "workspace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace covey::models {

namespace {

/// 32 MiB: batches of 50 of the cnn preset still run whole, evaluation of thousands of examples
/// takes no more.
constexpr std::size_t kMaxFloats = std::size_t{8} << 20;
/// Floats of 4 GiB: with 32-bit addresses, sizes of a batch that may take more are not even formed.
constexpr std::uint64_t kSurelyFits = sizeof(std::size_t) < 8
                                          ? (std::uint64_t{1} << 30) - 1
                                          : std::numeric_limits<std::uint64_t>::max();

/// At least what `batch` examples take: memory is linear in the batch but for what the batch does
/// not change.
std::uint64_t most_floats(const NetworkPlan& plan, std::uint64_t batch) {
  return MemoryPlan::make(plan, 1, true).floats * batch;
}

}  // namespace

MemoryPlan plan_memory(const NetworkPlan& plan, std::size_t max_batch, bool training) {
  const bool whole = training && plan.needs_whole_batch();
  std::size_t per_example = 0;
  if (most_floats(plan, max_batch) <= kSurelyFits || whole) {
    MemoryPlan memory = MemoryPlan::make(plan, max_batch, training);
    if (memory.floats <= kMaxFloats || whole) return memory;
    per_example = memory.floats / max_batch + 1;
  } else {
    per_example = MemoryPlan::make(plan, 1, training).floats;
  }
  const std::size_t chunk = std::clamp<std::size_t>(kMaxFloats / per_example, 1, max_batch);
  return MemoryPlan::make(plan, chunk, training);
}

Result<void> check_step_memory(const NetworkPlan& plan, std::size_t batch) {
  constexpr std::size_t kMaxStepBytes = std::size_t{1} << 30;
  if (batch == 0) return {};
  // A batch that has to stay whole is refused before its sizes are formed.
  const std::uint64_t most = most_floats(plan, batch);
  const std::uint64_t floats =
      most > kSurelyFits && plan.needs_whole_batch() ? most : plan_memory(plan, batch, true).floats;
  const std::uint64_t bytes = floats * sizeof(float);
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
