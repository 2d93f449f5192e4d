#include "run_file_values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/compressor_spec.hpp>
#include <cstdint>
#include <utility>

#include "run_file_layers.hpp"

namespace covey {
namespace {

/// What a value is checked against, and how to speak of it.
struct CheckedKey {
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

Result<void> check_range(const CheckedKey& target, double value) {
  const RunKey& key = target.key;
  const bool low_ok = key.low_excluded ? value > key.low : value >= key.low;
  const bool high_ok = key.high_excluded ? value < key.high : value <= key.high;
  if (low_ok && high_ok) return {};
  return target.error(fmt::format("{} is out of range, it must be {}", value, range_text(key)));
}

/// Where 0 says "no limit" it stands alone, and what limits is not next to nothing.
Result<void> check_limits(const CheckedKey& target, double min, double max) {
  const double smallest = target.key.smallest_limit;
  if (smallest <= 0 || (min == 0 && max == 0)) return {};
  if (min == 0) {
    return target.error(fmt::format("[0, {}]: 0 means no limit and cannot begin a range", max));
  }
  if (min >= smallest) return {};
  return target.error(fmt::format("{} is out of range, it must be {}at least {}", min,
                                  target.key.low_excluded ? "" : "0 (no limit) or ", smallest));
}

Result<std::int64_t> read_whole(const CheckedKey& target, const toml::node& node) {
  const auto value = node.value_exact<std::int64_t>();
  if (!value) {
    return target.error(fmt::format("expected a whole number, found {}", describe(node)));
  }
  COVEY_TRY(check_range(target, static_cast<double>(*value)));
  return *value;
}

std::string not_one_of(std::string_view value, const std::vector<std::string_view>& choices) {
  std::string known;
  for (const std::string_view choice : choices) {
    known += (known.empty() ? "" : ", ") + (choice.empty() ? "\"\"" : std::string(choice));
  }
  return fmt::format("\"{}\" is not one of {}", value, known);
}

/// Stores a node in the member of the type that the key is bound to.
struct Assign {
  const CheckedKey& target;
  const toml::node& node;
  const RunSource& source;
  RunConfig& config;

  Result<void> operator()(RunKey::Text member) const {
    const auto value = node.value_exact<std::string>();
    if (!value) return target.error(fmt::format("expected a string, found {}", describe(node)));
    const auto& choices = target.key.choices;
    if (!choices.empty() && std::ranges::find(choices, *value) == choices.end()) {
      return target.error(not_one_of(*value, choices));
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
    COVEY_TRY(check_limits(target, min, max));
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
      COVEY_ASSIGN(const LayerSpec layer, read_layer(name, item, source));
      layers.push_back(layer);
    }
    member(config) = std::move(layers);
    return {};
  }

  Result<void> operator()(RunKey::Single member) const {
    COVEY_ASSIGN(const double value, read_number(target.path, node, source));
    const auto rounded = static_cast<float>(value);  // what is kept is what must be in range
    COVEY_TRY(check_range(target, static_cast<double>(rounded)));
    member(config) = rounded;
    return {};
  }

  Result<void> operator()(RunKey::Compressors member) const {
    const toml::array* items = node.as_array();
    std::vector<std::string> names;
    const auto take = [&](const toml::node& item) -> Result<void> {
      const auto name = item.value_exact<std::string>();
      if (!name) {
        return target.error(fmt::format("expected a compressor's name or a list of them, found {}",
                                        describe(item)));
      }
      if (items == nullptr && *name == "auto") {
        names.push_back(*name);
        return {};
      }
      const auto spec = parse_compressor(*name);
      if (!spec.ok()) return target.error(spec.error().message);
      names.push_back(to_string(*spec));  // one way to write each
      if (std::ranges::count(names, names.back()) > 1) {
        return target.error(fmt::format("\"{}\" stands there twice", names.back()));
      }
      return {};
    };
    if (items == nullptr) {
      COVEY_TRY(take(node));
    } else if (items->empty()) {
      return target.error("an empty list: name at least one compressor, or \"auto\"");
    } else {
      for (const toml::node& item : *items) COVEY_TRY(take(item));
    }
    member(config) = std::move(names);
    return {};
  }

  Result<void> operator()(RunKey::Enumerated member) const {
    const auto value = node.value_exact<std::string>();
    if (!value) return target.error(fmt::format("expected a string, found {}", describe(node)));
    const auto& choices = target.key.choices;
    const auto choice = std::ranges::find(choices, *value);
    if (choice == choices.end()) {
      return target.error(not_one_of(*value, choices));
    }
    member.set(config, static_cast<std::uint8_t>(choice - choices.begin() + 1));
    return {};
  }
};

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
  return assign_value(key, key.path(), node, source, config);
}

Result<void> assign_value(const RunKey& key, const std::string& path, const toml::node& node,
                          const RunSource& source, RunConfig& config) {
  const CheckedKey target{key, path, source.place(node)};
  return std::visit(Assign{target, node, source, config}, key.member);
}

}  // namespace covey
