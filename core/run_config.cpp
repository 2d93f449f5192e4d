#include <covey/run_config.hpp>
#include <cstdint>
#include <limits>

namespace covey {
namespace {

Result<std::uint32_t> num_inputs(const std::vector<std::uint32_t>& input_shape) {
  std::uint64_t product = 1;
  for (const std::uint32_t extent : input_shape) {
    product *= extent;
    if (product == 0 || product > std::numeric_limits<std::uint32_t>::max()) {
      return invalid_argument("the data's examples have no features, or too many for a model");
    }
  }
  return static_cast<std::uint32_t>(product);
}

}  // namespace

Result<ModelSpec> model_spec_of(const RunConfig& config,
                                const std::vector<std::uint32_t>& input_shape,
                                std::uint32_t classes) {
  COVEY_ASSIGN(const std::uint32_t inputs, num_inputs(input_shape));
  const auto& layers = config.model.layers;
  if (layers.empty()) return preset_model(config.model.preset, inputs, classes);
  const LayerSpec& last = layers.back();
  if (last.kind != LayerKind::kDense || last.units != classes) {
    const std::string found = last.kind == LayerKind::kDense
                                  ? "has units = " + std::to_string(last.units)
                                  : "is of type \"" + std::string(to_string(last.kind)) + "\"";
    return invalid_argument(
        "model.layers: the last layer " + found + "; the data has " + std::to_string(classes) +
        " classes, so it must be {type = \"dense\", " + "units = " + std::to_string(classes) + "}");
  }
  // A network that starts with a dense layer takes an example as one row, as the presets do.
  if (layers.front().kind == LayerKind::kDense) return ModelSpec{{inputs}, layers};
  return ModelSpec{input_shape, layers};
}

}  // namespace covey
