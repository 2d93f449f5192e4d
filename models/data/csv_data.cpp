#include <algorithm>
#include <covey/models/data_set.hpp>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "data/csv_reader.hpp"
#include "data/csv_table.hpp"
#include "data/data_builder.hpp"

namespace covey::models {
namespace {

/// Labels that are all whole numbers from 0 are class numbers; labels that are no numbers are
/// names, numbered in alphabetical order. A mixture is a mistake in the table.
Result<Classes> number_classes(const std::vector<std::string>& names) {
  if (auto numbers = numbers_as_classes(names)) return *std::move(numbers);
  if (std::ranges::any_of(names, is_number)) {
    const auto odd = std::ranges::find_if(
        names, [](const std::string& name) { return !numbers_as_classes({name}); });
    return malformed("label \"" + *odd + "\" is not a class: labels are whole numbers from 0 to " +
                     std::to_string(kMaxClasses - 1) + ", or names without any number among them");
  }
  std::vector<std::string> sorted = names;
  std::ranges::sort(sorted);
  Classes classes;
  for (const std::string& name : names) {
    const auto rank = std::ranges::lower_bound(sorted, name) - sorted.begin();
    classes.of_label_id.push_back(static_cast<std::int32_t>(rank));
  }
  classes.count = static_cast<std::uint32_t>(names.size());
  return classes;
}

/// Row numbers by user; without users, one group of all rows.
std::vector<std::vector<std::uint32_t>> rows_by_user(const Table& table) {
  std::vector<std::vector<std::uint32_t>> groups(
      std::max<std::size_t>(1, table.users.names().size()));
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
  COVEY_ASSIGN(const Columns columns,
               read_header(reader, {config.label, config.user, "data.label", "data.user"}));
  Table table;
  COVEY_TRY(read_rows(reader, columns, table));
  if (table.label_ids.empty()) return malformed(path + ": has a header and no rows");

  const auto numbered = number_classes(table.labels.names());
  if (!numbered.ok()) return with_context(path, numbered.error());
  const Classes& classes = *numbered;
  const std::size_t num_features = columns.num_features();
  const auto groups = rows_by_user(table);
  FederatedBuilder builder(num_features);
  for (std::size_t user = 0; user < groups.size(); ++user) {
    const auto& rows = groups[user];
    const bool owned = !table.users.names().empty();
    const std::size_t owner = owned ? builder.add_owner(table.users.names()[user]) : 0;
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
