#include <covey/model_spec.hpp>

namespace covey {

std::string_view to_string(LayerKind kind) {
  switch (kind) {
    case LayerKind::kDense: return "dense";
    case LayerKind::kConv2d: return "conv2d";
    case LayerKind::kMaxPool2d: return "max-pool2d";
    case LayerKind::kFlatten: return "flatten";
    case LayerKind::kRelu: return "relu";
  }
  return "unknown";
}

Result<ModelSpec> preset_model(std::string_view name, std::uint32_t inputs, std::uint32_t classes) {
  using enum LayerKind;
  if (name == "logistic") return ModelSpec{{inputs}, {{kDense, classes, 0}}};
  if (name == "2nn") {
    return ModelSpec{{inputs},
                     {{kDense, 200, 0}, {kRelu}, {kDense, 200, 0}, {kRelu}, {kDense, classes, 0}}};
  }
  if (name == "cnn") {
    constexpr std::uint32_t kSide = 28;
    if (inputs != kSide * kSide) {
      return invalid_argument("model.preset \"cnn\" takes 28x28x1 = 784 inputs, the data has " +
                              std::to_string(inputs));
    }
    return ModelSpec{{kSide, kSide, 1},
                     {{kConv2d, 32, 5},
                      {kRelu},
                      {kMaxPool2d, 0, 2},
                      {kConv2d, 64, 5},
                      {kRelu},
                      {kMaxPool2d, 0, 2},
                      {kFlatten},
                      {kDense, 512, 0},
                      {kRelu},
                      {kDense, classes, 0}}};
  }
  return invalid_argument("unknown model \"" + std::string(name) + "\"; there are logistic, 2nn, cnn");
}

}  // namespace covey
