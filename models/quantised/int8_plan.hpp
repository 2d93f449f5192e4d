#pragma once

#include <covey/models/int8_network.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "kernels_int8.hpp"

namespace covey::models {

constexpr std::size_t padded_to(std::size_t n, std::size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
/// Bytes from one example's int8 values to the next's.
constexpr std::size_t example_pitch(std::size_t values) { return padded_to(values, kOutputPitch); }

/// Where a layer's weights lie in the parameters' storage and in a blob, and their shape: `rows`
/// window rows of `run` inputs for each of `outputs` (kernels_int8.hpp).
struct Int8Weights {
  std::size_t rows = 1;
  std::size_t run = 0;
  std::size_t outputs = 0;
  std::size_t values = 0;  ///< offsets in the storage, bytes
  std::size_t scales = 0;
  std::size_t biases = 0;
  std::size_t blob_scales = 0;  ///< offsets in an "int8" blob, bytes
  std::size_t blob_values = 0;
  std::size_t blob_biases = 0;

  std::size_t quads() const { return (run + kQuad - 1) / kQuad; }
  std::size_t padded_outputs() const { return padded_to(outputs, kOutputPitch); }
  std::size_t bytes() const { return rows * quads() * kQuad * padded_outputs(); }
  /// Offset of the weight of input j of window row r.
  std::size_t index(std::size_t r, std::size_t j, std::size_t output) const {
    return ((r * quads() + j / kQuad) * padded_outputs() + output) * kQuad + j % kQuad;
  }
};

struct Int8DenseStage {
  Int8Weights weights;
  bool relu = false;
  std::size_t inputs() const { return weights.run; }
  std::size_t values() const { return weights.outputs; }
};

/// A convolution with what follows it at once: relu and, where `pool` > 1, max-pooling.
struct Int8ConvolutionStage {
  Int8Weights weights;
  std::size_t height = 0;
  std::size_t width = 0;
  std::size_t channels = 0;  ///< of the input
  std::size_t kernel = 0;
  std::size_t pool = 1;
  bool relu = false;

  std::size_t filters() const { return weights.outputs; }
  std::size_t positions() const { return height * width; }
  std::size_t pooled_width() const { return width / pool; }
  std::size_t pooled_positions() const { return height / pool * pooled_width(); }
  std::size_t inputs() const { return positions() * channels; }
  std::size_t values() const { return pooled_positions() * filters(); }
  std::size_t pad_before() const { return (kernel - 1) / 2; }
};

struct Int8PoolStage {
  std::size_t height = 0;
  std::size_t width = 0;
  std::size_t channels = 0;
  std::size_t window = 0;
  std::size_t inputs() const { return height * width * channels; }
  std::size_t values() const { return (height / window) * (width / window) * channels; }
};

struct Int8ReluStage {
  std::size_t size = 0;
  std::size_t inputs() const { return size; }
  std::size_t values() const { return size; }
};

using Int8Stage = std::variant<Int8DenseStage, Int8ConvolutionStage, Int8PoolStage, Int8ReluStage>;

inline std::size_t stage_values(const Int8Stage& stage) {
  return std::visit([](const auto& s) { return s.values(); }, stage);
}
/// Null for a stage without weights.
inline const Int8Weights* stage_weights(const Int8Stage& stage) {
  if (const auto* dense = std::get_if<Int8DenseStage>(&stage)) return &dense->weights;
  if (const auto* conv = std::get_if<Int8ConvolutionStage>(&stage)) return &conv->weights;
  return nullptr;
}
inline bool stage_relu(const Int8Stage& stage) {
  if (const auto* dense = std::get_if<Int8DenseStage>(&stage)) return dense->relu;
  if (const auto* conv = std::get_if<Int8ConvolutionStage>(&stage)) return conv->relu;
  return false;
}

/// A network ready to run in integers. Immutable once made.
struct Int8Plan {
  ModelSpec spec;
  ModelLayout layout;
  std::size_t inputs = 0;
  std::size_t classes = 0;
  std::vector<Int8Stage> stages;
  std::vector<std::string> names;  ///< of the stages: "dense1"
  std::size_t first_trained = 0;   ///< first stage with weights: no gradient goes below it
  std::size_t storage_bytes = 0;   ///< of the parameters
  std::size_t blob_bytes = 0;
  std::size_t max_batch = 0;
  const Int8Kernels* kernels = nullptr;

  /// `purpose`: "trained" or "run", for refusals; `others`: precisions that know more layers.
  static Result<Int8Plan> make(const ModelSpec& spec, std::string_view purpose,
                               std::string_view others);

  const Int8DenseStage& last() const { return std::get<Int8DenseStage>(stages.back()); }
  /// The nearest stage with weights below stage s, which is above first_trained.
  const Int8Weights& weights_below(std::size_t s) const {
    while (stage_weights(stages[--s]) == nullptr) {
    }
    return *stage_weights(stages[s]);
  }
};

struct Int8Network::Plan : Int8Plan {};

}  // namespace covey::models
