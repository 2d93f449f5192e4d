#pragma once

#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace covey::simulation {

/// One device as a trace file has it, before it is checked. What is absent was not given.
struct TraceDevice {
  std::uint64_t id = 0;
  std::optional<double> computation, communication, finish_time;
  std::optional<std::vector<double>> active, inactive;
  std::vector<std::size_t> lines;  ///< of its rows in a CSV file

  /// "trace.csv:12: device 7" of its `row`-th row, "trace.json: device 7".
  std::string place(const std::string& file, std::size_t row = 0) const;
};

/// Takes one device after the other, in the file's order.
using TraceSink = std::function<Result<void>(const TraceDevice&)>;

enum class TraceKind : std::uint8_t { kCapacity, kAvailability };

/// Hands every device of a .json or .csv trace to `sink`. Errors name the file and the line or
/// device. Fields that no trace of ours has are skipped.
Result<void> read_trace(std::string_view text, const std::string& name, TraceKind kind,
                        const TraceSink& sink);

Result<void> read_json_trace(std::string_view text, const std::string& name, const TraceSink& sink);
Result<void> read_csv_trace(std::string_view text, const std::string& name, TraceKind kind,
                            const TraceSink& sink);

/// A device's number, as all of `text`; nothing if it is none.
std::optional<std::uint64_t> device_number(std::string_view text);

}  // namespace covey::simulation
