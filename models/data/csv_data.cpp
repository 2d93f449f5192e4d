#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <covey/models/data_set.hpp>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "data/csv_reader.hpp"
#include "data/data_builder.hpp"

namespace covey::models {
namespace {

/// Which column is what.
struct Columns {
  std::vector<std::string> names;
  std::optional<std::size_t> label;  ///< nothing: the table has no labels (data.label = "")
  std::optional<std::size_t> user;

  std::size_t num_features() const { return names.size() - (user ? 1 : 0) - (label ? 1 : 0); }
  bool is_feature(std::size_t column) const { return column != label && column != user; }
};

/// The table as read; labels and users by order of first appearance.
struct Table {
  std::vector<float> features;  ///< [rows x num_features]
  std::vector<std::uint32_t> label_ids;
  std::vector<std::uint32_t> user_ids;
  std::vector<std::string> label_names;
  std::vector<std::string> user_names;
};

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::optional<double> number_of(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Result<std::size_t> find_column(const std::string& path, const std::vector<std::string>& names,
                                const std::string& name, std::string_view key) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) {
    return invalid_argument(fmt::format("{}:1: there is no column \"{}\" ({}); there are {}", path,
                                        name, key, fmt::join(names, ", ")));
  }
  if (std::find(found + 1, names.end(), name) != names.end()) {
    return invalid_argument(
        fmt::format("{}:1: two columns are called \"{}\" ({})", path, name, key));
  }
  return static_cast<std::size_t>(found - names.begin());
}

Result<Columns> read_header(CsvReader& reader, const DataConfig& config) {
  Columns columns;
  COVEY_ASSIGN(const bool found, reader.next(columns.names));
  if (!found) return malformed(reader.name() + ": is empty, a header line was expected");
  for (std::string& name : columns.names) name = std::string(trimmed(name));
  if (!config.label.empty()) {
    COVEY_ASSIGN(columns.label,
                 find_column(reader.name(), columns.names, config.label, "data.label"));
  }
  if (!config.user.empty()) {
    COVEY_ASSIGN(columns.user, find_column(reader.name(), columns.names, config.user, "data.user"));
    if (columns.user == columns.label) {
      return invalid_argument(
          fmt::format("{}: data.label and data.user both name \"{}\"", reader.name(), config.user));
    }
  }
  if (columns.num_features() == 0) {
    return malformed(reader.name() + ":1: there is no column of features");
  }
  return columns;
}

/// Numbers names by first appearance.
class NameIds {
 public:
  std::uint32_t id(std::string_view name, std::vector<std::string>& names) {
    const auto [at, is_new] =
        ids_.try_emplace(std::string(name), static_cast<std::uint32_t>(names.size()));
    if (is_new) names.emplace_back(name);
    return at->second;
  }

 private:
  std::map<std::string, std::uint32_t> ids_;
};

Result<float> read_feature(std::string_view cell, const CsvReader& reader, std::size_t column,
                           const std::string& name) {
  const auto error = [&](std::string_view sentence) {
    return malformed(fmt::format("{}:{}:{}: column \"{}\": {}", reader.name(), reader.line(),
                                 column + 1, name, sentence));
  };
  if (cell.empty()) return error("the value is missing");
  const auto value = number_of(cell);
  if (!value) return error(fmt::format("\"{}\" is not a number", cell));
  const auto single = static_cast<float>(*value);
  if (!std::isfinite(single)) {
    return error(fmt::format("{} is not a finite number in single precision", cell));
  }
  return single;
}

Result<Table> read_rows(CsvReader& reader, const Columns& columns) {
  Table table;
  NameIds labels;
  NameIds users;
  std::vector<std::string> cells;
  for (;;) {
    COVEY_ASSIGN(const bool found, reader.next(cells));
    if (!found) return table;
    if (cells.size() != columns.names.size()) {
      return malformed(fmt::format("{}:{}:{}: {} cells where the header has {}", reader.name(),
                                   reader.line(), std::min(cells.size(), columns.names.size()) + 1,
                                   cells.size(), columns.names.size()));
    }
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string_view cell = trimmed(cells[i]);
      if (columns.is_feature(i)) {
        COVEY_ASSIGN(const float value, read_feature(cell, reader, i, columns.names[i]));
        table.features.push_back(value);
        continue;
      }
      if (cell.empty()) {
        return malformed(fmt::format("{}:{}:{}: column \"{}\": the value is missing", reader.name(),
                                     reader.line(), i + 1, columns.names[i]));
      }
      if (i == columns.label) table.label_ids.push_back(labels.id(cell, table.label_names));
      if (i == columns.user) table.user_ids.push_back(users.id(cell, table.user_names));
    }
    // Without labels every example is of one class, which no loss looks at.
    if (!columns.label) table.label_ids.push_back(labels.id("0", table.label_names));
    if (table.label_names.size() > kMaxClasses) {
      return malformed(fmt::format(
          "{}:{}:{}: column \"{}\" has more than {} classes; is it the label?", reader.name(),
          reader.line(), *columns.label + 1, columns.names[*columns.label], kMaxClasses));
    }
  }
}

struct Classes {
  std::vector<std::int32_t> of_label_id;
  std::uint32_t count = 0;
};

/// Labels that are all whole numbers from 0 are class numbers; labels that are no numbers are
/// names, numbered in alphabetical order. A mixture is a mistake in the table.
Result<Classes> number_classes(const std::vector<std::string>& names) {
  Classes classes;
  std::uint32_t largest = 0;
  for (const std::string& name : names) {
    const auto value = number_of(name);
    if (!value || !(*value >= 0 && *value < kMaxClasses) || std::floor(*value) != *value) break;
    classes.of_label_id.push_back(static_cast<std::int32_t>(*value));
    largest = std::max(largest, static_cast<std::uint32_t>(*value));
  }
  if (classes.of_label_id.size() == names.size()) {
    classes.count = largest + 1;
    return classes;
  }
  const auto is_number = [](const std::string& name) { return number_of(name).has_value(); };
  if (std::ranges::any_of(names, is_number)) {
    const std::string& odd = names[classes.of_label_id.size()];
    return malformed("label \"" + odd + "\" is not a class: labels are whole numbers from 0 to " +
                     std::to_string(kMaxClasses - 1) + ", or names without any number among them");
  }
  std::vector<std::string> sorted = names;
  std::ranges::sort(sorted);
  classes.of_label_id.clear();
  for (const std::string& name : names) {
    const auto rank = std::ranges::lower_bound(sorted, name) - sorted.begin();
    classes.of_label_id.push_back(static_cast<std::int32_t>(rank));
  }
  classes.count = static_cast<std::uint32_t>(names.size());
  return classes;
}

/// Row numbers by user; without users, one group of all rows.
std::vector<std::vector<std::uint32_t>> rows_by_user(const Table& table) {
  std::vector<std::vector<std::uint32_t>> groups(std::max<std::size_t>(1, table.user_names.size()));
  for (std::uint32_t row = 0; row < table.label_ids.size(); ++row) {
    groups[table.user_ids.empty() ? 0 : table.user_ids[row]].push_back(row);
  }
  return groups;
}

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path + ": cannot be opened");
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) return failed(path + ": cannot be read");
  return text;
}

}  // namespace

Result<FederatedData> load_csv(const std::string& path, const DataConfig& config,
                               std::uint64_t seed) {
  COVEY_ASSIGN(const std::string text, read_text(path));
  CsvReader reader(path, text);
  COVEY_ASSIGN(const Columns columns, read_header(reader, config));
  COVEY_ASSIGN(const Table table, read_rows(reader, columns));
  if (table.label_ids.empty()) return malformed(path + ": has a header and no rows");

  const auto numbered = number_classes(table.label_names);
  if (!numbered.ok()) return with_context(path, numbered.error());
  const Classes& classes = *numbered;
  const std::size_t num_features = columns.num_features();
  const auto groups = rows_by_user(table);
  FederatedBuilder builder(num_features);
  for (std::size_t user = 0; user < groups.size(); ++user) {
    const auto& rows = groups[user];
    const bool owned = !table.user_names.empty();
    const std::size_t owner = owned ? builder.add_owner(table.user_names[user]) : 0;
    const Split split =
        split_examples(rows.size(), config.test_fraction,
                       RandomStream(seed, RandomPurpose::kTrainTestSplit, {}, ClientId{user}));
    const auto features = [&](std::uint32_t position) {
      return std::span(table.features).subspan(rows[position] * num_features, num_features);
    };
    const auto label = [&](std::uint32_t position) {
      return classes.of_label_id[table.label_ids[rows[position]]];
    };
    for (const std::uint32_t i : split.train) {
      owned ? builder.add_train(owner, features(i), label(i))
            : builder.add_train(features(i), label(i));
    }
    for (const std::uint32_t i : split.test) {
      owned ? builder.add_test(owner, features(i), label(i))
            : builder.add_test(features(i), label(i));
    }
  }
  auto data = std::move(builder).finish({static_cast<std::uint32_t>(num_features)}, classes.count);
  if (!data.ok()) return with_context(path, data.error());
  return data;
}

}  // namespace covey::models
