#include "network_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

namespace covey::models {

namespace {

// A description comes from a server: bounds that keep sizes far from overflow and an absurd one
// from taking a device's memory. 2^28 parameters are 1 GiB; 2^26 activations per example 256 MiB.
constexpr std::uint64_t kMaxParameters = std::uint64_t{1} << 28;
constexpr std::uint64_t kMaxActivations = std::uint64_t{1} << 26;
constexpr std::uint32_t kMaxKernel = 64;
constexpr std::size_t kMaxLayers = 1024;
/// Rows of transposed weights start at multiples of the widest vector.
constexpr std::size_t kPitch = 16;

std::size_t round_up(std::size_t n, std::size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

std::uint64_t product(const std::vector<std::uint32_t>& shape) {
  std::uint64_t size = 1;
  for (const std::uint32_t extent : shape) {
    if (extent == 0) return 0;
    if (size > kMaxActivations) return size;  // too large already: do not overflow
    size *= extent;
  }
  return size;
}

std::string text(const std::vector<std::uint32_t>& shape) {
  std::string joined;
  for (const std::uint32_t extent : shape) {
    if (!joined.empty()) joined += 'x';
    joined += std::to_string(extent);
  }
  return joined;
}

/// Walks the layers, carrying the shape of one example.
class Planner {
 public:
  Planner(const ModelSpec& spec, NetworkPlan& plan)
      : spec_(spec), plan_(plan), shape_(spec.input_shape) {}

  Result<void> run();

 private:
  Result<void> check_input() const;
  Result<void> add(const LayerSpec& layer);
  Result<void> add_dense(const LayerSpec& layer);
  Result<void> add_convolution(const LayerSpec& layer);
  Result<void> add_pool(const LayerSpec& layer);
  void add_relu();
  Result<void> check_sizes(std::uint64_t weights, std::uint64_t outputs) const;
  std::size_t append_tensor(std::string name, std::vector<std::uint32_t> shape, std::size_t fan_in);
  void append_stage(Stage stage);
  void count_product(std::size_t multiply_adds);
  Error refuse(const std::string& why) const {
    return invalid_argument(
        fmt::format("layer {} ({}) {}", index_ + 1, to_string(spec_.layers[index_].kind), why));
  }

  const ModelSpec& spec_;
  NetworkPlan& plan_;
  std::vector<std::uint32_t> shape_;  ///< what the next layer receives
  std::size_t index_ = 0;
  std::size_t dense_ = 0;
  std::size_t convolutions_ = 0;
};

Result<void> Planner::check_input() const {
  const auto& shape = spec_.input_shape;
  if (shape.size() != 1 && shape.size() != 3) {
    return invalid_argument(fmt::format(
        "the model's input shape has {} dimensions; it is [features] or [height, width, channels]",
        shape.size()));
  }
  if (product(shape) == 0 || product(shape) > kMaxActivations) {
    return invalid_argument(fmt::format("the model's input shape {} has {} values; 1 to {} work",
                                        text(shape), product(shape) == 0 ? "no" : "too many",
                                        kMaxActivations));
  }
  if (spec_.layers.empty()) return invalid_argument("the model has no layers");
  if (spec_.layers.size() > kMaxLayers) {
    return invalid_argument(
        fmt::format("the model has {} layers; at most {} work", spec_.layers.size(), kMaxLayers));
  }
  return {};
}

Result<void> Planner::run() {
  COVEY_TRY(check_input());
  plan_.inputs = static_cast<std::size_t>(product(shape_));
  for (index_ = 0; index_ < spec_.layers.size(); ++index_) COVEY_TRY(add(spec_.layers[index_]));
  if (plan_.layout.size() == 0) {
    return invalid_argument("the model has nothing to train: no dense or conv2d layer");
  }
  if (shape_.size() != 1 || shape_[0] < 2) {
    return invalid_argument(fmt::format(
        "the model's last layer {} ({}) gives {}; the loss needs one score per class, two or more "
        "(end with flatten and dense)",
        spec_.layers.size(), to_string(spec_.layers.back().kind), text(shape_)));
  }
  plan_.classes = shape_[0];
  return {};
}

Result<void> Planner::add(const LayerSpec& layer) {
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
  }
  return invalid_argument(fmt::format("layer {} has the unknown kind {}", index_ + 1,
                                      static_cast<unsigned>(layer.kind)));
}

Result<void> Planner::check_sizes(std::uint64_t weights, std::uint64_t outputs) const {
  if (plan_.layout.size() + weights > kMaxParameters) {
    return refuse(fmt::format("brings the model to {} parameters; at most {} work",
                              plan_.layout.size() + weights, kMaxParameters));
  }
  if (plan_.sizes.activations + outputs > kMaxActivations) {
    return refuse(
        fmt::format("gives {} values per example, {} with the layers before; at most {} work",
                    outputs, plan_.sizes.activations + outputs, kMaxActivations));
  }
  return {};
}

Result<void> Planner::add_dense(const LayerSpec& layer) {
  if (shape_.size() != 1) {
    return refuse(
        fmt::format("takes a vector but receives {}; put a flatten layer before it", text(shape_)));
  }
  if (layer.units == 0) return refuse("has no units");
  // inputs <= 2^26 and units < 2^32: the product fits 64 bits
  const std::uint64_t weights = (std::uint64_t{shape_[0]} + 1) * layer.units;
  COVEY_TRY(check_sizes(weights, layer.units));
  const std::string name = fmt::format("dense{}", ++dense_);
  DenseStage stage{.inputs = shape_[0], .outputs = layer.units};
  stage.weight = append_tensor(name + ".weight", {shape_[0], layer.units}, stage.inputs);
  stage.bias = append_tensor(name + ".bias", {layer.units}, stage.inputs);
  count_product(stage.inputs * stage.outputs);
  if (plan_.stages.size() > plan_.first_trained) {
    plan_.sizes.dense_outputs = std::max(plan_.sizes.dense_outputs, stage.outputs);
  }
  append_stage(stage);
  shape_ = {layer.units};
  return {};
}

Result<void> Planner::add_convolution(const LayerSpec& layer) {
  if (shape_.size() != 3) {
    return refuse(fmt::format("takes [height, width, channels] but receives {}", text(shape_)));
  }
  if (layer.units == 0) return refuse("has no filters");
  if (layer.kernel == 0 || layer.kernel > kMaxKernel) {
    return refuse(fmt::format("has kernel {}; 1 to {} work", layer.kernel, kMaxKernel));
  }
  const std::uint64_t depth = std::uint64_t{layer.kernel} * layer.kernel * shape_[2];
  const std::uint64_t positions = std::uint64_t{shape_[0]} * shape_[1];
  // depth <= 2^38: check before multiplying by up to 2^32 filters
  if (depth > kMaxParameters) return refuse(fmt::format("has {} weights per filter", depth));
  COVEY_TRY(check_sizes((depth + 1) * layer.units, positions * layer.units));
  const std::string name = fmt::format("conv{}", ++convolutions_);
  ConvolutionStage stage;
  stage.shape = {.height = shape_[0],
                 .width = shape_[1],
                 .channels_in = shape_[2],
                 .channels_out = layer.units,
                 .kernel = layer.kernel,
                 .tap_pitch = round_up(std::size_t{layer.kernel} * shape_[2], kPitch)};
  stage.weight =
      append_tensor(name + ".weight", {layer.kernel, layer.kernel, shape_[2], layer.units}, depth);
  stage.bias = append_tensor(name + ".bias", {layer.units}, depth);
  count_product(positions * depth * layer.units);
  stage.padded = plan_.sizes.padded;
  BufferSizes& sizes = plan_.sizes;
  sizes.padded += stage.padded_size();
  if (sizes.padded > kMaxActivations) {
    return refuse(fmt::format("pads its input {} to too many values", text(shape_)));
  }
  sizes.padded_widest = std::max(sizes.padded_widest, stage.padded_size());
  sizes.transposed = std::max(sizes.transposed, stage.transposed_size());
  sizes.list_entries = std::max(sizes.list_entries, stage.outputs());
  sizes.list_channels = std::max(sizes.list_channels, stage.shape.channels_out);
  sizes.list_positions = std::max(sizes.list_positions, positions);
  append_stage(stage);
  shape_[2] = layer.units;
  return {};
}

Result<void> Planner::add_pool(const LayerSpec& layer) {
  if (shape_.size() != 3) {
    return refuse(fmt::format("takes [height, width, channels] but receives {}", text(shape_)));
  }
  if (layer.kernel == 0 || layer.kernel > shape_[0] || layer.kernel > shape_[1]) {
    return refuse(fmt::format("has a window of {}x{}, which does not fit its input {}",
                              layer.kernel, layer.kernel, text(shape_)));
  }
  PoolStage stage{
      {.height = shape_[0], .width = shape_[1], .channels = shape_[2], .kernel = layer.kernel}};
  COVEY_TRY(check_sizes(0, stage.outputs()));
  append_stage(stage);
  shape_[0] /= layer.kernel;
  shape_[1] /= layer.kernel;
  return {};
}

void Planner::add_relu() {
  if (!plan_.stages.empty()) {
    Stage& last = plan_.stages.back();
    if (auto* dense = std::get_if<DenseStage>(&last)) {
      dense->relu = true;
      return;
    }
    if (auto* convolution = std::get_if<ConvolutionStage>(&last)) {
      convolution->relu = true;
      return;
    }
    if (std::holds_alternative<ReluStage>(last)) return;  // twice is once
  }
  append_stage(ReluStage{static_cast<std::size_t>(product(shape_))});
}

std::size_t Planner::append_tensor(std::string name, std::vector<std::uint32_t> shape,
                                   std::size_t fan_in) {
  plan_.fan_in.push_back(fan_in);
  return plan_.layout.append(std::move(name), std::move(shape));
}

void Planner::append_stage(Stage stage) {
  const std::size_t outputs = std::visit([](const auto& s) { return stage_outputs(s); }, stage);
  plan_.activation.push_back(plan_.sizes.activations);
  plan_.sizes.activations += outputs;
  plan_.sizes.widest = std::max(plan_.sizes.widest, outputs);
  plan_.stages.push_back(std::move(stage));
}

/// Forward 2 operations per multiply-add, backward the same for the weights' gradient and for the
/// input's, which the first layer with parameters does not need. Called before append_stage.
void Planner::count_product(std::size_t multiply_adds) {
  const bool first = plan_.training_flops == 0;
  if (first) plan_.first_trained = plan_.stages.size();
  plan_.training_flops += (first ? 4.0 : 6.0) * static_cast<double>(multiply_adds);
}

}  // namespace

std::size_t ConvolutionStage::padded_size() const {
  return round_up(padded_row() * (shape.height + shape.kernel - 1) + kKernelSlack, kPitch);
}

Result<NetworkPlan> NetworkPlan::make(const ModelSpec& spec) {
  NetworkPlan plan;
  plan.spec = spec;
  const char* isa = nullptr;
  if (!isa_override_valid(&isa)) {
    return invalid_argument(fmt::format(
        "the environment variable COVEY_ISA is \"{}\"; there are sse2, avx2 and avx512", isa));
  }
  plan.kernels = &selected_kernels();
  COVEY_TRY(Planner(spec, plan).run());
  return plan;
}

}  // namespace covey::models
