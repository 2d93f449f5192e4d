#include "workspace.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace covey::models {

namespace {

/// Activations and their gradients of one chunk, 32 MiB: batches of 50 of the largest preset (the
/// cnn, 0.44 MB an example) still run whole, evaluation of thousands of examples takes no more.
constexpr std::size_t kChunkFloats = std::size_t{8} << 20;
constexpr std::size_t kSmallestChunk = 16;

std::size_t chunk_for(const BufferSizes& sizes, std::size_t max_batch) {
  const std::size_t per_example = sizes.activations + sizes.padded + 2 * sizes.widest;
  return std::min(max_batch, std::max(kSmallestChunk, kChunkFloats / per_example));
}

}  // namespace

WorkspaceBuffers::WorkspaceBuffers(const NetworkPlan& plan, std::size_t max_batch_wanted)
    : max_batch(std::max<std::size_t>(max_batch_wanted, 1)),
      chunk(chunk_for(plan.sizes, max_batch)) {
  const BufferSizes& sizes = plan.sizes;
  const bool passes_down = plan.stages.size() > plan.first_trained + 1;
  const std::size_t pitch = batch_pitch(chunk);
  const std::array<std::pair<float**, std::size_t>, 10> parts{{
      {&activations, sizes.activations * chunk},
      {&padded, sizes.padded * chunk},
      {&gradients[0], sizes.widest * chunk},
      {&gradients[1], passes_down ? sizes.widest * chunk : 0},
      {&output_transposed, sizes.dense_outputs * pitch},
      {&input_rows, sizes.dense_outputs == 0 ? 0 : kDenseRows * pitch},
      {&weights_transposed, sizes.transposed},
      {&weights_gradient, sizes.transposed},
      {&padded_gradient, sizes.padded_widest},
      {&parameter_gradient, chunk < max_batch ? plan.layout.size() : 0},
  }};
  // Every part starts on a cache line and has room behind it for a kernel's last whole vector.
  const auto room = [](std::size_t size) { return (size + kKernelSlack + 15) / 16 * 16; };
  std::size_t total = 0;
  for (const auto& [pointer, size] : parts) total += room(size);
  storage = ParameterVector(total);
  std::size_t offset = 0;
  for (const auto& [pointer, size] : parts) {
    *pointer = storage.data() + offset;
    offset += room(size);
  }
  by_channel.resize(sizes.list_entries);
  by_position.resize(sizes.list_entries);
  channel_counts.resize(sizes.list_channels);
  position_counts.resize(sizes.list_positions);
}

std::size_t WorkspaceBuffers::bytes() const {
  return sizeof(float) * storage.size() +
         sizeof(SparseEntry) * (by_channel.size() + by_position.size()) +
         sizeof(std::uint32_t) * (channel_counts.size() + position_counts.size());
}

Workspace::Workspace(const Network& network, std::size_t max_batch)
    : buffers_(std::make_unique<Buffers>(*network.plan_, max_batch)) {}
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;
Workspace::~Workspace() = default;

std::size_t Workspace::max_batch() const { return buffers_->max_batch; }
std::size_t Workspace::bytes() const { return buffers_->bytes(); }

}  // namespace covey::models
