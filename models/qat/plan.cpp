#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "network_plan.hpp"
#include "qat/range.hpp"

namespace covey::models {

namespace {

Error refuse(const ModelSpec& spec, std::size_t layer, const std::string& what) {
  return invalid_argument(
      fmt::format("layer {} ({}) {}cannot be trained in qat-int8; fp32 and bf16 can", layer + 1,
                  to_string(spec.layers[layer].kind), what));
}

/// What the integer engine knows of the layers that training in floats knows.
Result<void> check_layer(const ModelSpec& spec, std::size_t l) {
  const LayerSpec& layer = spec.layers[l];
  switch (layer.kind) {
    case LayerKind::kDense:
    case LayerKind::kFlatten:
    case LayerKind::kRelu:
      return {};
    case LayerKind::kConv2d:
      if (layer.stride > 1) return refuse(spec, l, fmt::format("of stride {} ", layer.stride));
      if (layer.padding != Padding::kSame) return refuse(spec, l, "with valid padding ");
      return {};
    case LayerKind::kMaxPool2d:
      if (layer.stride == 0 || layer.stride == layer.kernel) return {};
      return refuse(
          spec, l,
          fmt::format("of window {} and another stride, {}, ", layer.kernel, layer.stride));
    default:
      return refuse(spec, l, "");
  }
}

Result<void> check(const ModelSpec& spec) {
  for (std::size_t l = 0; l < spec.layers.size(); ++l) COVEY_TRY(check_layer(spec, l));
  if (spec.input_shape.size() == 2) {
    return invalid_argument(
        "a model of sequences cannot be trained in qat-int8; fp32 and bf16 can");
  }
  if (spec.loss != Loss::kCrossEntropy) {
    return invalid_argument(fmt::format(
        "the loss {} cannot be trained in qat-int8; fp32 and bf16 can", to_string(spec.loss)));
  }
  return {};
}

/// Offset of the weights, SIZE_MAX where the stage has none.
std::size_t weight_of(const Stage& stage) {
  if (const auto* dense = std::get_if<DenseStage>(&stage)) return dense->weight;
  if (const auto* convolution = std::get_if<ConvolutionStage>(&stage)) return convolution->weight;
  return SIZE_MAX;
}

/// "dense1" of the tensor "dense1.weight".
std::string layer_name(const ModelLayout& layout, std::size_t weight) {
  const auto& tensors = layout.tensors();
  const auto found = std::ranges::find(tensors, weight, &TensorLayout::offset);
  return found->name.substr(0, found->name.rfind('.'));
}

/// The stages with fake quantisation between them, and the names of what it quantises.
struct Quantised {
  std::vector<PlannedStage> stages;
  std::vector<std::string> names;

  void quantise_outputs(std::string name, std::size_t layer, std::size_t size,
                        std::vector<std::uint32_t> shape) {
    PlannedStage stage;
    stage.kind = RangeStage{.range = names.size(), .size = size};  // the offset: once all are known
    stage.layer = layer;
    stage.inputs = size;
    stage.outputs = size;
    stage.output_shape = std::move(shape);
    stages.push_back(std::move(stage));
    names.push_back(std::move(name));
  }
};

}  // namespace

Result<void> add_ranges(NetworkPlan& plan) {
  COVEY_TRY(check(plan.spec));
  Quantised result;
  result.quantise_outputs("input", 0, plan.inputs, plan.spec.input_shape);
  const std::size_t first_trained = plan.first_trained;
  std::string pending;  // the layer whose outputs are still to be quantised
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const std::size_t weight = weight_of(plan.stages[s].kind);
    if (s == first_trained) plan.first_trained = result.stages.size();
    if (weight != SIZE_MAX) pending = layer_name(plan.layout, weight);
    result.stages.push_back(plan.stages[s]);
    // A maximum of rounded values is the rounded maximum, so it is cheaper behind the pooling.
    const bool pools =
        s + 1 < plan.stages.size() && std::holds_alternative<PoolStage>(plan.stages[s + 1].kind);
    if (pending.empty() || pools) continue;
    const PlannedStage& last = plan.stages[s];
    result.quantise_outputs(pending, last.layer, last.outputs, last.output_shape);
    pending.clear();
  }
  plan.stages = std::move(result.stages);
  if (auto* scores = std::get_if<RangeStage>(&plan.stages.back().kind)) scores->rounds = false;
  for (PlannedStage& stage : plan.stages) {
    if (auto* range = std::get_if<RangeStage>(&stage.kind)) {
      range->range = plan.layout.append(result.names[range->range] + ".range", {1});
      plan.init.push_back({.kind = TensorInit::Kind::kZeros, .trained = false});
    }
  }
  return {};
}

}  // namespace covey::models
