#pragma once

#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/csv_reader.hpp"

namespace covey::models {

/// The names of the columns that are no features, and of the settings that gave them, for errors.
struct SpecialColumns {
  std::string label;  ///< "": none
  std::string user;   ///< "": none
  std::string_view label_key;
  std::string_view user_key;
};

/// Which column is what.
struct Columns {
  std::vector<std::string> names;
  std::optional<std::size_t> label;  ///< nothing: the table has no labels
  std::optional<std::size_t> user;

  std::size_t num_features() const { return names.size() - (user ? 1 : 0) - (label ? 1 : 0); }
  bool is_feature(std::size_t column) const { return column != label && column != user; }
};

Result<Columns> read_header(CsvReader& reader, const SpecialColumns& special);

/// Numbers names by first appearance.
class NameIds {
 public:
  std::uint32_t id(std::string_view name);
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::map<std::string, std::uint32_t, std::less<>> ids_;
  std::vector<std::string> names_;
};

/// Rows as read; labels and users by order of first appearance.
struct Table {
  std::vector<float> features;  ///< [rows x num_features]
  std::vector<std::uint32_t> label_ids;
  std::vector<std::uint32_t> user_ids;
  NameIds labels;
  NameIds users;
  std::vector<std::string> label_places;  ///< "table:line" where each label came first
};

/// Adds all rows that are left. Error naming file, line and column.
Result<void> read_rows(CsvReader& reader, const Columns& columns, Table& table);

struct Classes {
  std::vector<std::int32_t> of_label_id;
  std::uint32_t count = 0;
};

/// Classes of labels that are all whole numbers from 0; nothing if one is not.
std::optional<Classes> numbers_as_classes(const std::vector<std::string>& names);
bool is_number(std::string_view text);

}  // namespace covey::models
