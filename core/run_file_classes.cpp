#include "run_file_classes.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace covey {
namespace {

constexpr std::string_view kFleetTable = "fleet.class";
constexpr std::string_view kClientTable = "client.class";
// Classes go into file names, labels of plots and a field of every check-in.
constexpr std::size_t kMaxNameLength = 32;
constexpr double kMaxShare = 1e9;

// A class is read with the checks of the simple keys, into a configuration of its own: a fleet's
// class into fleet.traits, a client's into client and the one element of client.classes.
ClientClassConfig& only_class(RunConfig& config) { return config.client.classes.front(); }

RunConfig room_for_class() {
  RunConfig room;
  room.client.classes.resize(1);
  return room;
}

const std::vector<RunKey>& fleet_class_keys() {
  static const std::vector<RunKey> keys = [] {
    RunKey name{kFleetTable, "name",
                RunKey::Text([](RunConfig & c) -> auto& { return c.fleet.traits.name; })};
    name.low = 1;
    RunKey share{kFleetTable, "share",
                 RunKey::Number([](RunConfig & c) -> auto& { return c.fleet.traits.share; }), 0,
                 kMaxShare};
    share.low_excluded = true;
    std::vector<RunKey> all = {name, share};
    for (RunKey& key : trait_keys(kFleetTable)) all.push_back(std::move(key));
    return all;
  }();
  return keys;
}

const std::vector<RunKey>& client_class_keys() {
  static const std::vector<RunKey> keys = [] {
    std::vector<RunKey> all;
    for (const char* name : {"local-epochs", "batch-size", "precision"}) {
      RunKey key = *find_run_key("client", name);
      key.table = kClientTable;
      all.push_back(std::move(key));
    }
    RunKey width{kClientTable, "width",
                 RunKey::Number([](RunConfig & c) -> auto& { return only_class(c).width; }), 0, 1};
    width.low_excluded = true;
    all.push_back(std::move(width));
    return all;
  }();
  return keys;
}

const std::vector<RunKey>& keys_of(std::string_view table) {
  return table == "fleet" ? fleet_class_keys() : client_class_keys();
}

const RunKey* find_key(std::string_view table, std::string_view name) {
  const auto& keys = keys_of(table);
  const auto found =
      std::ranges::find_if(keys, [&](const RunKey& key) { return key.name == name; });
  return found == keys.end() ? nullptr : &*found;
}

std::string unknown_key_text(std::string_view table, std::string_view name) {
  std::vector<std::string> known;
  for (const RunKey& key : keys_of(table)) known.emplace_back(key.name);
  const std::string near = nearest_name(name, known);
  if (!near.empty()) return fmt::format("unknown key; did you mean {}?", near);
  return fmt::format("unknown key; a class has {}", fmt::join(known, ", "));
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameLength && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

std::string bad_name_text(std::string_view name) {
  return fmt::format("\"{}\" is no class's name: at most {} letters, digits, '-' and '_'", name,
                     kMaxNameLength);
}

/// Takes over what was read of one key of a client's class.
void take(std::string_view name, const RunConfig& room, ClientClassConfig& to) {
  if (name == "local-epochs") to.local_epochs = room.client.local_epochs;
  if (name == "batch-size") to.batch_size = room.client.batch_size;
  if (name == "precision") to.precision = room.client.precision;
  if (name == "width") to.width = room.client.classes.front().width;
}

Result<void> read_class_key(std::string_view table, const std::string& path, std::string_view name,
                            const toml::node& node, const RunSource& source, RunConfig& room) {
  const RunKey* key = find_key(table, name);
  if (key == nullptr) {
    return key_error(source.place(node), path, unknown_key_text(table, name));
  }
  return assign_value(*key, path, node, source, room);
}

Result<DeviceClassConfig> read_fleet_class(const toml::node& node, const RunSource& source,
                                           const std::vector<DeviceClassConfig>& others) {
  const toml::table* table = node.as_table();
  if (table == nullptr) {
    return key_error(source.place(node), kFleetTable,
                     fmt::format("expected [[fleet.class]], found {}", describe(node)));
  }
  RunConfig room = room_for_class();
  for (const auto& [name, value] : *table) {
    const std::string path = fmt::format("{}.{}", kFleetTable, name.str());
    COVEY_TRY(read_class_key("fleet", path, name.str(), value, source, room));
  }
  const toml::node* name = table->get("name");
  const std::string path = fmt::format("{}.name", kFleetTable);
  if (name == nullptr) return key_error(source.place(node), path, "a class needs a name");
  DeviceClassConfig& traits = room.fleet.traits;
  if (!is_name(traits.name)) {
    return key_error(source.place(*name), path, bad_name_text(traits.name));
  }
  if (std::ranges::find(others, traits.name, &DeviceClassConfig::name) != others.end()) {
    return key_error(source.place(*name), path,
                     fmt::format("there are two classes called \"{}\"", traits.name));
  }
  return std::move(traits);
}

Result<ClientClassConfig> read_client_class(std::string_view name, const toml::node& node,
                                            const RunSource& source) {
  const std::string path = fmt::format("{}.{}", kClientTable, name);
  if (!is_name(name)) return key_error(source.place(node), kClientTable, bad_name_text(name));
  const toml::table* table = node.as_table();
  if (table == nullptr) {
    return key_error(source.place(node), path,
                     fmt::format("expected a table [{}], found {}", path, describe(node)));
  }
  ClientClassConfig result;
  result.name = std::string(name);
  RunConfig room = room_for_class();
  for (const auto& [key, value] : *table) {
    COVEY_TRY(read_class_key("client", fmt::format("{}.{}", path, key.str()), key.str(), value,
                             source, room));
    take(key.str(), room, result);
  }
  return result;
}

std::string names_of(const std::vector<DeviceClassConfig>& classes) {
  std::vector<std::string> names;
  for (const DeviceClassConfig& one : classes) names.push_back(one.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

Result<void> override_fleet_class(const ClassKey& target, const toml::node& node,
                                  const RunSource& source, RunConfig& config) {
  const std::string path = fmt::format("{}.{}.{}", kFleetTable, target.class_name, target.name);
  auto& classes = config.fleet.classes;
  const auto found = std::ranges::find(classes, target.class_name, &DeviceClassConfig::name);
  if (found == classes.end()) {
    return key_error(source.place(node), path,
                     classes.empty()
                         ? "the run file has no [[fleet.class]]"
                         : fmt::format("the run file's classes are {}", names_of(classes)));
  }
  if (target.name == "name") {
    return key_error(source.place(node), path, "a class is named in the run file only");
  }
  RunConfig room = room_for_class();
  room.fleet.traits = *found;
  COVEY_TRY(read_class_key("fleet", path, target.name, node, source, room));
  *found = std::move(room.fleet.traits);
  return {};
}

}  // namespace

bool holds_classes(std::string_view table, std::string_view name) {
  return name == "class" && (table == "fleet" || table == "client");
}

Result<void> read_classes(std::string_view table, const toml::node& node, const RunSource& source,
                          RunConfig& config) {
  if (table == "fleet") {
    const toml::array* items = node.as_array();
    if (items == nullptr) {
      return key_error(source.place(node), kFleetTable,
                       fmt::format("expected [[fleet.class]], found {}", describe(node)));
    }
    std::vector<DeviceClassConfig> classes;
    for (const toml::node& item : *items) {
      COVEY_ASSIGN(auto one, read_fleet_class(item, source, classes));
      classes.push_back(std::move(one));
    }
    config.fleet.classes = std::move(classes);
    return {};
  }
  const toml::table* tables = node.as_table();
  if (tables == nullptr) {
    return key_error(source.place(node), kClientTable,
                     fmt::format("expected tables [client.class.NAME], found {}", describe(node)));
  }
  std::vector<ClientClassConfig> classes;
  for (const auto& [name, value] : *tables) {
    COVEY_ASSIGN(auto one, read_client_class(name.str(), value, source));
    classes.push_back(std::move(one));
  }
  config.client.classes = std::move(classes);
  return {};
}

std::optional<ClassKey> find_class_key(std::string_view table, const std::string& name) {
  constexpr std::string_view kPrefix = "class.";
  if (!name.starts_with(kPrefix) || !holds_classes(table, "class")) return std::nullopt;
  const std::string rest = name.substr(kPrefix.size());
  const std::size_t dot = rest.find('.');
  ClassKey found{table, rest.substr(0, dot), dot == std::string::npos ? "" : rest.substr(dot + 1),
                 nullptr};
  found.key = find_key(table, found.name);
  return found;
}

Result<void> override_class(const ClassKey& target, const toml::node& node, const RunSource& source,
                            RunConfig& config) {
  if (target.table == "fleet") return override_fleet_class(target, node, source, config);
  if (!is_name(target.class_name)) {
    return key_error(source.place(node), kClientTable, bad_name_text(target.class_name));
  }
  const std::string path = fmt::format("{}.{}.{}", kClientTable, target.class_name, target.name);
  RunConfig room = room_for_class();
  COVEY_TRY(read_class_key("client", path, target.name, node, source, room));
  auto& classes = config.client.classes;
  const auto at =
      std::ranges::lower_bound(classes, target.class_name, {}, &ClientClassConfig::name);
  if (at != classes.end() && at->name == target.class_name) {
    take(target.name, room, *at);
    return {};
  }
  ClientClassConfig added;
  added.name = target.class_name;
  take(target.name, room, added);
  classes.insert(at, std::move(added));  // sorted, as tables of a document are
  return {};
}

std::optional<KeyProblem> class_problem(const RunConfig& config) {
  if (config.fleet.mix.empty() || config.fleet.classes.empty()) return std::nullopt;
  return KeyProblem{"fleet.mix", fmt::format("\"{}\" and [[fleet.class]] both say who the devices "
                                             "are; keep one of them",
                                             config.fleet.mix)};
}

std::vector<ClassTable> class_tables(std::string_view table, const RunConfig& config) {
  std::vector<ClassTable> tables;
  if (table == "fleet") {
    for (const DeviceClassConfig& one : config.fleet.classes) {
      ClassTable& written =
          tables.emplace_back(ClassTable{"[[fleet.class]]", fleet_class_keys(), room_for_class()});
      written.values.fleet.traits = one;
    }
  }
  if (table == "client") {
    for (const ClientClassConfig& one : config.client.classes) {
      ClassTable& written = tables.emplace_back(
          ClassTable{fmt::format("[{}.{}]", kClientTable, one.name), {}, room_for_class()});
      written.values.client.classes.front() = one;
      const auto write = [&](std::string_view key) {
        written.keys.push_back(*find_key("client", key));
      };
      if (one.local_epochs)
        write("local-epochs"), written.values.client.local_epochs = *one.local_epochs;
      if (one.batch_size) write("batch-size"), written.values.client.batch_size = *one.batch_size;
      if (one.precision) write("precision"), written.values.client.precision = *one.precision;
      write("width");
    }
  }
  return tables;
}

}  // namespace covey
