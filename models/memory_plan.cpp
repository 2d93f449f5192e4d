#include "memory_plan.hpp"

#include <algorithm>
#include <numeric>

namespace covey::models {

namespace {

constexpr std::size_t kLine = 16;  // floats of a cache line, and of the widest vector

std::size_t room(std::size_t floats) {
  return (floats + kKernelSlack + kLine - 1) / kLine * kLine;
}

/// Collects requests and remembers where each result belongs.
class Requests {
 public:
  void add(std::size_t StageBuffers::*member, std::size_t stage, std::size_t floats,
           std::size_t first, std::size_t last) {
    if (floats == 0) return;
    requests_.push_back({floats, first, last, 0});
    homes_.push_back({member, stage});
  }

  void finish(MemoryPlan& plan) {
    plan.floats = place(requests_);
    for (const BufferRequest& request : requests_) plan.unshared += room(request.floats);
    for (std::size_t i = 0; i < homes_.size(); ++i) {
      plan.stages[homes_[i].stage].*homes_[i].member = requests_[i].offset;
    }
  }

 private:
  struct Home {
    std::size_t StageBuffers::*member;
    std::size_t stage;
  };
  std::vector<BufferRequest> requests_;
  std::vector<Home> homes_;
};

}  // namespace

std::size_t place(std::vector<BufferRequest>& requests) {
  std::vector<std::size_t> order(requests.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return requests[a].floats > requests[b].floats;
  });
  std::size_t total = 0;
  std::vector<const BufferRequest*> placed;  // by offset
  for (const std::size_t i : order) {
    BufferRequest& request = requests[i];
    const std::size_t size = room(request.floats);
    std::size_t offset = 0;
    for (const BufferRequest* other : placed) {
      if (other->last < request.first || request.last < other->first) continue;
      if (offset + size <= other->offset) break;
      offset = std::max(offset, other->offset + room(other->floats));
    }
    request.offset = offset;
    total = std::max(total, offset + size);
    const auto after = std::ranges::upper_bound(
        placed, offset, {}, [](const BufferRequest* other) { return other->offset; });
    placed.insert(after, &request);
  }
  return total;
}

MemoryPlan MemoryPlan::make(const NetworkPlan& plan, std::size_t chunk, bool training) {
  MemoryPlan result;
  result.chunk = chunk;
  const std::size_t count = plan.stages.size();
  result.stages.resize(count);
  const auto backward = [count](std::size_t s) { return 2 * count - s; };
  Requests requests;
  for (std::size_t s = 0; s < count; ++s) {
    const PlannedStage& stage = plan.stages[s];
    const StageMemory memory = memory_of(stage.kind, chunk);
    const bool trained = training && s >= plan.first_trained;
    // Whoever consumes the outputs: the next stage or the loss, and residuals.
    std::size_t last = std::max(s + 1, plan.last_residual(s));
    if (training && s + 1 >= plan.first_trained) last = std::max(last, backward(s + 1));
    if (trained) last = backward(s);
    requests.add(&StageBuffers::outputs, s, stage.outputs * chunk, s, last);
    requests.add(&StageBuffers::saved, s, memory.saved, s, trained ? backward(s) : s);
    requests.add(&StageBuffers::forward_scratch, s, memory.forward_scratch, s, s);
    if (!trained) continue;
    requests.add(&StageBuffers::backward_scratch, s, memory.backward_scratch, backward(s),
                 backward(s));
    requests.add(&StageBuffers::gradient, s, stage.outputs * chunk, backward(s) - 1, backward(s));
    if (const std::size_t residual = plan.last_residual(s); residual > s) {
      requests.add(&StageBuffers::skip_gradient, s, stage.outputs * chunk, backward(residual),
                   backward(s) - 1);
    }
  }
  requests.finish(result);
  return result;
}

}  // namespace covey::models
