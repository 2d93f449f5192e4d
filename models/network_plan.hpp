#pragma once

#include <covey/models/network.hpp>
#include <cstddef>
#include <variant>
#include <vector>

#include "kernels.hpp"

namespace covey::models {

/// y[batch x outputs] = x[batch x inputs] W[inputs x outputs] + bias, then relu where fused.
struct DenseStage {
  std::size_t inputs = 0;
  std::size_t outputs = 0;
  std::size_t weight = 0;  ///< offsets in the parameter vector
  std::size_t bias = 0;
  bool relu = false;
};

struct ConvolutionStage {
  ConvolutionShape shape;
  std::size_t weight = 0;  ///< [kernel x kernel x channels_in x channels_out]
  std::size_t bias = 0;
  bool relu = false;
  std::size_t padded = 0;  ///< offset of this stage's padded input in the workspace, per example

  std::size_t inputs() const { return shape.height * shape.width * shape.channels_in; }
  std::size_t outputs() const { return shape.height * shape.width * shape.channels_out; }
  std::size_t padded_row() const { return (shape.width + shape.kernel - 1) * shape.channels_in; }
  /// Floats of one padded image; whole cache lines, and room for a kernel to read past its end.
  std::size_t padded_size() const;
  std::size_t depth() const { return shape.kernel * shape.kernel * shape.channels_in; }
  std::size_t transposed_size() const {
    return shape.kernel * shape.channels_out * shape.tap_pitch;
  }
};

struct PoolStage {
  PoolShape shape;
  std::size_t inputs() const { return shape.height * shape.width * shape.channels; }
  std::size_t outputs() const {
    return (shape.height / shape.kernel) * (shape.width / shape.kernel) * shape.channels;
  }
};

/// A relu that no dense or convolution stage precedes.
struct ReluStage {
  std::size_t size = 0;
};

/// What the engine runs: the spec's layers with relu fused and flatten gone.
using Stage = std::variant<DenseStage, ConvolutionStage, PoolStage, ReluStage>;

/// Floats (or entries) per example and per workspace that the stages need.
struct BufferSizes {
  std::size_t activations = 0;    ///< all stages' outputs, per example
  std::size_t widest = 0;         ///< largest stage output, per example
  std::size_t padded = 0;         ///< all convolutions' padded inputs, per example
  std::size_t dense_outputs = 0;  ///< largest dense output that passes a gradient down
  std::size_t transposed = 0;     ///< largest transposed convolution weights
  std::size_t list_entries = 0;   ///< largest convolution output
  std::size_t list_channels = 0;
  std::size_t list_positions = 0;
  std::size_t padded_widest = 0;  ///< largest padded image
};

/// A network ready to run. Immutable once made.
struct NetworkPlan {
  ModelSpec spec;
  ModelLayout layout;
  std::size_t inputs = 0;
  std::size_t classes = 0;
  std::vector<Stage> stages;
  std::vector<std::size_t> activation;  ///< each stage's output, offset per example
  std::vector<std::size_t> fan_in;      ///< of each tensor in the layout
  std::size_t first_trained = 0;        ///< first stage with parameters: no gradient goes below it
  double training_flops = 0;
  BufferSizes sizes;
  const Kernels* kernels = nullptr;

  static Result<NetworkPlan> make(const ModelSpec& spec);
};

struct Network::Plan : NetworkPlan {};

inline std::size_t stage_outputs(const DenseStage& stage) { return stage.outputs; }
inline std::size_t stage_outputs(const ConvolutionStage& stage) { return stage.outputs(); }
inline std::size_t stage_outputs(const PoolStage& stage) { return stage.outputs(); }
inline std::size_t stage_outputs(const ReluStage& stage) { return stage.size; }

}  // namespace covey::models
