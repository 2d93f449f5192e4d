#include "sub_network.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <iterator>
#include <span>

namespace covey::server {
namespace {

bool has_units(const LayerSpec& layer) {
  return layer.kind == LayerKind::kDense || layer.kind == LayerKind::kConv2d;
}

/// Layers that treat every unit like every other and keep no parameters of them.
bool passes_units_on(LayerKind kind) {
  switch (kind) {
    case LayerKind::kMaxPool2d:
    case LayerKind::kAveragePool2d:
    case LayerKind::kGlobalAveragePool:
    case LayerKind::kFlatten:
    case LayerKind::kRelu:
    case LayerKind::kGelu:
    case LayerKind::kTanh:
    case LayerKind::kSigmoid:
    case LayerKind::kDropout:
      return true;
    default:
      return false;
  }
}

/// 0.5 * 200 is 100, and 0.29 * 100 is 28.999999999999996: products are taken as the whole number
/// that they are within a billionth of.
std::uint32_t narrowed_units(double width, std::uint32_t units) {
  constexpr double kSlack = 1e-9;
  return std::max(1U, static_cast<std::uint32_t>(std::ceil(width * units - kSlack)));
}

/// The units of a layer's input or output: how many the whole network has and how many the part.
struct Units {
  std::size_t whole = 0;
  std::size_t part = 0;
};

/// Appends the places of a weight's tensor [taps x inputs x outputs], or of a bias (one tap of one
/// input). Behind a flatten layer inputs are the units of every position: `positions` of them.
void append_tensor(const TensorLayout& tensor, Units outputs, std::size_t part_inputs,
                   const auto& whole_input, std::vector<std::uint32_t>& indices) {
  for (std::size_t input = 0; input < part_inputs; ++input) {
    const std::size_t row = tensor.offset + whole_input(input) * outputs.whole;
    for (std::size_t output = 0; output < outputs.part; ++output) {
      indices.push_back(static_cast<std::uint32_t>(row + output));
    }
  }
}

}  // namespace

Result<ModelSpec> narrowed(const ModelSpec& spec, double width) {
  COVEY_ASSERT(width > 0 && width < 1);
  if (!spec.torchscript.empty()) {
    return invalid_argument("a TorchScript file's network cannot be cut to a part of its units");
  }
  const auto last = std::find_if(spec.layers.rbegin(), spec.layers.rend(), has_units);
  std::size_t hidden = 0;
  ModelSpec part = spec;
  for (std::size_t i = 0; i < part.layers.size(); ++i) {
    LayerSpec& layer = part.layers[i];
    if (!has_units(layer)) {
      if (passes_units_on(layer.kind)) continue;
      return invalid_argument(fmt::format(
          "layer {} ({}) cannot be cut to a part of its units; a width below 1 is for "
          "networks of dense and conv2d layers with pooling and activations, such as the "
          "presets 2nn and cnn",
          i + 1, to_string(layer.kind)));
    }
    const bool is_output =
        std::distance(spec.layers.begin(), last.base()) - 1 == static_cast<std::ptrdiff_t>(i);
    if (is_output) continue;
    layer.units = narrowed_units(width, layer.units);
    ++hidden;
  }
  if (hidden == 0) {
    return invalid_argument(
        "the network has no hidden layer, so there are no units to leave out; leave width out");
  }
  return part;
}

std::vector<std::uint32_t> indices_of_part(const ModelSpec& whole, const ModelLayout& whole_layout,
                                           const ModelSpec& part, const ModelLayout& part_layout) {
  COVEY_ASSERT(whole.layers.size() == part.layers.size());
  COVEY_ASSERT(whole_layout.tensors().size() == part_layout.tensors().size());
  std::vector<std::uint32_t> indices;
  indices.reserve(part_layout.size());
  auto tensor = whole_layout.tensors().begin();
  Units inputs{whole.input_shape.back(), whole.input_shape.back()};
  for (std::size_t i = 0; i < whole.layers.size(); ++i) {
    if (!has_units(whole.layers[i])) continue;
    const Units outputs{whole.layers[i].units, part.layers[i].units};
    // Rows of the weight: for a dense layer its inputs, for a convolution taps times channels; both
    // come in groups of `inputs.whole`, of which the first `inputs.part` stay.
    const std::size_t groups = tensor->size() / outputs.whole / inputs.whole;
    COVEY_ASSERT(groups * inputs.whole * outputs.whole == tensor->size());
    append_tensor(
        *tensor++, outputs, groups * inputs.part,
        [&](std::size_t row) { return row / inputs.part * inputs.whole + row % inputs.part; },
        indices);
    append_tensor(
        *tensor++, outputs, 1, [](std::size_t row) { return row; }, indices);  // bias
    inputs = outputs;
  }
  // What quantisation-aware training keeps of each layer's values is one number, whatever the
  // width.
  for (; tensor != whole_layout.tensors().end(); ++tensor) {
    for (std::size_t i = 0; i < tensor->size(); ++i) {
      indices.push_back(static_cast<std::uint32_t>(tensor->offset + i));
    }
  }
  COVEY_ASSERT(indices.size() == part_layout.size());
  return indices;
}

}  // namespace covey::server
