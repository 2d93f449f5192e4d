#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/models/example_files.hpp>
#include <optional>
#include <utility>

#include "data/csv_reader.hpp"
#include "data/csv_table.hpp"

namespace covey::models {
namespace {

/// The class of a label, by the names that the layout gives or as a number.
Result<std::int32_t> class_of(const std::string& label, const CsvLayout& layout) {
  if (layout.classes.empty()) {
    if (const auto number = numbers_as_classes({label})) return number->of_label_id[0];
    return malformed(fmt::format(
        "label \"{}\" is not a whole number from 0; where labels are names, say which there are, "
        "in the model's order (classes=NAME|NAME|...)",
        label));
  }
  const auto found = std::ranges::find(layout.classes, label);
  if (found == layout.classes.end()) {
    return malformed(fmt::format("label \"{}\" is none of the classes {}", label,
                                 fmt::join(layout.classes, "|")));
  }
  return static_cast<std::int32_t>(found - layout.classes.begin());
}

}  // namespace

struct CsvExamples::Tables {
  CsvLayout layout;
  std::string name;
  std::size_t line = 1;            ///< of what is added next
  bool has_header = false;         ///< the table at hand
  std::optional<Columns> columns;  ///< of the first table
  Table table;
  std::vector<std::int32_t> class_of;  ///< of each label in `table`
};

CsvExamples::CsvExamples(CsvLayout layout) : tables_(std::make_unique<Tables>()) {
  tables_->layout = std::move(layout);
}
CsvExamples::~CsvExamples() = default;
CsvExamples::CsvExamples(CsvExamples&&) noexcept = default;
CsvExamples& CsvExamples::operator=(CsvExamples&&) noexcept = default;

void CsvExamples::begin(std::string name) {
  tables_->name = std::move(name);
  tables_->line = 1;
  tables_->has_header = false;
}

Result<void> CsvExamples::add(std::string_view rows) {
  Tables& t = *tables_;
  CsvReader reader(t.name, rows, t.line);
  if (!t.has_header) {
    COVEY_ASSIGN(Columns columns, read_header(reader, {t.layout.label, "", "label", "user"}));
    if (t.columns && t.columns->names != columns.names) {
      return malformed(fmt::format("{}:1: has the columns {}; the tables before it have {}", t.name,
                                   fmt::join(columns.names, ", "),
                                   fmt::join(t.columns->names, ", ")));
    }
    t.columns = std::move(columns);
    t.has_header = true;
  }
  COVEY_TRY(read_rows(reader, *t.columns, t.table));
  t.line = reader.next_line();
  const auto& names = t.table.labels.names();
  for (std::size_t i = t.class_of.size(); i < names.size(); ++i) {
    const auto number = class_of(names[i], t.layout);
    if (!number.ok()) {
      return with_context(i < t.table.label_places.size() ? t.table.label_places[i] : t.name,
                          number.error());
    }
    t.class_of.push_back(*number);
  }
  return {};
}

void CsvExamples::reserve(std::size_t examples) {
  if (examples <= size() || !tables_->columns) return;
  tables_->table.features.reserve(examples * num_features());
  tables_->table.label_ids.reserve(examples);
}

void CsvExamples::forget_rows() {
  tables_->table.features.clear();
  tables_->table.label_ids.clear();
}

std::size_t CsvExamples::size() const { return tables_->table.label_ids.size(); }

std::size_t CsvExamples::num_features() const {
  return tables_->columns ? tables_->columns->num_features() : 0;
}

std::size_t CsvExamples::bytes() const {
  return size() * (num_features() * sizeof(float) + sizeof(std::int32_t));
}

const std::vector<float>& CsvExamples::features() const { return tables_->table.features; }

std::vector<std::int32_t> CsvExamples::labels() const {
  std::vector<std::int32_t> labels;
  labels.reserve(size());
  for (const std::uint32_t id : tables_->table.label_ids) labels.push_back(tables_->class_of[id]);
  return labels;
}

Result<DataSet> CsvExamples::finish() && {
  std::vector<std::int32_t> classes = labels();
  std::uint32_t count = static_cast<std::uint32_t>(tables_->layout.classes.size());
  if (count == 0 && !classes.empty()) {
    count = static_cast<std::uint32_t>(*std::ranges::max_element(classes)) + 1;
  }
  const auto width = static_cast<std::uint32_t>(num_features());
  COVEY_ASSERT(width > 0);  // a header came
  std::vector<float> values = std::move(tables_->table.features);
  auto data = DataSet::from_floats({width}, std::move(values), std::move(classes), count);
  if (!data.ok()) return with_context(tables_->name, data.error());
  return data;
}

}  // namespace covey::models
