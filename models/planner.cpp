#include "planner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

namespace covey::models {

namespace {

// A description comes from a server: bounds that keep sizes far from overflow and an absurd one
// from taking a device's memory. 2^28 parameters are 1 GiB; 2^24 values per example 64 MiB; with 32-bit
// addresses an eighth of both.
constexpr int kNarrow = sizeof(std::size_t) < 8 ? 3 : 0;
constexpr std::uint64_t kMaxParameters = std::uint64_t{1} << (28 - kNarrow);
constexpr std::uint64_t kMaxActivations = std::uint64_t{1} << (24 - kNarrow);
constexpr std::size_t kMaxLayers = 256;  // as many as a message may hold

std::uint64_t product(const Planner::Shape& shape) {
  std::uint64_t size = 1;
  for (const std::uint32_t extent : shape) {
    if (extent == 0) return 0;
    if (size > kMaxActivations) return size;  // too large already: do not overflow
    size *= extent;
  }
  return size;
}

}  // namespace

Planner::Planner(const ModelSpec& spec, NetworkPlan& plan)
    : spec_(spec), plan_(plan), shape_(spec.input_shape) {}

std::string Planner::text(const Shape& shape) { return fmt::format("{}", fmt::join(shape, "x")); }

std::size_t Planner::shape_size() const { return static_cast<std::size_t>(product(shape_)); }

Error Planner::refuse(const std::string& why) const {
  return invalid_argument(
      fmt::format("layer {} ({}) {}", index_ + 1, to_string(layer().kind), why));
}

Result<void> Planner::need_image() const {
  if (shape_.size() == 3) return {};
  return refuse("takes [height, width, channels] but receives " + text(shape_));
}

Result<void> Planner::need_sequence() const {
  if (shape_.size() == 2) return {};
  return refuse("takes a sequence [steps, features] but receives " + text(shape_));
}

Result<void> Planner::check_sizes(std::uint64_t weights, std::uint64_t outputs) const {
  if (plan_.layout.size() + weights > kMaxParameters) {
    return refuse(fmt::format("brings the model to {} parameters; at most {} work",
                              plan_.layout.size() + weights, kMaxParameters));
  }
  std::uint64_t activations = 0;
  for (const PlannedStage& stage : plan_.stages) activations += stage.outputs;
  if (activations + outputs > kMaxActivations) {
    return refuse(
        fmt::format("gives {} values per example, {} with the layers before; at most {} work",
                    outputs, activations + outputs, kMaxActivations));
  }
  return {};
}

std::string Planner::number(std::string_view kind) {
  const auto found = std::ranges::find(counts_, kind, [](const auto& c) { return c.first; });
  auto& count = found == counts_.end() ? counts_.emplace_back(kind, 0) : *found;
  return fmt::format("{}{}", kind, ++count.second);
}

std::size_t Planner::add_tensor(std::string name, Shape shape, TensorInit init) {
  plan_.init.push_back(init);
  return plan_.layout.append(std::move(name), std::move(shape));
}

void Planner::add_stage(Stage stage, Shape output_shape, double multiply_adds) {
  PlannedStage planned;
  planned.kind = std::move(stage);
  planned.layer = index_;
  planned.inputs = shape_size();
  planned.output_shape = output_shape;
  planned.outputs = static_cast<std::size_t>(product(output_shape));
  planned.multiply_adds = multiply_adds;
  plan_.stages.push_back(std::move(planned));
  shape_ = std::move(output_shape);
}

Stage* Planner::fusable() {
  if (index_ == 0 || plan_.stages.empty() || needed_by_residual_[index_ - 1]) return nullptr;
  if (plan_.stages.back().layer + 1 != index_) return nullptr;
  return &plan_.stages.back().kind;
}

Result<void> Planner::check_input() const {
  const Shape& shape = spec_.input_shape;
  if (shape.empty() || shape.size() > 3) {
    return invalid_argument(fmt::format(
        "the model's input shape has {} dimensions; it is [features], [steps] of tokens, [steps, "
        "features] or [height, width, channels]",
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
  plan_.inputs = shape_size();
  needed_by_residual_.assign(spec_.layers.size(), false);
  for (index_ = 0; index_ < spec_.layers.size(); ++index_) {
    if (layer().kind != LayerKind::kAdd) continue;
    COVEY_TRY(check_back());
    if (layer().back <= index_) needed_by_residual_[index_ - layer().back] = true;
  }
  bool trains = false;
  for (index_ = 0; index_ < spec_.layers.size(); ++index_) {
    const std::size_t stages = plan_.stages.size();
    const std::size_t parameters = plan_.layout.size();
    COVEY_TRY(add_layer());
    COVEY_TRY(check_fields());
    produced_by_.push_back(plan_.stages.size());
    output_shapes_.push_back(shape_);
    if (plan_.stages.size() == stages) continue;
    PlannedStage& stage = plan_.stages.back();
    stage.parameters = plan_.layout.size() - parameters;
    const bool first = !trains && stage.parameters > 0;
    if (first) plan_.first_trained = stages;
    trains = trains || first;
    // Forward 2 operations per multiply-add, backward the same for the weights' gradient and for
    // the input's, which the first layer with parameters does not need.
    plan_.training_flops += (!trains ? 2.0 : first ? 4.0 : 6.0) * stage.multiply_adds;
  }
  if (!trains) {
    return invalid_argument("the model has nothing to train: no layer has parameters");
  }
  return check_output();
}

Result<void> Planner::check_fields() const {
  using enum LayerKind;
  const LayerSpec& spec = layer();
  const auto is = [&spec](std::initializer_list<LayerKind> kinds) {
    return std::ranges::find(kinds, spec.kind) != kinds.end();
  };
  const bool windows = is({kConv2d, kDepthwiseConv2d});
  const bool slides = windows || is({kMaxPool2d, kAveragePool2d});
  struct Field {
    const char* name;
    bool set;
    bool taken;
  };
  const Field fields[] = {
      {"units", spec.units != 0, is({kDense, kConv2d, kEmbedding, kLstm, kGru})},
      {"kernel", spec.kernel != 0, slides},
      {"stride", spec.stride != 0, slides},
      {"padding", spec.padding != Padding::kSame, windows},
      {"vocabulary", spec.vocabulary != 0, is({kEmbedding})},
      {"groups", spec.groups != 0, is({kGroupNorm})},
      {"back", spec.back != 0, is({kAdd})},
      {"rate", spec.rate != 0, is({kDropout})},
      {"peephole", spec.peephole, is({kLstm})},
      {"last-only", spec.last_only, is({kLstm, kGru})}};
  for (const Field& field : fields) {
    if (field.set && !field.taken) {
      return refuse(fmt::format("has {} set, which this kind of layer does not take", field.name));
    }
  }
  return {};
}

Result<void> Planner::check_back() const {
  const std::uint32_t back = layer().back;
  if (back < 2 || back > index_ + 1) {
    return refuse(fmt::format(
        "has back = {}; it adds an earlier output to the one of the layer before it, so 2 to {} "
        "work here ({} is the network's input)",
        back, index_ + 1, index_ + 1));
  }
  return {};
}

Result<void> Planner::add_residual() {
  const std::uint32_t back = layer().back;
  const bool from_input = back == index_ + 1;
  const Shape& other = from_input ? spec_.input_shape : output_shapes_[index_ - back];
  if (other != shape_) {
    return refuse(
        fmt::format("adds {} and {}; the shapes must be the same", text(shape_), text(other)));
  }
  COVEY_TRY(check_sizes(0, shape_size()));
  const std::size_t source = from_input ? 0 : produced_by_[index_ - back];
  add_stage(AddStage{shape_size()}, shape_);
  plan_.stages.back().skip = source;
  return {};
}

Result<void> Planner::add_layer() {
  switch (layer().kind) {
    case LayerKind::kDense:
      return plan_dense(*this);
    case LayerKind::kConv2d:
      return plan_convolution(*this);
    case LayerKind::kDepthwiseConv2d:
      return plan_depthwise(*this);
    case LayerKind::kMaxPool2d:
    case LayerKind::kAveragePool2d:
      return plan_pool(*this);
    case LayerKind::kGlobalAveragePool:
      return plan_global_pool(*this);
    case LayerKind::kFlatten:
      add_nothing({static_cast<std::uint32_t>(shape_size())});
      return {};
    case LayerKind::kRelu:
    case LayerKind::kGelu:
    case LayerKind::kTanh:
    case LayerKind::kSigmoid:
      return plan_activation(*this);
    case LayerKind::kEmbedding:
      return plan_embedding(*this);
    case LayerKind::kLstm:
      return plan_lstm(*this);
    case LayerKind::kGru:
      return plan_gru(*this);
    case LayerKind::kBatchNorm:
      return plan_batch_norm(*this);
    case LayerKind::kGroupNorm:
      return plan_group_norm(*this);
    case LayerKind::kLayerNorm:
      return plan_layer_norm(*this);
    case LayerKind::kDropout:
      return plan_dropout(*this);
    case LayerKind::kAdd:
      return add_residual();
  }
  return invalid_argument(fmt::format("layer {} has the unknown kind {}", index_ + 1,
                                      static_cast<unsigned>(layer().kind)));
}

Result<void> Planner::check_output() {
  index_ = spec_.layers.size() - 1;
  plan_.outputs = shape_size();
  plan_.classes = shape_.back();
  if (spec_.target == Target::kInput) {
    if (spec_.loss == Loss::kCrossEntropy) {
      return invalid_argument(
          "the model's target is its input, which takes the loss mse or bce, not cross-entropy");
    }
    if (plan_.outputs == plan_.inputs) return {};
    return refuse(
        fmt::format("is the last and gives {}; to rebuild its input {} the network must "
                    "give {} values",
                    text(shape_), text(spec_.input_shape), plan_.inputs));
  }
  const bool sequence = shape_.size() == 2;
  if (sequence) plan_.predictions = shape_[0];
  const bool scores = shape_.size() == 1 || (sequence && spec_.loss == Loss::kCrossEntropy);
  if (!scores || (spec_.loss == Loss::kCrossEntropy && plan_.classes < 2)) {
    return invalid_argument(fmt::format(
        "the model's last layer {} ({}) gives {}; the loss needs one score per class, two or more "
        "(end with flatten and dense)",
        index_ + 1, to_string(layer().kind), text(shape_)));
  }
  return {};
}

}  // namespace covey::models
