#include "sweep_plan.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>
#include <set>
#include <string_view>

namespace covey {
namespace {

namespace fs = std::filesystem;

/// A choice made on the way to a case: {"fleet.stragglers", "0.9"}, or {"case", "prox"}.
struct Choice {
  std::string key, value;
};

struct Combination {
  std::vector<Choice> choices;
  std::vector<std::string> overrides;
};

/// "stragglers" of "fleet.stragglers".
std::string last_part(const std::string& key) { return key.substr(key.rfind('.') + 1); }

std::string text_of(const Choice& choice) {
  return choice.key == "case" ? choice.value : last_part(choice.key) + "=" + choice.value;
}

/// A TOML value on one line, as --set takes it; nothing for a table or a date. Numbers in as few
/// digits as say the same: they become the names of folders.
std::optional<std::string> value_text(const toml::node& node) {
  if (const auto text = node.value_exact<std::string>()) return fmt::format("\"{}\"", *text);
  if (const auto truth = node.value_exact<bool>()) return fmt::format("{}", *truth);
  if (const auto whole = node.value_exact<std::int64_t>()) return fmt::format("{}", *whole);
  if (const auto number = node.value_exact<double>()) return fmt::format("{}", *number);
  const toml::array* array = node.as_array();
  if (array == nullptr) return std::nullopt;
  std::string list;
  for (const toml::node& element : *array) {
    const auto text = value_text(element);
    if (!text) return std::nullopt;
    list += (list.empty() ? "" : ", ") + *text;
  }
  return "[" + list + "]";
}

/// What people read: strings without their quotes.
std::string plain(std::string text) {
  if (text.size() >= 2 && text.front() == '"') text = text.substr(1, text.size() - 2);
  return text;
}

/// Letters of all tongues stay; what separates paths or needs quotes in a shell becomes one '-'.
std::string folder_name(const std::string& name) {
  std::string folder;
  bool gap = false;  // between words, seen but not written yet
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool between_choices = name.compare(i, 2, ", ") == 0;
    const bool stays = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                       static_cast<unsigned char>(c) >= 0x80 || c == '=' || c == '_' || c == '+' ||
                       (c == '.' && !folder.empty());
    if (between_choices) {
      folder += '_';
      gap = false;
      ++i;
    } else if (stays) {
      if (gap && !folder.empty()) folder += '-';
      folder += c;
      gap = false;
    } else {
      gap = true;
    }
  }
  return folder.empty() ? "case" : folder;
}

/// Reads one sweep file. One use.
class SweepReader {
 public:
  SweepReader(std::string path, std::vector<std::string> overrides)
      : path_(std::move(path)), more_(std::move(overrides)) {}
  Result<SweepPlan> read(const toml::table& document);

 private:
  Error error(const toml::node& node, std::string_view key, std::string_view sentence) const {
    return invalid_argument(
        fmt::format("{}:{}: {}: {}", path_, node.source().begin.line, key, sentence));
  }
  Result<void> check_keys(const toml::table& table, const std::string& prefix,
                          const std::vector<std::string_view>& known) const;
  Result<std::string> text(const toml::table& table, const char* key,
                           const std::string& prefix) const;
  Result<std::vector<std::string>> settings(const toml::node& node, const std::string& key) const;
  Result<void> read_seeds(const toml::table& document);
  Result<void> read_cases(const toml::table& document);
  Result<void> read_grid(const toml::table& document);
  Result<void> multiply(const std::string& key, const toml::node& values);
  Result<void> read_plot(const toml::table& document);
  Result<void> name_cases();
  Result<void> draw_cases();
  std::string choice_of(const Combination& combination, const RunConfig& config,
                        const std::string& key) const;

  std::string path_;
  std::vector<std::string> more_;
  SweepPlan plan_;
  std::vector<Combination> combinations_{Combination{}};
  std::set<std::string> choices_;  ///< keys of [grid], and "case"
  std::vector<std::string> set_;   ///< set, for all cases
};

Result<void> SweepReader::check_keys(const toml::table& table, const std::string& prefix,
                                     const std::vector<std::string_view>& known) const {
  for (const auto& [key, node] : table) {
    if (std::ranges::find(known, key.str()) != known.end()) continue;
    std::string names;
    for (const std::string_view name : known)
      names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    return error(node, prefix + std::string(key.str()), "unknown key; there are " + names);
  }
  return {};
}

Result<std::string> SweepReader::text(const toml::table& table, const char* key,
                                      const std::string& prefix) const {
  const toml::node* node = table.get(key);
  if (node == nullptr) return std::string();
  const auto value = node->value_exact<std::string>();
  if (!value || value->empty()) return error(*node, prefix + key, "expected a text in quotes");
  return *value;
}

Result<std::vector<std::string>> SweepReader::settings(const toml::node& node,
                                                       const std::string& key) const {
  const toml::array* array = node.as_array();
  if (array == nullptr) return error(node, key, "expected a list of \"table.key=value\"");
  std::vector<std::string> all;
  for (const toml::node& element : *array) {
    const auto setting = element.value_exact<std::string>();
    if (!setting) return error(element, key, "expected \"table.key=value\" in quotes");
    if (setting->starts_with("run.seed=")) return error(element, key, "seeds are given by `seeds`");
    all.push_back(*setting);
  }
  return all;
}

Result<void> SweepReader::read_seeds(const toml::table& document) {
  const toml::node* node = document.get("seeds");
  if (node == nullptr) {
    return invalid_argument(path_ + ": seeds: missing; as in seeds = [1, 2, 3]");
  }
  const toml::array* array = node->as_array();
  if (array == nullptr || array->empty()) {
    return error(*node, "seeds", "expected at least one seed, as in [1, 2, 3]");
  }
  for (const toml::node& element : *array) {
    const auto seed = element.value_exact<std::int64_t>();
    if (!seed || *seed < 0) return error(element, "seeds", "a seed is a whole number from 0 on");
    plan_.seeds.push_back(static_cast<std::uint64_t>(*seed));
    if (std::ranges::count(plan_.seeds, plan_.seeds.back()) > 1) {
      return error(element, "seeds", fmt::format("{} is there twice", *seed));
    }
  }
  return {};
}

Result<void> SweepReader::read_cases(const toml::table& document) {
  const toml::node* node = document.get("case");
  if (node == nullptr) return {};
  const toml::array* array = node->as_array();
  if (array == nullptr || !array->is_array_of_tables()) {
    return error(*node, "case", "expected [[case]] tables, each with name and set");
  }
  combinations_.clear();
  for (const toml::node& element : *array) {
    const toml::table& table = *element.as_table();
    COVEY_TRY(check_keys(table, "case.", {"name", "set"}));
    COVEY_ASSIGN(const std::string name, text(table, "name", "case."));
    if (name.empty()) return error(table, "case.name", "missing");
    Combination combination{{{"case", name}}, {}};
    if (const toml::node* set = table.get("set")) {
      COVEY_ASSIGN(combination.overrides, settings(*set, "case.set"));
    }
    const bool again = std::ranges::any_of(
        combinations_, [&](const Combination& other) { return other.choices[0].value == name; });
    if (again) return error(table, "case.name", fmt::format("\"{}\" is there twice", name));
    combinations_.push_back(std::move(combination));
  }
  choices_.insert("case");
  return {};
}

Result<void> SweepReader::read_grid(const toml::table& document) {
  const toml::node* node = document.get("grid");
  if (node == nullptr) return {};
  const toml::table* grid = node->as_table();
  if (grid == nullptr || grid->empty()) {
    return error(*node, "grid",
                 "expected keys with lists, as in \"strategy.proximal-mu\" = [0, 1]");
  }
  std::vector<std::pair<std::string, const toml::node*>> keys;
  for (const auto& [name, values] : *grid) keys.emplace_back(name.str(), &values);
  // As they stand in the file: a table of toml++ is ordered by name.
  std::ranges::stable_sort(keys, {}, [](const auto& key) {
    const auto at = key.second->source().begin;
    return std::pair(at.line, at.column);
  });
  for (const auto& [key, values] : keys) COVEY_TRY(multiply(key, *values));
  return {};
}

/// Every combination so far with each of the values.
Result<void> SweepReader::multiply(const std::string& key, const toml::node& values) {
  if (key == "run.seed") return error(values, "grid." + key, "seeds are given by `seeds`");
  const toml::array* array = values.as_array();
  if (array == nullptr || array->empty()) {
    return error(values, "grid." + key,
                 values.is_table() ? "write the key in quotes: \"table.key\" = [...]"
                                   : "expected a list with at least one value");
  }
  std::vector<Combination> product;
  for (const Combination& combination : combinations_) {
    for (const toml::node& value : *array) {
      const auto text = value_text(value);
      if (!text) return error(value, "grid." + key, "expected a number, text, truth value or list");
      Combination more = combination;
      more.choices.push_back({key, plain(*text)});
      more.overrides.push_back(key + "=" + *text);
      product.push_back(std::move(more));
    }
  }
  combinations_ = std::move(product);
  choices_.insert(key);
  return {};
}

Result<void> SweepReader::read_plot(const toml::table& document) {
  SweepPlot& plot = plan_.plot;
  plot.title = plan_.name;
  const toml::node* node = document.get("plot");
  if (node == nullptr) return {};
  const toml::table* table = node->as_table();
  if (table == nullptr) return error(*node, "plot", "expected a table");
  COVEY_TRY(check_keys(*table, "plot.", {"x", "y", "title", "group", "panel"}));
  for (const auto& [key, member] : {std::pair("x", &plot.axes.x),
                                    {"y", &plot.axes.y},
                                    {"title", &plot.title},
                                    {"group", &plot.group},
                                    {"panel", &plot.panel}}) {
    COVEY_ASSIGN(const std::string value, text(*table, key, "plot."));
    if (!value.empty()) *member = value;
  }
  if (const auto checked = check_axes(plot.axes); !checked.ok()) {
    return error(*table, "plot", checked.error().message);
  }
  if (!plot.panel.empty() && !choices_.contains(plot.panel)) {
    return error(*table->get("panel"), "plot.panel",
                 fmt::format("\"{}\" is neither a key of [grid] nor \"case\" with [[case]] tables",
                             plot.panel));
  }
  return {};
}

/// What a key is in a case: chosen for it, or else what its run file resolves to; "" where it has
/// none.
std::string SweepReader::choice_of(const Combination& combination, const RunConfig& config,
                                   const std::string& key) const {
  const auto chosen = std::ranges::find(combination.choices, key, &Choice::key);
  if (chosen != combination.choices.end()) return chosen->value;
  const auto dot = key.find('.');
  if (dot == std::string::npos) return "";
  const toml::table resolved = toml::parse(to_toml(config));
  const toml::node* node = resolved[key.substr(0, dot)][key.substr(dot + 1)].node();
  return node == nullptr ? "" : plain(value_text(*node).value_or(""));
}

Result<void> SweepReader::name_cases() {
  std::set<std::string> folders;
  for (const Combination& combination : combinations_) {
    SweepCase sweep_case;
    for (const Choice& choice : combination.choices) {
      sweep_case.name += (sweep_case.name.empty() ? "" : ", ") + text_of(choice);
    }
    if (sweep_case.name.empty()) sweep_case.name = "run";  // seeds alone
    sweep_case.folder = folder_name(sweep_case.name);
    sweep_case.overrides = set_;
    for (const auto* list : {&combination.overrides, &std::as_const(more_)}) {
      sweep_case.overrides.insert(sweep_case.overrides.end(), list->begin(), list->end());
    }
    if (!folders.insert(sweep_case.folder).second) {
      return invalid_argument(
          fmt::format("{}: two cases would be written to the folder {}", path_, sweep_case.folder));
    }
    plan_.cases.push_back(std::move(sweep_case));
  }
  return {};
}

/// Which panel and curve each case is; by the way every case's settings are checked.
Result<void> SweepReader::draw_cases() {
  std::set<std::pair<std::string, std::string>> drawn;
  const SweepPlot& plot = plan_.plot;
  for (std::size_t i = 0; i < plan_.cases.size(); ++i) {
    SweepCase& sweep_case = plan_.cases[i];
    const auto config = plan_.config_of(sweep_case, plan_.seeds.front());
    if (!config.ok()) {
      return with_context(fmt::format("{}: {}", path_, sweep_case.name), config.error());
    }
    for (const Choice& choice : combinations_[i].choices) {
      if (choice.key == plot.panel) {
        sweep_case.panel =
            choice.key == "case" ? choice.value : last_part(choice.key) + " = " + choice.value;
      } else {
        sweep_case.label += (sweep_case.label.empty() ? "" : ", ") + text_of(choice);
      }
    }
    const std::string group =
        plot.group.empty() ? "" : choice_of(combinations_[i], *config, plot.group);
    if (!group.empty()) {
      sweep_case.label = plot.group == "case" ? group : last_part(plot.group) + " = " + group;
    }
    if (sweep_case.label.empty()) sweep_case.label = sweep_case.name;
    if (!drawn.insert({sweep_case.panel, sweep_case.label}).second) {
      return invalid_argument(
          fmt::format("{}: plot.group: \"{}\" draws two cases as one curve ({}); name a key that "
                      "tells them apart, or leave it out",
                      path_, plot.group, sweep_case.label));
    }
  }
  return {};
}

Result<SweepPlan> SweepReader::read(const toml::table& document) {
  COVEY_TRY(check_keys(document, "", {"run", "name", "seeds", "set", "case", "grid", "plot"}));
  COVEY_ASSIGN(const std::string run, text(document, "run", ""));
  if (run.empty()) return invalid_argument(path_ + ": run: missing; it names the run file");
  plan_.run_file = (fs::path(path_).parent_path() / run).lexically_normal().string();
  COVEY_ASSIGN(plan_.name, text(document, "name", ""));
  if (plan_.name.empty()) plan_.name = fs::path(path_).stem().string();
  if (plan_.name.find('/') != std::string::npos || plan_.name.front() == '.') {
    return error(*document.get("name"), "name", "names a folder: no '/' and no '.' in front");
  }
  COVEY_TRY(read_seeds(document));
  if (const toml::node* set = document.get("set")) {
    COVEY_ASSIGN(set_, settings(*set, "set"));
  }
  COVEY_TRY(read_cases(document));
  COVEY_TRY(read_grid(document));
  COVEY_TRY(read_plot(document));
  COVEY_TRY(name_cases());
  COVEY_TRY(draw_cases());
  return std::move(plan_);
}

}  // namespace

Result<RunConfig> SweepPlan::config_of(const SweepCase& sweep_case, std::uint64_t seed) const {
  auto overrides = sweep_case.overrides;
  overrides.push_back("run.seed=" + std::to_string(seed));
  return load_run_file(run_file, overrides);
}

Result<SweepPlan> load_sweep_file(const std::string& path,
                                  const std::vector<std::string>& overrides) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return not_found(path + ": cannot open this sweep file");
  try {
    return SweepReader(path, overrides).read(toml::parse_file(path));
  } catch (const toml::parse_error& error) {
    const auto at = error.source().begin;
    return invalid_argument(
        fmt::format("{}:{}:{}: {}", path, at.line, at.column, error.description()));
  }
}

}  // namespace covey
