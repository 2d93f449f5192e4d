#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <covey/result.hpp>

namespace covey {

/// Kinds of layers that the wire can name. Values travel: never renumber.
enum class LayerKind : std::uint8_t {
  kDense = 1,       ///< units
  kConv2d = 2,      ///< filters, kernel, stride 1, same padding
  kMaxPool2d = 3,   ///< kernel = stride
  kFlatten = 4,
  kRelu = 5,
};

struct LayerSpec {
  LayerKind kind = LayerKind::kDense;
  std::uint32_t units = 0;   ///< outputs of a dense layer, filters of a convolution
  std::uint32_t kernel = 0;  ///< side of a square kernel or pooling window
  bool operator==(const LayerSpec&) const = default;
};

/// A network as data: sent to devices, so that a new architecture needs no new client build. The loss
/// is softmax cross-entropy over the last layer's outputs.
struct ModelSpec {
  std::vector<std::uint32_t> input_shape;  ///< {features} or {height, width, channels}
  std::vector<LayerSpec> layers;
  bool operator==(const ModelSpec&) const = default;
};

/// "logistic" (input -> classes), "2nn" and "cnn" of McMahan et al. 2017.
/// `inputs`: features of one example (2nn, logistic), for "cnn" always 28x28x1.
Result<ModelSpec> preset_model(std::string_view name, std::uint32_t inputs, std::uint32_t classes);

std::string_view to_string(LayerKind kind);

}  // namespace covey
