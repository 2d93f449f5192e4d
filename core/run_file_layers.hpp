#pragma once

#include <covey/model_spec.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "run_file_values.hpp"

namespace covey {

/// One number or word of a layer in model.layers: {type = "conv2d", units = 32, kernel = 5}.
struct LayerField {
  using Count = std::uint32_t LayerSpec::*;
  using Share = float LayerSpec::*;  ///< in [0, 1)
  using Flag = bool LayerSpec::*;
  using Border = Padding LayerSpec::*;

  std::string_view name;
  std::variant<Count, Share, Flag, Border> member;
  std::uint32_t high = 0;  ///< of a count, which starts at 1
};

/// A type of layer and the fields it takes; any other is refused.
struct LayerType {
  LayerKind kind;
  std::vector<std::string_view> required = {};
  std::vector<std::string_view> optional = {};
};

std::span<const LayerType> layer_types();

/// `name`: "model.layers[2]", for messages.
Result<LayerSpec> read_layer(const std::string& name, const toml::node& node,
                             const RunSource& source);

/// As a TOML list; optional fields only where they are not the default.
std::string layers_text(const std::vector<LayerSpec>& layers);

}  // namespace covey
