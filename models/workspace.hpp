#pragma once

#include <covey/models/network.hpp>
#include <covey/parameter_vector.hpp>
#include <cstddef>
#include <vector>

#include "network_plan.hpp"

namespace covey::models {

/// One block of floats, cut up once, and the convolutions' lists. A batch larger than `chunk` runs
/// in pieces, so that the memory a wide convolution needs does not grow with the batch.
struct WorkspaceBuffers {
  WorkspaceBuffers(const NetworkPlan& plan, std::size_t max_batch_wanted);

  std::size_t max_batch = 0;
  std::size_t chunk = 0;  ///< examples that go through the network together, <= max_batch

  ParameterVector storage;       ///< zero at the start: the padded images' borders stay so
  float* activations = nullptr;  ///< stage s, example b: activation[s] * chunk + b * its outputs
  float* padded = nullptr;       ///< convolution inputs with borders
  float* gradients[2] = {};      ///< of a stage's output and of its input, in turns
  float* output_transposed = nullptr;  ///< dense: [outputs x batch pitch], gradient of the outputs
  float* input_rows = nullptr;  ///< dense: [kDenseRows x batch pitch], gradient of some inputs
  float* weights_transposed = nullptr;  ///< convolution: [kernel x channels_out x tap_pitch]
  float* weights_gradient = nullptr;    ///< the same shape
  float* padded_gradient = nullptr;     ///< one image
  float* parameter_gradient = nullptr;  ///< R^d, only where a batch may take several chunks

  std::vector<SparseEntry> by_channel;
  std::vector<SparseEntry> by_position;
  std::vector<std::uint32_t> channel_counts;
  std::vector<std::uint32_t> position_counts;

  std::size_t bytes() const;
  SparseGradient lists() {
    return {by_channel.data(), channel_counts.data(), by_position.data(), position_counts.data()};
  }
};

struct Workspace::Buffers : WorkspaceBuffers {
  using WorkspaceBuffers::WorkspaceBuffers;
};

/// Weight rows of a dense layer that go through the first-level cache together.
inline constexpr std::size_t kDenseRows = 56;

/// Batch rounded up to whole vectors of the widest instruction set.
constexpr std::size_t batch_pitch(std::size_t batch) { return (batch + 15) / 16 * 16; }

}  // namespace covey::models
