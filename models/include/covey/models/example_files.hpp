#pragma once

#include <covey/models/data_set.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

/// Files of examples as a device has them: one owner, and every example is there to train on.
namespace covey::models {

struct CsvLayout {
  std::string label = "label";  ///< column of the class; "": the tables have none
  /// Names of the classes in the order that the model numbers them. Empty: labels are whole numbers
  /// from 0, because one device's names do not show which others there are.
  std::vector<std::string> classes;
};

/// Tables with a header line and numeric features, read in pieces, so that a table never lies in
/// memory as text. All tables have the same columns. One thread at a time.
class CsvExamples {
 public:
  explicit CsvExamples(CsvLayout layout);
  ~CsvExamples();
  CsvExamples(CsvExamples&&) noexcept;
  CsvExamples& operator=(CsvExamples&&) noexcept;

  /// What is added next begins a table; `name` stands in errors.
  void begin(std::string name);
  /// Whole rows, the first of a table being its header. Error naming table, line and column.
  Result<void> add(std::string_view rows);

  /// Room for so many examples, once the first header is known: spares the growth of a large table.
  void reserve(std::size_t examples);
  /// Forgets the rows, not the columns: for one who takes them piece by piece.
  void forget_rows();
  std::size_t size() const;          ///< examples so far
  std::size_t num_features() const;  ///< of each; 0 before the first header
  std::size_t bytes() const;         ///< that they take in memory
  /// Features [size() x num_features()] and class of each, in order.
  const std::vector<float>& features() const;
  std::vector<std::int32_t> labels() const;
  Result<DataSet> finish() &&;

 private:
  struct Tables;
  std::unique_ptr<Tables> tables_;
};

/// Images [n x height x width] and labels [n], two idx files of unsigned bytes, plain or .gz. A
/// pixel's value is byte / 255. `classes` 0: the largest label + 1.
/// Error too where the images take more than `max_bytes`.
Result<DataSet> load_idx(const std::string& images, const std::string& labels,
                         std::uint32_t classes, std::uint64_t max_bytes);
/// How many labels an idx file holds.
Result<std::uint64_t> count_idx(const std::string& labels);

}  // namespace covey::models
