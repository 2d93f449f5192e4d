#pragma once

#include <covey/result.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace covey::models {

/// Reads RFC 4180 text row by row: quoted cells may hold commas, line ends and doubled quotes;
/// lines end with LF or CRLF; empty lines are passed over; a UTF-8 byte order mark is skipped.
class CsvReader {
 public:
  /// `text` outlives the reader. `name` stands in errors. `line`: the number of its first line,
  /// where it goes on with a table.
  CsvReader(std::string name, std::string_view text, std::size_t line = 1);

  /// Replaces `cells` by the next row's; false at the end of the text. Error naming file and line
  /// for a quote that does not close or is followed by more text.
  Result<bool> next(std::vector<std::string>& cells);

  /// Line, from 1, on which the row last read begins.
  std::size_t line() const { return row_line_; }
  /// The line behind what was read.
  std::size_t next_line() const { return line_; }
  const std::string& name() const { return name_; }

 private:
  Result<void> read_quoted(std::size_t column, std::string& cell);
  bool at_line_end() const;
  void skip_line_end();

  std::string name_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
  std::size_t row_line_ = 1;
};

}  // namespace covey::models
