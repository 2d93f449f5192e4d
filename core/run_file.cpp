#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <covey/run_config.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <utility>

#include "run_file_classes.hpp"
#include "run_file_keys.hpp"
#include "run_file_values.hpp"

namespace covey {
namespace {

constexpr std::string_view kStrategyTable = "strategy";
// Room for a message's other fields around a chunk of a blob.
constexpr std::uint32_t kFrameOverheadBytes = 1024;

std::string did_you_mean(const std::string& suggestion) {
  return suggestion.empty() ? "" : fmt::format("; did you mean {}?", suggestion);
}

/// The nearest key of the same table, else of any table, as "table.key"; "" if none is near.
std::string nearest_key(std::string_view table, std::string_view name) {
  std::vector<std::string> here;
  std::vector<std::string> anywhere;
  for (const RunKey& key : run_keys()) {
    anywhere.emplace_back(key.name);
    if (key.table == table) here.emplace_back(key.name);
  }
  if (const std::string near = nearest_name(name, here); !near.empty()) {
    return fmt::format("{}.{}", table, near);
  }
  const std::string near = nearest_name(name, anywhere);
  if (near.empty()) return "";
  const auto keys = run_keys();
  return std::ranges::find_if(keys, [&](const RunKey& key) { return key.name == near; })->path();
}

bool is_table_name(std::string_view name) {
  return std::ranges::any_of(run_keys(), [&](const RunKey& key) { return key.table == name; });
}

std::string unknown_table_text(std::string_view name) {
  std::vector<std::string> tables;
  for (const RunKey& key : run_keys()) {
    if (tables.empty() || tables.back() != key.table) tables.emplace_back(key.table);
  }
  const std::string near = nearest_name(name, tables);
  return "unknown table" + did_you_mean(near.empty() ? "" : "[" + near + "]");
}

/// Collects a configuration from a document and overrides, remembering where each key was set so
/// that errors between keys can name a place. One use, one thread.
class RunReader {
 public:
  Result<void> read_document(const toml::table& document, const RunSource& source);
  Result<void> read_override(const std::string& text);
  Result<void> check_relations(const std::string& origin) const;

  RunConfig config;

 private:
  Result<void> read_key(std::string_view table, std::string_view name, const toml::node& node,
                        const RunSource& source);
  Result<void> read_strategy_parameter(std::string_view name, const toml::node& node,
                                       const RunSource& source);
  Error relation_error(const std::string& origin, const std::string& key,
                       std::string_view sentence) const;
  Result<void> check_population(const std::string& origin) const;
  Result<void> check_model(const std::string& origin) const;
  Result<void> check_needs(const std::string& origin) const;
  bool is_default_of_a_varied_file(const RunKey& key) const;
  Result<void> check_client(const std::string& origin) const;
  void choose_model(std::string_view key);

  std::map<std::string, std::string> places_;  // "table.key" -> "run.toml:12"
};

constexpr std::string_view kPresetBringsIt =
    "goes with model.layers or model.torchscript; a preset brings its own";
constexpr std::string_view kDeviceIsLibtorchs =
    "goes with model.torchscript; other models are computed on the processor";
constexpr std::string_view kScriptBringsIt =
    "goes with model.preset or model.layers; a TorchScript file brings its initial parameters";

/// A model is given in one way; a file that gives two of them is not to be guessed about.
Result<void> check_model_table(const toml::table& table, const RunSource& source) {
  const toml::node* layers = table.get("layers");
  const toml::node* torchscript = table.get("torchscript");
  const bool preset = table.contains("preset");
  if (layers != nullptr && preset) {
    return key_error(source.place(*layers), "model.layers",
                     "a model is given by preset or by layers, not by both");
  }
  if (torchscript != nullptr && (preset || layers != nullptr)) {
    return key_error(source.place(*torchscript), "model.torchscript",
                     fmt::format("a model is given by torchscript or by {}, not by both",
                                 preset ? "preset" : "layers"));
  }
  for (const char* key : {"loss", "target"}) {
    if (const toml::node* node = table.get(key); node != nullptr && preset) {
      return key_error(source.place(*node), std::string("model.") + key, kPresetBringsIt);
    }
  }
  if (const toml::node* node = table.get("device"); node != nullptr && (preset || layers)) {
    return key_error(source.place(*node), "model.device", kDeviceIsLibtorchs);
  }
  if (const toml::node* node = table.get("initialisation");
      node != nullptr && torchscript != nullptr) {
    return key_error(source.place(*node), "model.initialisation", kScriptBringsIt);
  }
  return {};
}

Result<void> RunReader::read_document(const toml::table& document, const RunSource& source) {
  for (const auto& [table_name, table_node] : document) {
    const toml::table* table = table_node.as_table();
    if (!is_table_name(table_name.str())) {
      const std::string hint =
          table != nullptr
              ? unknown_table_text(table_name.str())
              : "a key outside of a table" + did_you_mean(nearest_key("run", table_name.str()));
      return key_error(source.place(table_node), table_name.str(), hint);
    }
    if (table == nullptr) {
      return key_error(source.place(table_node), table_name.str(),
                       fmt::format("expected a table, found {}", describe(table_node)));
    }
    if (table_name == "model") COVEY_TRY(check_model_table(*table, source));
    for (const auto& [name, node] : *table) {
      COVEY_TRY(read_key(table_name.str(), name.str(), node, source));
    }
  }
  return {};
}

Result<void> RunReader::read_key(std::string_view table, std::string_view name,
                                 const toml::node& node, const RunSource& source) {
  if (holds_classes(table, name)) {
    COVEY_TRY(read_classes(table, node, source, config));
    places_[fmt::format("{}.{}", table, name)] = source.place(node);
    return {};
  }
  const RunKey* key = find_run_key(table, name);
  if (key == nullptr && table == kStrategyTable) return read_strategy_parameter(name, node, source);
  if (key == nullptr) {
    return key_error(source.place(node), fmt::format("{}.{}", table, name),
                     "unknown key" + did_you_mean(nearest_key(table, name)));
  }
  COVEY_TRY(assign_value(*key, node, source, config));
  places_[key->path()] = source.place(node);
  if (table == "model") choose_model(name);
  return {};
}

/// The way of giving a model that was set last replaces the others, and what belonged to them.
void RunReader::choose_model(std::string_view key) {
  ModelConfig& model = config.model;
  if (key != "preset" && key != "layers" && key != "torchscript") return;
  if (key != "preset") model.preset.clear();
  if (key != "layers") model.layers.clear();
  if (key != "torchscript") {
    model.torchscript.clear();
    model.device = ModelConfig{}.device;
    places_.erase("model.device");
  }
  if (key == "preset") {
    model.loss = ModelConfig{}.loss;
    model.target = ModelConfig{}.target;
    places_.erase("model.loss");
    places_.erase("model.target");
  }
  if (key == "torchscript") {
    model.initialisation = ModelConfig{}.initialisation;
    places_.erase("model.initialisation");
  }
}

Result<void> RunReader::read_strategy_parameter(std::string_view name, const toml::node& node,
                                                const RunSource& source) {
  const std::string path = fmt::format("{}.{}", kStrategyTable, name);
  if (!node.is_number()) {
    return key_error(source.place(node), path,
                     fmt::format("expected a number (a strategy's parameter), found {}{}",
                                 describe(node), did_you_mean(nearest_key(kStrategyTable, name))));
  }
  COVEY_ASSIGN(const double value, read_number(path, node, source));
  // Kept sorted by name, so that equal experiments are equal values.
  auto& parameters = config.strategy.parameters;
  const auto at = std::ranges::lower_bound(
      parameters, name, {}, [](const auto& p) -> std::string_view { return p.first; });
  if (at != parameters.end() && at->first == name) {
    at->second = value;
  } else {
    parameters.insert(at, {std::string(name), value});
  }
  return {};
}

/// An override's value: TOML, or a bare word, which is a string. Text keys take what is not quoted
/// as it stands, so that run.name=7 and data.path=./data need no quotes.
Result<toml::table> parse_override_value(const RunKey* key, const std::string& value,
                                         const std::string& place) {
  const bool is_text = key != nullptr && std::holds_alternative<RunKey::Text>(key->member);
  const bool is_quoted = !value.empty() && (value.front() == '"' || value.front() == '\'');
  const auto bare = [&] {
    toml::table table;
    table.insert("value", value);
    return table;
  };
  if (is_text && !is_quoted) return bare();
  std::string problem = "it holds more than one value";
  try {
    toml::table table = toml::parse("value = " + value);
    if (table.size() == 1) return table;
  } catch (const toml::parse_error& error) {
    problem = error.description();
  }
  const bool is_word = value.find_first_of("\"'[]{}=#,\n\r") == std::string::npos;
  if (is_word && !value.empty()) return bare();
  return invalid_argument(fmt::format("{}: not a value: {}", place, problem));
}

Result<void> RunReader::read_override(const std::string& text) {
  const RunSource source{"--set " + text, false};
  const auto equals = text.find('=');
  const auto dot = text.find('.');
  if (equals == std::string::npos || dot == std::string::npos || dot > equals) {
    return invalid_argument(source.name +
                            ": expected table.key=value, as in client.learning-rate=0.05");
  }
  const auto trim = [](std::string_view part) {
    const auto first = part.find_first_not_of(" \t");
    if (first == std::string_view::npos) return std::string();
    return std::string(part.substr(first, part.find_last_not_of(" \t") - first + 1));
  };
  const std::string table = trim(text.substr(0, dot));
  const std::string name = trim(text.substr(dot + 1, equals - dot - 1));
  if (!is_table_name(table)) return key_error(source.name, table, unknown_table_text(table));
  if (name.empty()) return key_error(source.name, table, "the key after the dot is missing");
  const auto class_key = find_class_key(table, name);
  COVEY_ASSIGN(const toml::table value,
               parse_override_value(class_key ? class_key->key : find_run_key(table, name),
                                    trim(text.substr(equals + 1)), source.name));
  const toml::node* node = value.get("value");
  if (node == nullptr) return key_error(source.name, table + "." + name, "the value is missing");
  if (class_key) return override_class(*class_key, *node, source, config);
  return read_key(table, name, *node, source);
}

Error RunReader::relation_error(const std::string& origin, const std::string& key,
                                std::string_view sentence) const {
  const auto place = places_.find(key);
  return key_error(place == places_.end() ? origin : place->second, key, sentence);
}

Result<void> RunReader::check_population(const std::string& origin) const {
  const PartitionConfig& partition = config.partition;
  const SelectionConfig& selection = config.selection;
  const bool has_owners = config.data.source == "synthetic" || config.data.source == "leaf" ||
                          config.data.source == "text" ||
                          (config.data.source == "csv" && !config.data.user.empty());
  if (partition.scheme == "natural" && !has_owners) {
    return relation_error(
        origin, "partition.scheme",
        fmt::format("\"natural\" needs data with owners, {} has none{}", config.data.source,
                    config.data.source == "csv" ? " without data.user" : ""));
  }
  const bool may_be_all = partition.scheme == "natural" && config.data.source != "synthetic";
  if (partition.clients == 0 && !may_be_all) {
    return relation_error(origin, "partition.clients",
                          fmt::format("must be at least 1 for {} data in the {} partition",
                                      config.data.source, partition.scheme));
  }
  const std::uint32_t population =
      selection.min_available_clients > 0 ? selection.min_available_clients : partition.clients;
  if (population > 0 && selection.min_fit_clients > population) {
    return relation_error(
        origin, "selection.min-fit-clients",
        fmt::format("{} cannot be selected from {} clients ({})", selection.min_fit_clients,
                    population,
                    selection.min_available_clients > 0 ? "selection.min-available-clients"
                                                        : "partition.clients"));
  }
  return {};
}

Result<void> RunReader::check_model(const std::string& origin) const {
  const ModelConfig& model = config.model;
  const bool is_preset = model.layers.empty() && model.torchscript.empty();
  for (const char* key : {"model.loss", "model.target"}) {
    if (!is_preset || !places_.contains(key)) continue;
    return relation_error(origin, key, kPresetBringsIt);
  }
  if (!model.torchscript.empty() && places_.contains("model.initialisation")) {
    return relation_error(origin, "model.initialisation", kScriptBringsIt);
  }
  if (model.torchscript.empty() && places_.contains("model.device")) {
    return relation_error(origin, "model.device", kDeviceIsLibtorchs);
  }
  if (!is_preset && model.target == Target::kInput && model.loss == Loss::kCrossEntropy) {
    return relation_error(origin, "model.target",
                          "\"input\" needs model.loss = \"mse\" or \"bce\"; cross-entropy is "
                          "over classes");
  }
  const bool unlabelled = config.data.source == "csv" && config.data.label.empty();
  const bool reconstructs =
      is_preset ? model.preset == "autoencoder" : model.target == Target::kInput;
  if (unlabelled && !reconstructs) {
    return relation_error(origin, "data.label",
                          "may be empty only for a model that learns without labels (preset "
                          "\"autoencoder\", or model.target = \"input\")");
  }
  return {};
}

/// A resolved run file names every key. Where an override makes one of them say nothing, it is no
/// contradiction as long as it has its default value.
bool RunReader::is_default_of_a_varied_file(const RunKey& key) const {
  const auto overridden = [](const auto& place) { return place.second.starts_with("--set "); };
  const auto place = places_.find(key.path());
  return place != places_.end() && !overridden(*place) &&
         std::ranges::any_of(places_, overridden) && has_default(key, config);
}

Result<void> RunReader::check_needs(const std::string& origin) const {
  for (const RunKey& key : run_keys()) {
    const std::string_view need = unmet_need(key, config);
    if (need.empty() || !places_.contains(key.path())) continue;
    if (is_default_of_a_varied_file(key)) continue;
    return relation_error(origin, key.path(), fmt::format("says nothing without {}", need));
  }
  return {};
}

Result<void> RunReader::check_client(const std::string& origin) const {
  if (const auto problem = privacy_problem(config)) {
    return relation_error(origin, problem->key, problem->sentence);
  }
  if (const auto problem = compressor_problem(config)) {
    return relation_error(origin, problem->key, problem->sentence);
  }
  return {};
}

Result<void> RunReader::check_relations(const std::string& origin) const {
  COVEY_TRY(check_population(origin));
  COVEY_TRY(check_model(origin));
  COVEY_TRY(check_needs(origin));
  COVEY_TRY(check_client(origin));
  if (const auto problem = selection_problem(config)) {
    return relation_error(origin, problem->key, problem->sentence);
  }
  if (const auto problem = asynchronous_problem(config)) {
    return relation_error(origin, problem->key, problem->sentence);
  }
  if (const auto problem = class_problem(config)) {
    return relation_error(origin, problem->key, problem->sentence);
  }
  if (config.name.find('/') != std::string::npos || config.name.front() == '.') {
    return relation_error(
        origin, "run.name",
        fmt::format("\"{}\" names a folder: no '/' and no '.' in front", config.name));
  }
  if (config.stop_at_target && config.target_accuracy <= 0) {
    return relation_error(origin, "run.stop-at-target", "needs run.target-accuracy");
  }
  const DataConfig& data = config.data;
  if ((data.source == "csv" || data.source == "leaf") && data.path.empty()) {
    return relation_error(origin, "data.source",
                          fmt::format("\"{}\" needs data.path", data.source));
  }
  const SelectionConfig& selection = config.selection;
  if (selection.retry_min_s > selection.retry_max_s) {
    return relation_error(origin, "selection.retry-min-s",
                          fmt::format("{} is more than selection.retry-max-s ({})",
                                      selection.retry_min_s, selection.retry_max_s));
  }
  const ServerConfig& server = config.server;
  if (server.chunk_bytes + kFrameOverheadBytes > server.max_frame_bytes) {
    return relation_error(
        origin, "server.chunk-bytes",
        fmt::format("{} leaves no room in server.max-frame-bytes ({}), at most {} do",
                    server.chunk_bytes, server.max_frame_bytes,
                    server.max_frame_bytes - kFrameOverheadBytes));
  }
  return {};
}

}  // namespace

Result<RunConfig> parse_run_text(const std::string& text, const std::string& origin,
                                 const std::vector<std::string>& overrides) {
  RunReader reader;
  try {
    const toml::table document = toml::parse(text, origin);
    COVEY_TRY(reader.read_document(document, RunSource{origin}));
  } catch (const toml::parse_error& error) {
    const auto at = error.source().begin;
    return invalid_argument(
        fmt::format("{}:{}:{}: {}", origin, at.line, at.column, error.description()));
  }
  for (const std::string& override_text : overrides) COVEY_TRY(reader.read_override(override_text));
  COVEY_TRY(reader.check_relations(origin));
  return std::move(reader.config);
}

Result<RunConfig> load_run_file(const std::string& path,
                                const std::vector<std::string>& overrides) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return invalid_argument(path + ": is a directory, a run file was expected");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path + ": cannot open this run file");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) return failed(path + ": cannot read this run file");
  return parse_run_text(text, path, overrides);
}

}  // namespace covey
