#pragma once

#include <covey/models/network.hpp>
#include <covey/parameter_vector.hpp>
#include <cstddef>

#include "memory_plan.hpp"

namespace covey::models {

/// The whole batch, or as many examples as fit 32 MiB; statistics over a batch need it whole.
MemoryPlan plan_memory(const NetworkPlan& plan, std::size_t max_batch, bool training);

/// Error where a step on `batch` examples takes more than kMaxStepBytes: the description and the batch
/// come from a server.
Result<void> check_step_memory(const NetworkPlan& plan, std::size_t batch);

/// One block of floats, laid out once by a MemoryPlan. A batch larger than the plan's chunk runs in
/// pieces, so that the memory a wide network needs does not grow with the batch.
struct Workspace::Buffers {
  Buffers(const NetworkPlan& plan, const WorkspaceOptions& wanted);

  WorkspaceOptions options;
  MemoryPlan memory;
  ParameterVector block;
  ParameterVector parameter_gradient;  ///< R^d, where a step may need it whole

  /// Null where there is no such buffer.
  float* at(std::size_t offset) {
    return offset == StageBuffers::kNone ? nullptr : block.data() + offset;
  }
  std::size_t bytes() const { return sizeof(float) * (block.size() + parameter_gradient.size()); }
};

}  // namespace covey::models
