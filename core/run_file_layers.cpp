#include "run_file_layers.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <covey/assert.hpp>
#include <utility>

namespace covey {
namespace {

// Beyond any network that fits a device, and small enough that sizes cannot overflow.
constexpr std::uint32_t kMaxUnits = 1 << 20;
constexpr std::uint32_t kMaxKernel = 1 << 10;
constexpr std::uint32_t kMaxDepth = 256;  // layers that the wire carries

// What conv2d calls its units in many frameworks; read, never written.
constexpr std::string_view kFilters = "filters";

constexpr std::array<LayerField, 10> kFields{{
    {"units", &LayerSpec::units, kMaxUnits},
    {"kernel", &LayerSpec::kernel, kMaxKernel},
    {"stride", &LayerSpec::stride, kMaxKernel},
    {"padding", &LayerSpec::padding},
    {"vocabulary", &LayerSpec::vocabulary, kMaxUnits},
    {"groups", &LayerSpec::groups, kMaxUnits},
    {"back", &LayerSpec::back, kMaxDepth},
    {"rate", &LayerSpec::rate},
    {"peephole", &LayerSpec::peephole},
    {"last-only", &LayerSpec::last_only},
}};

const LayerField& field_named(std::string_view name) {
  const auto field = std::ranges::find(kFields, name, &LayerField::name);
  COVEY_ASSERT(field != kFields.end());
  return *field;
}

std::string_view padding_name(Padding padding) {
  return padding == Padding::kSame ? "same" : "valid";
}

/// Stores a node in a layer's member, or says what was expected there.
struct ReadField {
  const LayerField& field;
  const toml::node& node;
  LayerSpec& layer;

  /// What is wrong with the value; "" when nothing is.
  std::string operator()(LayerField::Count member) const {
    const auto value = node.value_exact<std::int64_t>();
    if (!value || *value < 1 || *value > field.high) {
      return fmt::format("expected a whole number from 1 to {}, found {}", field.high,
                         describe(node));
    }
    layer.*member = static_cast<std::uint32_t>(*value);
    return "";
  }
  std::string operator()(LayerField::Share member) const {
    const double value = node.is_number() ? node.value<double>().value_or(-1) : -1;
    const auto rounded = static_cast<float>(value);
    if (!(value >= 0 && rounded < 1)) {
      return fmt::format("expected a number that is at least 0 and less than 1, found {}",
                         describe(node));
    }
    layer.*member = rounded;
    return "";
  }
  std::string operator()(LayerField::Flag member) const {
    const auto value = node.value_exact<bool>();
    if (!value) return fmt::format("expected true or false, found {}", describe(node));
    layer.*member = *value;
    return "";
  }
  std::string operator()(LayerField::Border member) const {
    const auto value = node.value_exact<std::string>();
    for (const Padding padding : {Padding::kSame, Padding::kValid}) {
      if (value != padding_name(padding)) continue;
      layer.*member = padding;
      return "";
    }
    return fmt::format("expected \"same\" or \"valid\", found {}", describe(node));
  }
};

/// "units = 10"; "" for a default.
struct FieldText {
  const LayerField& field;
  const LayerSpec& layer;

  template <typename Member>
  std::string operator()(Member member) const {
    const auto value = layer.*member;
    return value == LayerSpec{}.*member ? "" : fmt::format("{} = {}", field.name, value);
  }
  std::string operator()(LayerField::Border member) const {
    const Padding value = layer.*member;
    return value == LayerSpec{}.padding
               ? ""
               : fmt::format("{} = \"{}\"", field.name, padding_name(value));
  }
};

Error missing(const std::string& name, const toml::node& item, const RunSource& source,
              std::string_view field) {
  return key_error(source.place(item), name, fmt::format("{} is missing", field));
}

Result<const LayerType*> type_of(const std::string& name, const toml::table& table,
                                 const RunSource& source) {
  const auto type = table["type"].value_exact<std::string>();
  const auto types = layer_types();
  const auto known = std::ranges::find_if(
      types, [&](const LayerType& candidate) { return to_string(candidate.kind) == type; });
  if (known != types.end()) return &*known;
  std::vector<std::string_view> names;
  for (const LayerType& each : types) names.push_back(to_string(each.kind));
  return key_error(source.place(table), name,
                   fmt::format("type must be one of {}", fmt::join(names, ", ")));
}

}  // namespace

std::span<const LayerType> layer_types() {
  using enum LayerKind;
  static const std::vector<LayerType> types{
      {kDense, {"units"}},
      {kConv2d, {"units", "kernel"}, {"stride", "padding"}},
      {kDepthwiseConv2d, {"kernel"}, {"stride", "padding"}},
      {kMaxPool2d, {"kernel"}, {"stride"}},
      {kAveragePool2d, {"kernel"}, {"stride"}},
      {kGlobalAveragePool},
      {kFlatten},
      {kEmbedding, {"vocabulary", "units"}},
      {kLstm, {"units"}, {"peephole", "last-only"}},
      {kGru, {"units"}, {"last-only"}},
      {kBatchNorm},
      {kGroupNorm, {"groups"}},
      {kLayerNorm},
      {kDropout, {"rate"}},
      {kRelu},
      {kGelu},
      {kTanh},
      {kSigmoid},
      {kAdd, {"back"}},
  };
  return types;
}

Result<LayerSpec> read_layer(const std::string& name, const toml::node& node,
                             const RunSource& source) {
  const toml::table* table = node.as_table();
  if (table == nullptr) {
    return key_error(
        source.place(node), name,
        fmt::format("expected {{type = \"dense\", units = 10}}, found {}", describe(node)));
  }
  COVEY_ASSIGN(const LayerType* const type, type_of(name, *table, source));
  LayerSpec layer{.kind = type->kind};
  const bool has_filters = type->kind == LayerKind::kConv2d && table->contains(kFilters);
  for (const auto& [key, value] : *table) {
    if (key == "type") continue;
    std::string_view field = key.str();
    if (has_filters && field == kFilters) {
      if (table->contains("units")) {
        return key_error(source.place(value), name, "units and filters are the same number");
      }
      field = "units";
    }
    const auto is_field = [&](const auto& fields) {
      return std::ranges::find(fields, field) != fields.end();
    };
    if (!is_field(type->required) && !is_field(type->optional)) {
      return key_error(source.place(value), name,
                       fmt::format("a {} layer has no \"{}\"", to_string(type->kind), key.str()));
    }
    const LayerField& known = field_named(field);
    const std::string problem = std::visit(ReadField{known, value, layer}, known.member);
    if (!problem.empty()) {
      return key_error(source.place(value), fmt::format("{}.{}", name, key.str()), problem);
    }
  }
  for (const std::string_view field : type->required) {
    if (table->contains(field) || (field == "units" && has_filters)) continue;
    return missing(name, node, source, field);
  }
  return layer;
}

std::string layers_text(const std::vector<LayerSpec>& layers) {
  std::string out = "[\n";
  for (const LayerSpec& layer : layers) {
    const auto types = layer_types();
    const auto type = std::ranges::find(types, layer.kind, &LayerType::kind);
    COVEY_ASSERT(type != types.end());
    out += fmt::format("  {{type = \"{}\"", to_string(layer.kind));
    for (const auto* fields : {&type->required, &type->optional}) {
      for (const std::string_view name : *fields) {
        const LayerField& field = field_named(name);
        const std::string text = std::visit(FieldText{field, layer}, field.member);
        // A required rate of 0 is the default, and stands there all the same.
        if (!text.empty()) {
          out += ", " + text;
        } else if (fields == &type->required) {
          out += fmt::format(", {} = 0", name);
        }
      }
    }
    out += "},\n";
  }
  return out + "]";
}

}  // namespace covey
