#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/run_config.hpp>
#include <cstdint>
#include <type_traits>

#include "run_file_keys.hpp"

namespace covey {
namespace {

/// A TOML basic string.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04X}", byte);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

/// The shortest digits that read back as the same double.
std::string number_text(double value) { return fmt::format("{}", value); }

std::string key_text(const std::string& key) {
  const bool bare = !key.empty() && std::ranges::all_of(key, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
  return bare ? key : quoted(key);
}

std::string layers_text(const std::vector<LayerSpec>& layers) {
  std::string out = "[\n";
  for (const LayerSpec& layer : layers) {
    const auto types = layer_types();
    const auto type = std::ranges::find(types, layer.kind, &LayerType::kind);
    COVEY_ASSERT(type != types.end());
    out += fmt::format("  {{type = \"{}\"", type->type);
    if (!type->units_key.empty()) out += fmt::format(", {} = {}", type->units_key, layer.units);
    if (type->takes_kernel) out += fmt::format(", kernel = {}", layer.kernel);
    out += "},\n";
  }
  return out + "]";
}

struct ValueText {
  RunConfig& config;

  std::string operator()(RunKey::Text member) const { return quoted(member(config)); }
  std::string operator()(RunKey::Flag member) const { return member(config) ? "true" : "false"; }
  std::string operator()(RunKey::Count member) const { return std::to_string(member(config)); }
  std::string operator()(RunKey::Seed member) const { return std::to_string(member(config)); }
  std::string operator()(RunKey::Number member) const { return number_text(member(config)); }
  std::string operator()(RunKey::Range member) const {
    const TraitRange range = member(config);
    if (range.min == range.max) return number_text(range.min);
    return fmt::format("[{}, {}]", number_text(range.min), number_text(range.max));
  }
  std::string operator()(RunKey::Layers member) const { return layers_text(member(config)); }
};

/// preset and layers exclude each other: only the one in use is written.
bool is_written(const RunKey& key, const RunConfig& config) {
  if (key.table != "model") return true;
  return key.name == (config.model.layers.empty() ? "preset" : "layers");
}

}  // namespace

std::string to_toml(const RunConfig& config) {
  RunConfig values = config;
  std::string out;
  std::string_view table;
  const auto end_table = [&] {
    if (table != "strategy") return;
    for (const auto& [name, value] : values.strategy.parameters) {
      out += fmt::format("{} = {}\n", key_text(name), number_text(value));
    }
  };
  for (const RunKey& key : run_keys()) {
    if (key.table != table) {
      end_table();
      out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", key.table);
      table = key.table;
    }
    if (!is_written(key, values)) continue;
    out += fmt::format("{} = {}\n", key.name, std::visit(ValueText{values}, key.member));
  }
  end_table();
  return out;
}

}  // namespace covey
