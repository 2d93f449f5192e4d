#include <algorithm>
#include <array>
#include <covey/model_spec.hpp>
#include <cstdint>
#include <limits>
#include <utility>

namespace covey {
namespace {

using enum LayerKind;
using Shape = std::vector<std::uint32_t>;

std::string text(const Shape& shape) {
  std::string joined;
  for (const std::uint32_t extent : shape) {
    joined += (joined.empty() ? "" : "x") + std::to_string(extent);
  }
  return joined.empty() ? "nothing" : joined;
}

/// An example's values as one row. Error when there are none, or more than 2^32 - 1.
Result<Shape> flattened(const Shape& shape) {
  std::uint64_t product = shape.empty() ? 0 : 1;
  for (const std::uint32_t extent : shape) {
    product *= extent;
    if (product == 0 || product > std::numeric_limits<std::uint32_t>::max()) {
      return invalid_argument("the data's examples have no features, or too many for a model");
    }
  }
  if (product == 0) {
    return invalid_argument("the data's examples have no features, or too many for a model");
  }
  return Shape{static_cast<std::uint32_t>(product)};
}

Error wrong_shape(std::string_view preset, std::string_view takes, const Shape& shape) {
  return invalid_argument("model.preset \"" + std::string(preset) + "\" takes " +
                          std::string(takes) + ", the data's examples are " + text(shape));
}

LayerSpec dense(std::uint32_t units) { return {.kind = kDense, .units = units}; }

LayerSpec convolution(std::uint32_t filters, std::uint32_t kernel, std::uint32_t stride = 0) {
  return {.kind = kConv2d, .units = filters, .kernel = kernel, .stride = stride};
}

Result<ModelSpec> logistic(const Shape& shape, std::uint32_t classes) {
  COVEY_ASSIGN(Shape row, flattened(shape));
  return ModelSpec{.input_shape = std::move(row), .layers = {dense(classes)}};
}

/// McMahan et al. 2017, section 3: two hidden layers of 200.
Result<ModelSpec> two_layers(const Shape& shape, std::uint32_t classes) {
  COVEY_ASSIGN(Shape row, flattened(shape));
  return ModelSpec{.input_shape = std::move(row),
                   .layers = {dense(200), {kRelu}, dense(200), {kRelu}, dense(classes)}};
}

/// McMahan et al. 2017, section 3: 1,663,370 parameters with 10 classes.
Result<ModelSpec> cnn(const Shape& shape, std::uint32_t classes) {
  constexpr std::uint32_t kSide = 28;
  if (shape != Shape{kSide, kSide, 1} && shape != Shape{kSide * kSide}) {
    return wrong_shape("cnn", "28x28x1 or 784 inputs", shape);
  }
  const LayerSpec pool{.kind = kMaxPool2d, .kernel = 2};
  return ModelSpec{.input_shape = {kSide, kSide, 1},
                   .layers = {convolution(32, 5),
                              {kRelu},
                              pool,
                              convolution(64, 5),
                              {kRelu},
                              pool,
                              {kFlatten},
                              dense(512),
                              {kRelu},
                              dense(classes)}};
}

/// McMahan et al. 2017, section 3: the next character of a play from those before it.
Result<ModelSpec> char_lstm(const Shape& shape, std::uint32_t classes) {
  if (shape.size() != 1 || shape[0] == 0) {
    return wrong_shape("char-lstm", "sequences of tokens (data.source = \"text\")", shape);
  }
  const LayerSpec lstm{.kind = kLstm, .units = 256, .peephole = true};
  return ModelSpec{
      .input_shape = shape,
      .layers = {
          {.kind = kEmbedding, .units = 8, .vocabulary = classes}, lstm, lstm, dense(classes)}};
}

/// Zhang et al. 2017, "Hello Edge" (arXiv:1711.07128), DS-CNN-S: a convolution, four depthwise
/// separable ones of 64 channels, their mean. It differs in the first kernel (3x3 of stride 2, for
/// images; the paper's is 10x4 of stride 2x2, for spectrograms) and in its normalisation: over
/// groups of 8 channels within an example, since statistics of a batch do not agree between devices
/// (Hsieh et al. 2020, section 5).
Result<ModelSpec> depthwise_separable(const Shape& shape, std::uint32_t classes) {
  if (shape.size() != 3) return wrong_shape("dscnn", "images (height x width x channels)", shape);
  constexpr std::uint32_t kChannels = 64;
  constexpr std::uint32_t kBlocks = 4;
  const LayerSpec norm{.kind = kGroupNorm, .groups = 8};
  ModelSpec spec{.input_shape = shape, .layers = {convolution(kChannels, 3, 2), norm, {kRelu}}};
  for (std::uint32_t block = 0; block < kBlocks; ++block) {
    spec.layers.insert(spec.layers.end(), {{.kind = kDepthwiseConv2d, .kernel = 3},
                                           norm,
                                           {kRelu},
                                           convolution(kChannels, 1),
                                           norm,
                                           {kRelu}});
  }
  spec.layers.insert(spec.layers.end(), {{kGlobalAveragePool}, dense(classes)});
  return spec;
}

/// In the shape of MLPerf Tiny's anomaly detection (Banbury et al. 2021): dense layers down to a
/// narrow code and back, squared error of the reconstruction. That one has four hidden layers of
/// 128 on each side of a code of 8, with batch normalisation, for 640 inputs; this one two on each
/// side (128, 64) of a code of 16, without.
Result<ModelSpec> autoencoder(const Shape& shape, std::uint32_t) {
  COVEY_ASSIGN(Shape row, flattened(shape));
  const std::uint32_t inputs = row[0];
  return ModelSpec{.input_shape = std::move(row),
                   .layers = {dense(128),
                              {kRelu},
                              dense(64),
                              {kRelu},
                              dense(16),
                              {kRelu},
                              dense(64),
                              {kRelu},
                              dense(128),
                              {kRelu},
                              dense(inputs)},
                   .loss = Loss::kMeanSquaredError,
                   .target = Target::kInput};
}

struct Preset {
  std::string_view name;
  Result<ModelSpec> (*make)(const Shape& shape, std::uint32_t classes);
};

constexpr std::array<Preset, 6> kPresets{{{"logistic", logistic},
                                          {"2nn", two_layers},
                                          {"cnn", cnn},
                                          {"char-lstm", char_lstm},
                                          {"dscnn", depthwise_separable},
                                          {"autoencoder", autoencoder}}};

}  // namespace

Result<ModelSpec> preset_model(std::string_view name, const std::vector<std::uint32_t>& input_shape,
                               std::uint32_t classes) {
  const auto preset = std::ranges::find(kPresets, name, &Preset::name);
  if (preset != kPresets.end()) return preset->make(input_shape, classes);
  return invalid_argument("unknown model \"" + std::string(name) + "\"; there are " +
                          preset_names());
}

std::string preset_names() {
  std::string names;
  for (const Preset& preset : kPresets) {
    names += (names.empty() ? "" : ", ") + std::string(preset.name);
  }
  return names;
}

std::string_view to_string(LayerKind kind) {
  switch (kind) {
    case kDense:
      return "dense";
    case kConv2d:
      return "conv2d";
    case kMaxPool2d:
      return "max-pool2d";
    case kFlatten:
      return "flatten";
    case kRelu:
      return "relu";
    case kDepthwiseConv2d:
      return "depthwise-conv2d";
    case kAveragePool2d:
      return "average-pool2d";
    case kGlobalAveragePool:
      return "global-average-pool";
    case kEmbedding:
      return "embedding";
    case kLstm:
      return "lstm";
    case kGru:
      return "gru";
    case kBatchNorm:
      return "batch-norm";
    case kGroupNorm:
      return "group-norm";
    case kLayerNorm:
      return "layer-norm";
    case kDropout:
      return "dropout";
    case kGelu:
      return "gelu";
    case kTanh:
      return "tanh";
    case kSigmoid:
      return "sigmoid";
    case kAdd:
      return "add";
  }
  return "unknown";
}

std::string_view to_string(Loss loss) {
  switch (loss) {
    case Loss::kCrossEntropy:
      return "cross-entropy";
    case Loss::kMeanSquaredError:
      return "mse";
    case Loss::kBinaryCrossEntropy:
      return "bce";
  }
  return "unknown";
}

std::string_view to_string(Target target) {
  switch (target) {
    case Target::kLabel:
      return "label";
    case Target::kInput:
      return "input";
  }
  return "unknown";
}

std::string_view to_string(Initialisation initialisation) {
  switch (initialisation) {
    case Initialisation::kFanIn:
      return "fan-in";
    case Initialisation::kHeNormal:
      return "he-normal";
    case Initialisation::kHeUniform:
      return "he-uniform";
    case Initialisation::kGlorotNormal:
      return "glorot-normal";
    case Initialisation::kGlorotUniform:
      return "glorot-uniform";
  }
  return "unknown";
}

}  // namespace covey
