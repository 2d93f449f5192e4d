#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "network_plan.hpp"

namespace covey::models {

/// A buffer of floats that is needed from one moment to another, both included.
struct BufferRequest {
  std::size_t floats = 0;
  std::size_t first = 0;
  std::size_t last = 0;
  std::size_t offset = 0;  ///< result, in floats
};

/// Places the requests in one block so that buffers which live at the same time do not overlap:
/// largest first, each at the lowest free offset (Pisarchyk and Lee 2020, "Efficient Memory
/// Management for Deep Neural Net Inference", greedy by size). Each starts on a cache line and has
/// kKernelSlack floats behind it. Returns the block's size in floats.
std::size_t place(std::vector<BufferRequest>& requests);

/// Offsets of a stage's buffers; kNone where it has no such buffer.
struct StageBuffers {
  static constexpr std::size_t kNone = SIZE_MAX;
  std::size_t outputs = kNone;
  std::size_t saved = kNone;
  std::size_t forward_scratch = kNone;
  std::size_t backward_scratch = kNone;
  std::size_t gradient = kNone;       ///< of the stage's outputs
  std::size_t skip_gradient = kNone;  ///< what a later add stage sends back to these outputs
};

/// Where everything lies for batches of `chunk` examples. Moments: the forward pass of stage s of S
/// is moment s, the loss S, the backward pass of stage s is 2S - s.
struct MemoryPlan {
  std::size_t chunk = 0;
  std::size_t floats = 0;    ///< of the block
  std::size_t unshared = 0;  ///< what the same buffers take without sharing
  std::vector<StageBuffers> stages;

  static MemoryPlan make(const NetworkPlan& plan, std::size_t chunk, bool training);
};

}  // namespace covey::models
