#pragma once

#include <covey/models/network.hpp>
#include <covey/optimizer.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace covey::models {

/// What one layer of a planned network costs, for a batch of the size asked for.
struct LayerReport {
  std::string name;                         ///< "conv2d + relu": the layers that one stage carries out
  std::vector<std::uint32_t> output_shape;  ///< of one example
  std::size_t parameters = 0;
  double forward_flops = 0;      ///< of one example
  std::size_t output_bytes = 0;  ///< the layer's outputs, kept for the backward pass
  std::size_t saved_bytes = 0;   ///< what else it keeps for the backward pass
  std::size_t scratch_bytes = 0; ///< the larger of its forward and its backward scratch
  std::size_t gradient_bytes = 0;  ///< of its outputs
};

struct ModelReport {
  std::vector<LayerReport> layers;
  std::size_t batch = 0;
  std::size_t chunk = 0;  ///< examples that go through the network together
  std::size_t parameters = 0;
  double forward_flops = 0;   ///< of one example
  double training_flops = 0;  ///< of one example, forward and backward
  std::size_t training_bytes = 0;    ///< activations, gradients, scratch of a training step, as placed
  std::size_t unshared_bytes = 0;    ///< the same buffers, each in a place of its own
  std::size_t inference_bytes = 0;   ///< as training_bytes, for evaluation only
  std::size_t optimizer_bytes = 0;   ///< its state, and the whole gradient where it needs that
};

ModelReport inspect(const Network& network, std::size_t batch, const OptimizerSpec& optimizer = {});

}  // namespace covey::models
