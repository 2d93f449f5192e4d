#include "data/csv_table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "data/data_builder.hpp"

namespace covey::models {
namespace {

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

}  // namespace

Result<Columns> read_header(CsvReader& reader, const SpecialColumns& special) {
  Columns columns;
  COVEY_ASSIGN(const bool found, reader.next(columns.names));
  if (!found) return malformed(reader.name() + ": is empty, a header line was expected");
  for (std::string& name : columns.names) name = std::string(trimmed(name));
  if (!special.label.empty()) {
    COVEY_ASSIGN(columns.label,
                 find_column(reader.name(), columns.names, special.label, special.label_key));
  }
  if (!special.user.empty()) {
    COVEY_ASSIGN(columns.user,
                 find_column(reader.name(), columns.names, special.user, special.user_key));
    if (columns.user == columns.label) {
      return invalid_argument(fmt::format("{}: {} and {} both name \"{}\"", reader.name(),
                                          special.label_key, special.user_key, special.user));
    }
  }
  if (columns.num_features() == 0) {
    return malformed(reader.name() + ":1: there is no column of features");
  }
  return columns;
}

std::uint32_t NameIds::id(std::string_view name) {
  if (const auto found = ids_.find(name); found != ids_.end()) return found->second;
  const auto id = static_cast<std::uint32_t>(names_.size());
  names_.emplace_back(name);
  ids_.emplace(names_.back(), id);
  return id;
}

Result<void> read_rows(CsvReader& reader, const Columns& columns, Table& table) {
  std::vector<std::string> cells;
  for (;;) {
    COVEY_ASSIGN(const bool found, reader.next(cells));
    if (!found) return {};
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
      if (i == columns.label) {
        const std::uint32_t id = table.labels.id(cell);
        if (id == table.label_places.size()) {
          table.label_places.push_back(fmt::format("{}:{}", reader.name(), reader.line()));
        }
        table.label_ids.push_back(id);
      }
      if (i == columns.user) table.user_ids.push_back(table.users.id(cell));
    }
    // Without labels every example is of one class, which no loss looks at.
    if (!columns.label) table.label_ids.push_back(table.labels.id("0"));
    if (table.labels.names().size() > kMaxClasses) {
      return malformed(fmt::format(
          "{}:{}:{}: column \"{}\" has more than {} classes; is it the label?", reader.name(),
          reader.line(), *columns.label + 1, columns.names[*columns.label], kMaxClasses));
    }
  }
}

bool is_number(std::string_view text) { return number_of(text).has_value(); }

std::optional<Classes> numbers_as_classes(const std::vector<std::string>& names) {
  Classes classes;
  std::uint32_t largest = 0;
  for (const std::string& name : names) {
    const auto value = number_of(name);
    if (!value || !(*value >= 0 && *value < kMaxClasses) || std::floor(*value) != *value) {
      return std::nullopt;
    }
    classes.of_label_id.push_back(static_cast<std::int32_t>(*value));
    largest = std::max(largest, static_cast<std::uint32_t>(*value));
  }
  classes.count = largest + 1;
  return classes;
}

}  // namespace covey::models
