#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/run_config.hpp>
#include <cstdint>
#include <type_traits>

#include "run_file_classes.hpp"
#include "run_file_keys.hpp"
#include "run_file_layers.hpp"

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

struct ValueText {
  const RunKey& key;
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
  // The shortest digits that read back as the same float.
  std::string operator()(RunKey::Single member) const { return fmt::format("{}", member(config)); }
  std::string operator()(RunKey::Compressors member) const {
    const std::vector<std::string>& names = member(config);
    if (names.size() == 1) return quoted(names.front());
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "" : ", ") + quoted(name);
    return "[" + list + "]";
  }
  std::string operator()(RunKey::Enumerated member) const {
    return quoted(key.choices.at(member.get(config) - std::size_t{1}));
  }
};

/// preset, layers and torchscript exclude each other: only the one in use is written, with the keys
/// that belong to it. Keys that say nothing under this optimiser and schedule are left out.
bool is_written(const RunKey& key, const RunConfig& config) {
  if (key.table != "model") return unmet_need(key, config).empty();
  const ModelConfig& model = config.model;
  const bool is_preset = model.layers.empty() && model.torchscript.empty();
  if (key.name == "preset") return is_preset;
  if (key.name == "layers") return !model.layers.empty();
  if (key.name == "torchscript" || key.name == "device") return !model.torchscript.empty();
  if (key.name == "initialisation") return model.torchscript.empty();
  return !is_preset;
}

}  // namespace

bool has_default(const RunKey& key, const RunConfig& config) {
  RunConfig values = config;
  RunConfig defaults;
  return std::visit(ValueText{key, values}, key.member) ==
         std::visit(ValueText{key, defaults}, key.member);
}

std::string to_toml(const RunConfig& config) {
  RunConfig values = config;
  std::string out;
  std::string_view table;
  const auto write_key = [&](const RunKey& key, RunConfig& from) {
    out += fmt::format("{} = {}\n", key.name, std::visit(ValueText{key, from}, key.member));
  };
  const auto end_table = [&] {
    for (ClassTable& one : class_tables(table, config)) {
      out += fmt::format("\n{}\n", one.heading);
      for (const RunKey& key : one.keys) write_key(key, one.values);
    }
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
    if (is_written(key, values)) write_key(key, values);
  }
  end_table();
  return out;
}

}  // namespace covey
