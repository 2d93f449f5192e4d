#include "int8_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/int8_encoding.hpp>
#include <cstdint>
#include <utility>

namespace covey::models {

namespace {

// Bounds against descriptions that would exhaust memory; those of the fp32 planner.
constexpr std::size_t kMaxLayers = 256;
constexpr int kNarrow = sizeof(std::size_t) < 8 ? 3 : 0;
constexpr std::uint64_t kMaxParameters = std::uint64_t{1} << (28 - kNarrow);
constexpr std::uint64_t kMaxActivations = std::uint64_t{1} << (26 - kNarrow);  ///< per example
constexpr std::uint32_t kMaxKernel = 255;
/// Products of int8 values are at most 127 * 127; with this many and a bias of 2^29 a sum stays
/// below 2^31.
constexpr std::uint64_t kMaxTerms = 65'536;
constexpr std::uint64_t kLargestProduct = 127 * 127;
/// Where a maximum lies in its window is kept in 7 bits.
constexpr std::uint32_t kMaxFusedPool = 11;

std::string text(const std::vector<std::uint32_t>& shape) {
  return fmt::format("{}", fmt::join(shape, "x"));
}

/// Saturates far above every bound.
std::uint64_t product(const std::vector<std::uint32_t>& shape) {
  std::uint64_t size = 1;
  for (const std::uint32_t extent : shape) {
    if (extent == 0) return 0;
    if (size > kMaxActivations) return size;
    size *= extent;
  }
  return size;
}

/// Walks the layers, carrying the shape of one example.
class Int8Planner {
 public:
  Int8Planner(const ModelSpec& spec, std::string_view purpose, std::string_view others,
              Int8Plan& plan)
      : spec_(spec), purpose_(purpose), others_(others), plan_(plan), shape_(spec.input_shape) {}

  Result<void> run();

 private:
  Result<void> check_model() const;
  Result<void> add(const LayerSpec& layer);
  Result<void> add_dense(const LayerSpec& layer);
  Result<void> add_convolution(const LayerSpec& layer);
  Result<void> add_pool(const LayerSpec& layer);
  void add_relu();
  Result<void> check_last() const;
  Result<void> check_sizes(std::uint64_t weights, std::uint64_t outputs, std::uint64_t terms) const;
  void place(Int8Weights& weights, const std::string& name, std::vector<std::uint32_t> shape,
             std::uint64_t summed_positions);
  void append(Int8Stage stage, std::string name);
  Error refuse(const std::string& why) const {
    return invalid_argument(
        fmt::format("layer {} ({}) {}", index_ + 1, to_string(spec_.layers[index_].kind), why));
  }
  /// The layer is fine elsewhere. `what`: "" or "with stride 2 ".
  Error refuse_here(const std::string& what) const {
    return refuse(fmt::format("{}cannot be {} in int8; {} can", what, purpose_, others_));
  }

  const ModelSpec& spec_;
  std::string_view purpose_;
  std::string_view others_;
  Int8Plan& plan_;
  std::vector<std::uint32_t> shape_;  ///< what the next layer receives
  std::uint64_t activations_ = 0;
  std::size_t index_ = 0;
  std::size_t dense_ = 0;
  std::size_t convolutions_ = 0;
};

Result<void> Int8Planner::check_model() const {
  if (!spec_.torchscript.empty()) {
    return invalid_argument(
        fmt::format("a TorchScript model cannot be {} in int8; fp32 can", purpose_));
  }
  if (spec_.loss != Loss::kCrossEntropy || spec_.target != Target::kLabel) {
    return invalid_argument(
        fmt::format("a model with loss {} and target {} cannot be {} in int8, which knows "
                    "cross-entropy of labels; {} can",
                    to_string(spec_.loss), to_string(spec_.target), purpose_, others_));
  }
  if (spec_.input_shape.size() != 1 && spec_.input_shape.size() != 3) {
    return invalid_argument(
        fmt::format("the model's input shape {} cannot be {} in int8, which knows [features] and "
                    "[height, width, channels]; {} can",
                    text(spec_.input_shape), purpose_, others_));
  }
  const std::uint64_t inputs = product(spec_.input_shape);
  if (inputs == 0 || inputs > kMaxActivations) {
    return invalid_argument(fmt::format("the model's input shape {} has {} values; 1 to {} work",
                                        text(spec_.input_shape), inputs == 0 ? "no" : "too many",
                                        kMaxActivations));
  }
  if (spec_.layers.empty() || spec_.layers.size() > kMaxLayers) {
    return invalid_argument(
        fmt::format("the model has {} layers; 1 to {} work", spec_.layers.size(), kMaxLayers));
  }
  return {};
}

Result<void> Int8Planner::run() {
  COVEY_TRY(check_model());
  plan_.inputs = static_cast<std::size_t>(product(shape_));
  plan_.max_batch = kMaxTerms;
  for (index_ = 0; index_ < spec_.layers.size(); ++index_) COVEY_TRY(add(spec_.layers[index_]));
  COVEY_TRY(check_last());
  if constexpr (kNarrow > 0) {
    // A value takes some 16 bytes, with padding at most some 64: 1 GiB for all of a batch.
    const std::uint64_t fitting = (std::uint64_t{1} << 24) / (plan_.inputs + activations_);
    plan_.max_batch = std::clamp<std::size_t>(static_cast<std::size_t>(fitting), 1, plan_.max_batch);
  }
  plan_.classes = shape_[0];
  return {};
}

Result<void> Int8Planner::check_last() const {
  if (plan_.stages.empty() || !std::holds_alternative<Int8DenseStage>(plan_.stages.back()) ||
      plan_.last().relu || shape_[0] < 2) {
    return invalid_argument(fmt::format(
        "the model's last layer {} ({}) gives {}; in int8 it must be a dense layer with "
        "one score per class, two or more, and no relu behind it",
        spec_.layers.size(), to_string(spec_.layers.back().kind), text(shape_)));
  }
  return {};
}

Result<void> Int8Planner::add(const LayerSpec& layer) {
  switch (layer.kind) {
    case LayerKind::kDense:
      return add_dense(layer);
    case LayerKind::kConv2d:
      return add_convolution(layer);
    case LayerKind::kMaxPool2d:
      return add_pool(layer);
    case LayerKind::kFlatten:
      shape_ = {static_cast<std::uint32_t>(product(shape_))};
      return {};
    case LayerKind::kRelu:
      add_relu();
      return {};
    default:
      return refuse_here("");
  }
}

Result<void> Int8Planner::check_sizes(std::uint64_t weights, std::uint64_t outputs,
                                      std::uint64_t terms) const {
  if (plan_.layout.size() + weights > kMaxParameters) {
    return refuse(fmt::format("brings the model to {} parameters; at most {} work",
                              plan_.layout.size() + weights, kMaxParameters));
  }
  if (activations_ + outputs > kMaxActivations) {
    return refuse(fmt::format("brings the model to {} values per example; at most {} work",
                              activations_ + outputs, kMaxActivations));
  }
  if (terms > kMaxTerms) {
    return refuse(
        fmt::format("sums {} products, of which 32 bits are sure to hold {}; a wider precision can",
                    terms, kMaxTerms));
  }
  return {};
}

void Int8Planner::place(Int8Weights& weights, const std::string& name,
                        std::vector<std::uint32_t> shape, std::uint64_t summed_positions) {
  constexpr std::size_t kLine = 64;
  if (plan_.layout.size() == 0) plan_.first_trained = plan_.stages.size();
  const std::uint32_t outputs = shape.back();
  plan_.layout.append(name + ".weight", std::move(shape));
  plan_.layout.append(name + ".bias", {outputs});
  const std::size_t row_bytes = weights.padded_outputs() * sizeof(float);
  weights.values = plan_.storage_bytes;
  weights.scales = weights.values + padded_to(weights.bytes(), kLine);
  weights.biases = weights.scales + row_bytes;
  plan_.storage_bytes = weights.biases + row_bytes;
  weights.blob_scales = plan_.blob_bytes;
  weights.blob_values = weights.blob_scales + outputs * sizeof(float);
  weights.blob_biases = weights.blob_values + weights.rows * weights.run * outputs;
  plan_.blob_bytes = weights.blob_biases + outputs * sizeof(float);
  // a weight's gradient sums over the batch and the positions it is used at
  const std::uint64_t most = (std::uint64_t{1} << 31) / kLargestProduct / summed_positions;
  plan_.max_batch = std::min(plan_.max_batch, static_cast<std::size_t>(most));
}

void Int8Planner::append(Int8Stage stage, std::string name) {
  activations_ += stage_values(stage);
  plan_.stages.push_back(std::move(stage));
  plan_.names.push_back(std::move(name));
}

Result<void> Int8Planner::add_dense(const LayerSpec& layer) {
  if (shape_.size() != 1) {
    return refuse(
        fmt::format("takes a vector but receives {}; put a flatten layer before it", text(shape_)));
  }
  if (layer.units == 0) return refuse("has no units");
  COVEY_TRY(check_sizes((std::uint64_t{shape_[0]} + 1) * layer.units, layer.units,
                        std::max(shape_[0], layer.units)));
  Int8DenseStage stage;
  stage.weights.run = shape_[0];
  stage.weights.outputs = layer.units;
  const std::string name = fmt::format("dense{}", ++dense_);
  place(stage.weights, name, {shape_[0], layer.units}, 1);
  append(stage, name);
  shape_ = {layer.units};
  return {};
}

Result<void> Int8Planner::add_convolution(const LayerSpec& layer) {
  if (shape_.size() != 3) {
    return refuse(fmt::format("takes [height, width, channels] but receives {}", text(shape_)));
  }
  if (layer.units == 0) return refuse("has no filters");
  if (layer.kernel == 0 || layer.kernel > kMaxKernel) {
    return refuse(fmt::format("has kernel {}; 1 to {} work", layer.kernel, kMaxKernel));
  }
  if (layer.stride > 1) return refuse_here(fmt::format("with stride {} ", layer.stride));
  if (layer.padding != Padding::kSame) return refuse_here("with valid padding ");
  const std::uint64_t window = std::uint64_t{layer.kernel} * layer.kernel;
  const std::uint64_t depth = window * shape_[2];
  const std::uint64_t positions = std::uint64_t{shape_[0]} * shape_[1];
  if (depth > kMaxParameters) return refuse(fmt::format("has {} weights per filter", depth));
  // the input's gradient sums over filters
  COVEY_TRY(check_sizes((depth + 1) * layer.units, positions * layer.units,
                        std::max(depth, window * layer.units)));
  if (positions > (std::uint64_t{1} << 31) / kLargestProduct) {
    return refuse(fmt::format("sums {} positions, more than 32 bits are sure to hold", positions));
  }
  Int8ConvolutionStage stage;
  stage.height = shape_[0];
  stage.width = shape_[1];
  stage.channels = shape_[2];
  stage.kernel = layer.kernel;
  stage.weights.rows = layer.kernel;
  stage.weights.run = std::size_t{layer.kernel} * shape_[2];
  stage.weights.outputs = layer.units;
  const std::string name = fmt::format("conv{}", ++convolutions_);
  place(stage.weights, name, {layer.kernel, layer.kernel, shape_[2], layer.units}, positions);
  append(stage, name);
  shape_[2] = layer.units;
  return {};
}

Result<void> Int8Planner::add_pool(const LayerSpec& layer) {
  if (shape_.size() != 3) {
    return refuse(fmt::format("takes [height, width, channels] but receives {}", text(shape_)));
  }
  const std::uint32_t window = layer.kernel;
  if (window == 0 || window > shape_[0] || window > shape_[1]) {
    return refuse(fmt::format("has a window of {}x{}, which does not fit its input {}", window,
                              window, text(shape_)));
  }
  if (layer.stride != 0 && layer.stride != window) {
    return refuse_here(fmt::format("with window {} and stride {} ", window, layer.stride));
  }
  auto* convolution =
      plan_.stages.empty() ? nullptr : std::get_if<Int8ConvolutionStage>(&plan_.stages.back());
  if (convolution != nullptr && convolution->pool == 1 && window > 1 && window <= kMaxFusedPool) {
    convolution->pool = window;
  } else {
    append(Int8PoolStage{shape_[0], shape_[1], shape_[2], window}, "max-pool2d");
  }
  shape_[0] /= window;
  shape_[1] /= window;
  return {};
}

/// Relu and max-pooling may change places, so a convolution takes a relu behind its pool as well.
void Int8Planner::add_relu() {
  if (!plan_.stages.empty()) {
    Int8Stage& last = plan_.stages.back();
    if (auto* dense = std::get_if<Int8DenseStage>(&last)) {
      dense->relu = true;
      return;
    }
    if (auto* convolution = std::get_if<Int8ConvolutionStage>(&last)) {
      convolution->relu = true;
      return;
    }
    if (std::holds_alternative<Int8ReluStage>(last)) return;  // twice is once
  }
  append(Int8ReluStage{static_cast<std::size_t>(product(shape_))}, "relu");
}

}  // namespace

Result<Int8Plan> Int8Plan::make(const ModelSpec& spec, std::string_view purpose,
                                std::string_view others) {
  const char* isa = nullptr;
  if (!int8_isa_override_valid(&isa)) {
    return invalid_argument(fmt::format(
        "the environment variable COVEY_ISA is \"{}\"; there are sse2, avx2 and avx512", isa));
  }
  Int8Plan plan;
  plan.spec = spec;
  plan.kernels = &selected_int8_kernels();
  COVEY_TRY(Int8Planner(spec, purpose, others, plan).run());
  COVEY_ASSERT(plan.blob_bytes == int8_encoded_size(plan.layout));
  return plan;
}

}  // namespace covey::models
