#include "data/csv_reader.hpp"

#include <fmt/format.h>

#include <utility>

namespace covey::models {

CsvReader::CsvReader(std::string name, std::string_view text, std::size_t line)
    : name_(std::move(name)), text_(text), line_(line) {
  if (line == 1 && text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
}

bool CsvReader::at_line_end() const {
  if (at_ >= text_.size()) return true;
  return text_[at_] == '\n' || text_.substr(at_, 2) == "\r\n";
}

void CsvReader::skip_line_end() {
  if (at_ >= text_.size()) return;
  at_ += text_[at_] == '\r' ? 2 : 1;
  ++line_;
}

Result<void> CsvReader::read_quoted(std::size_t column, std::string& cell) {
  const std::size_t quote_line = line_;
  ++at_;
  for (; at_ < text_.size(); ++at_) {
    if (text_[at_] == '"') {
      ++at_;
      if (at_ >= text_.size() || text_[at_] != '"') {
        if (at_line_end() || text_[at_] == ',') return {};
        return malformed(
            fmt::format("{}:{}:{}: text follows a closing quote", name_, line_, column));
      }
    }
    if (text_[at_] == '\n') ++line_;
    cell.push_back(text_[at_]);
  }
  return malformed(fmt::format("{}:{}:{}: a quote is not closed", name_, quote_line, column));
}

Result<bool> CsvReader::next(std::vector<std::string>& cells) {
  while (at_ < text_.size() && at_line_end()) skip_line_end();
  row_line_ = line_;
  if (at_ >= text_.size()) return false;
  std::size_t used = 0;  // cells keep their memory from row to row
  for (;;) {
    if (used == cells.size()) cells.emplace_back();
    std::string& cell = cells[used++];
    cell.clear();
    if (at_ < text_.size() && text_[at_] == '"') {
      COVEY_TRY(read_quoted(used, cell));
    } else {
      while (!at_line_end() && text_[at_] != ',') cell.push_back(text_[at_++]);
    }
    if (at_line_end()) break;
    ++at_;  // the comma
  }
  skip_line_end();
  cells.resize(used);
  return true;
}

}  // namespace covey::models
