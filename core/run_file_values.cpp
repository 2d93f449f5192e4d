#include "run_file_values.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

namespace covey {
namespace {

// One layer has at most this many outputs or filters, and this side of a kernel: beyond any network
// that fits a device, and small enough that sizes cannot overflow.
constexpr std::int64_t kMaxUnits = 1 << 20;
constexpr std::int64_t kMaxKernel = 1 << 10;

/// What a value is checked against, and how to speak of it.
struct Target {
  const RunKey& key;
  std::string path;
  std::string place;

  Error error(std::string_view sentence) const { return key_error(place, path, sentence); }
};

std::string range_text(const RunKey& key) {
  const bool open_end = key.high >= 0x1p63;
  const std::string low =
      fmt::format("{} {}", key.low_excluded ? "more than" : "at least", key.low);
  if (open_end) return low;
  return fmt::format("{} and {} {}", low, key.high_excluded ? "less than" : "at most", key.high);
}

Result<void> check_range(const Target& target, double value) {
  const RunKey& key = target.key;
  const bool low_ok = key.low_excluded ? value > key.low : value >= key.low;
  const bool high_ok = key.high_excluded ? value < key.high : value <= key.high;
  if (low_ok && high_ok) return {};
  return target.error(fmt::format("{} is out of range, it must be {}", value, range_text(key)));
}

Result<std::int64_t> read_whole(const Target& target, const toml::node& node) {
  const auto value = node.value_exact<std::int64_t>();
  if (!value) {
    return target.error(fmt::format("expected a whole number, found {}", describe(node)));
  }
  COVEY_TRY(check_range(target, static_cast<double>(*value)));
  return *value;
}

/// Stores a node in the member of the type that the key is bound to.
struct Assign {
  const Target& target;
  const toml::node& node;
  const RunSource& source;
  RunConfig& config;

  Result<void> operator()(RunKey::Text member) const {
    const auto value = node.value_exact<std::string>();
    if (!value) return target.error(fmt::format("expected a string, found {}", describe(node)));
    const auto& choices = target.key.choices;
    if (!choices.empty() && std::ranges::find(choices, *value) == choices.end()) {
      return target.error(fmt::format("\"{}\" is not one of {}", *value, fmt::join(choices, ", ")));
    }
    if (static_cast<double>(value->size()) < target.key.low) {
      return target.error("must not be empty");
    }
    if (value->find('\0') != std::string::npos) return target.error("holds a NUL character");
    member(config) = *value;
    return {};
  }

  Result<void> operator()(RunKey::Flag member) const {
    const auto value = node.value_exact<bool>();
    if (!value)
      return target.error(fmt::format("expected true or false, found {}", describe(node)));
    member(config) = *value;
    return {};
  }

  Result<void> operator()(RunKey::Count member) const {
    COVEY_ASSIGN(const std::int64_t value, read_whole(target, node));
    member(config) = static_cast<std::uint32_t>(value);
    return {};
  }

  Result<void> operator()(RunKey::Seed member) const {
    COVEY_ASSIGN(const std::int64_t value, read_whole(target, node));
    member(config) = static_cast<std::uint64_t>(value);
    return {};
  }

  Result<void> operator()(RunKey::Number member) const {
    COVEY_ASSIGN(const double value, read_number(target.path, node, source));
    COVEY_TRY(check_range(target, value));
    member(config) = value;
    return {};
  }

  Result<void> operator()(RunKey::Range member) const {
    const toml::array* pair = node.as_array();
    if (pair == nullptr && !node.is_number()) {
      return target.error(fmt::format("expected a number or [min, max], found {}", describe(node)));
    }
    if (pair != nullptr && pair->size() != 2) {
      return target.error(
          fmt::format("expected a number or [min, max], found {} values", pair->size()));
    }
    COVEY_ASSIGN(const double min,
                 read_number(target.path, pair == nullptr ? node : pair->front(), source));
    COVEY_ASSIGN(const double max,
                 read_number(target.path, pair == nullptr ? node : pair->back(), source));
    COVEY_TRY(check_range(target, min));
    COVEY_TRY(check_range(target, max));
    if (min > max) {
      return target.error(fmt::format("[{}, {}]: the first number must not be larger", min, max));
    }
    const TraitRange range = member(config);
    range.min = min;
    range.max = max;
    return {};
  }

  Result<void> operator()(RunKey::Layers member) const {
    const toml::array* items = node.as_array();
    if (items == nullptr) {
      return target.error(fmt::format("expected a list of layers, found {}", describe(node)));
    }
    if (items->empty()) return target.error("needs at least one layer");
    std::vector<LayerSpec> layers;
    for (const toml::node& item : *items) {
      const std::string name = fmt::format("{}[{}]", target.path, layers.size());
      COVEY_ASSIGN(const LayerSpec layer, read_layer(name, item));
      layers.push_back(layer);
    }
    member(config) = std::move(layers);
    return {};
  }

  Result<LayerSpec> read_layer(const std::string& name, const toml::node& item) const;
  Result<std::uint32_t> read_size(const std::string& name, const toml::table& table,
                                  std::string_view key, std::int64_t max) const;
};

Result<std::uint32_t> Assign::read_size(const std::string& name, const toml::table& table,
                                        std::string_view key, std::int64_t max) const {
  const toml::node* item = table.get(key);
  if (item == nullptr) {
    return key_error(source.place(table), name, fmt::format("{} is missing", key));
  }
  const auto value = item->value_exact<std::int64_t>();
  if (!value || *value < 1 || *value > max) {
    return key_error(
        source.place(*item), fmt::format("{}.{}", name, key),
        fmt::format("expected a whole number from 1 to {}, found {}", max, describe(*item)));
  }
  return static_cast<std::uint32_t>(*value);
}

Result<LayerSpec> Assign::read_layer(const std::string& name, const toml::node& item) const {
  const toml::table* table = item.as_table();
  if (table == nullptr) {
    return key_error(
        source.place(item), name,
        fmt::format("expected {{type = \"dense\", units = 10}}, found {}", describe(item)));
  }
  const auto type = (*table)["type"].value_exact<std::string>();
  const auto types = layer_types();
  const auto known =
      std::ranges::find_if(types, [&](const LayerType& t) { return t.type == type; });
  if (known == types.end()) {
    std::vector<std::string_view> names;
    for (const LayerType& t : types) names.push_back(t.type);
    return key_error(source.place(item), name,
                     fmt::format("type must be one of {}", fmt::join(names, ", ")));
  }
  for (const auto& [key, value] : *table) {
    const bool takes = key == "type" || (key == "kernel" && known->takes_kernel) ||
                       (!known->units_key.empty() && key == known->units_key);
    if (!takes) {
      return key_error(source.place(value), name,
                       fmt::format("a {} layer has no \"{}\"", *type, key.str()));
    }
  }
  LayerSpec layer{known->kind, 0, 0};
  if (!known->units_key.empty()) {
    COVEY_ASSIGN(layer.units, read_size(name, *table, known->units_key, kMaxUnits));
  }
  if (known->takes_kernel) {
    COVEY_ASSIGN(layer.kernel, read_size(name, *table, "kernel", kMaxKernel));
  }
  return layer;
}

}  // namespace

std::string describe(const toml::node& node) {
  if (const auto value = node.value_exact<std::string>()) {
    return fmt::format("a string \"{}\"", *value);
  }
  if (const auto value = node.value_exact<std::int64_t>())
    return fmt::format("the number {}", *value);
  if (const auto value = node.value_exact<double>()) return fmt::format("the number {}", *value);
  if (const auto value = node.value_exact<bool>()) return *value ? "true" : "false";
  if (node.is_table()) return "a table";
  if (node.is_array()) return "a list";
  return "a date or time";
}

Error key_error(const std::string& place, std::string_view key, std::string_view sentence) {
  return invalid_argument(fmt::format("{}: {}: {}", place, key, sentence));
}

Result<double> read_number(const std::string& key, const toml::node& node,
                           const RunSource& source) {
  if (!node.is_number()) {
    return key_error(source.place(node), key,
                     fmt::format("expected a number, found {}", describe(node)));
  }
  // value<double>() refuses integers above 2^53, which are merely rounded here.
  const auto whole = node.value_exact<std::int64_t>();
  const double value = whole ? static_cast<double>(*whole) : node.value_exact<double>().value_or(0);
  if (!std::isfinite(value)) {
    return key_error(source.place(node), key, fmt::format("{} is not a finite number", value));
  }
  return value;
}

Result<void> assign_value(const RunKey& key, const toml::node& node, const RunSource& source,
                          RunConfig& config) {
  const Target target{key, key.path(), source.place(node)};
  return std::visit(Assign{target, node, source, config}, key.member);
}

}  // namespace covey
