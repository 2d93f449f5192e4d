#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "trace_reader.hpp"

namespace covey::simulation {
namespace {

constexpr std::string_view kCapacityHeader = "id,computation,communication";
constexpr std::string_view kAvailabilityHeader = "id,active,inactive,finish_time";
constexpr std::size_t kMostColumns = 4;

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

/// The number that is all of `text`.
std::optional<double> number_of(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) {
    return std::nullopt;
  }
  return value;
}

struct Row {
  std::size_t line = 0;
  std::uint64_t id = 0;
  std::array<double, kMostColumns - 1> values{};
};

/// The values of one line, which must be as many as the header has.
Result<Row> read_row(std::string_view line, std::size_t number, const std::string& name,
                     std::string_view header) {
  const auto place = [&] { return fmt::format("{}:{}", name, number); };
  std::array<std::string_view, kMostColumns> cells;
  std::size_t count = 0;
  for (std::string_view rest = line;; ++count) {
    const std::size_t comma = rest.find(',');
    if (count < kMostColumns) cells[count] = trimmed(rest.substr(0, comma));
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  ++count;
  const auto columns = static_cast<std::size_t>(std::count(header.begin(), header.end(), ',')) + 1;
  if (count != columns) {
    return malformed(
        fmt::format("{}: expected {} values ({}), found {}", place(), columns, header, count));
  }
  const auto id = device_number(cells[0]);
  if (!id) {
    return malformed(
        fmt::format("{}: \"{}\" is no device's number", place(), cells[0].substr(0, 40)));
  }
  Row row{number, *id, {}};
  std::string_view names = header;
  for (std::size_t i = 1; i < columns; ++i) {
    names.remove_prefix(names.find(',') + 1);
    const auto value = number_of(cells[i]);
    if (!value) {
      return malformed(fmt::format("{}: device {}: {}: \"{}\" is not a number", place(), *id,
                                   names.substr(0, names.find(',')), cells[i].substr(0, 40)));
    }
    row.values[i - 1] = *value;
  }
  return row;
}

/// Collects rows of capacity, one a device, and of availability, where a device's rows follow each
/// other.
class RowCollector {
 public:
  RowCollector(const std::string& name, TraceKind kind, const TraceSink& sink)
      : name_(name), kind_(kind), sink_(sink) {}

  Result<void> add(const Row& row) {
    if (any_ && (kind_ == TraceKind::kCapacity || row.id != device_.id)) COVEY_TRY(finish());
    if (!any_) {
      device_ = {};
      device_.id = row.id;
      any_ = true;
    }
    device_.lines.push_back(row.line);
    if (kind_ == TraceKind::kCapacity) {
      device_.computation = row.values[0];
      device_.communication = row.values[1];
      return {};
    }
    if (!device_.active) {
      device_.active.emplace();
      device_.inactive.emplace();
      device_.finish_time = row.values[2];
    }
    if (row.values[2] != *device_.finish_time) {
      return malformed(
          fmt::format("{}:{}: device {}: finish_time {} is another than the {} of its "
                      "first row",
                      name_, row.line, row.id, row.values[2], *device_.finish_time));
    }
    device_.active->push_back(row.values[0]);
    device_.inactive->push_back(row.values[1]);
    return {};
  }

  Result<void> finish() {
    if (!any_) return {};
    any_ = false;
    return sink_(device_);
  }

 private:
  const std::string& name_;
  const TraceKind kind_;
  const TraceSink& sink_;
  TraceDevice device_;
  bool any_ = false;
};

}  // namespace

Result<void> read_csv_trace(std::string_view text, const std::string& name, TraceKind kind,
                            const TraceSink& sink) {
  const std::string_view header =
      kind == TraceKind::kCapacity ? kCapacityHeader : kAvailabilityHeader;
  RowCollector collector(name, kind, sink);
  bool has_header = false;
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = text.find('\n');
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) continue;
    if (has_header) {
      COVEY_ASSIGN(const Row row, read_row(line, number, name, header));
      COVEY_TRY(collector.add(row));
    } else if (line != header) {
      return malformed(fmt::format("{}:{}: expected the header {}, found \"{}\"", name, number,
                                   header, line.substr(0, 60)));
    }
    has_header = true;
  }
  return collector.finish();
}

}  // namespace covey::simulation
