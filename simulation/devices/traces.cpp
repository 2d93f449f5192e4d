#include "traces.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "device_streams.hpp"
#include "trace_reader.hpp"

namespace covey::simulation {
namespace {

// About 30 years in seconds, as for all times of a run file.
constexpr double kMaxSeconds = 1e9;
// What is outside of these is no device's, and would make times that no clock holds: an example in
// 11 days, a bit a second, a terabit.
constexpr double kMaxComputationMs = 1e9;
constexpr double kMinKbitS = 1e-3, kMaxKbitS = 1e9;

std::int64_t microseconds(double s) { return static_cast<std::int64_t>(std::llround(s * 1e6)); }

/// The order of `ids`; error if one is there twice.
Result<std::vector<std::size_t>> order_of(const std::vector<std::uint64_t>& ids,
                                          const std::string& name) {
  if (ids.empty()) return malformed(name + ": a trace without devices");
  std::vector<std::size_t> order(ids.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return ids[i]; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (ids[order[i]] != ids[order[i - 1]]) continue;
    return malformed(
        fmt::format("{}: device {} is there twice; all that is known of a device belongs together",
                    name, ids[order[i]]));
  }
  return order;
}

Result<CapacityTrace::Capacity> checked_capacity(const TraceDevice& device,
                                                 const std::string& name) {
  const auto error = [&](std::string_view sentence) {
    return malformed(fmt::format("{}: {}", device.place(name), sentence));
  };
  if (!device.computation) return error("computation is missing (ms per example)");
  if (!device.communication) return error("communication is missing (kbit/s)");
  const double ms = *device.computation, kbit_s = *device.communication;
  if (!(ms > 0 && ms <= kMaxComputationMs)) {
    return error(fmt::format("computation {} ms per example must be more than 0 and at most {}", ms,
                             kMaxComputationMs));
  }
  if (!(kbit_s >= kMinKbitS && kbit_s <= kMaxKbitS)) {
    return error(fmt::format("communication {} kbit/s must be at least {} and at most {}", kbit_s,
                             kMinKbitS, kMaxKbitS));
  }
  return CapacityTrace::Capacity{ms, kbit_s};
}

/// The times of one interval, in order and behind the one before.
Result<void> check_interval(const TraceDevice& device, const std::string& name, std::size_t i) {
  const double active = (*device.active)[i], inactive = (*device.inactive)[i];
  const auto error = [&](std::string_view sentence) {
    return malformed(fmt::format("{}: {}", device.place(name, i), sentence));
  };
  if (!(active >= 0)) return error(fmt::format("active[{}] = {} s is negative", i, active));
  if (!(inactive >= active)) {
    return error(
        fmt::format("inactive[{}] = {} s is before active[{}] = {} s", i, inactive, i, active));
  }
  if (!(inactive <= *device.finish_time)) {
    return error(fmt::format("inactive[{}] = {} s is behind finish_time = {} s", i, inactive,
                             *device.finish_time));
  }
  if (i > 0 && active < (*device.inactive)[i - 1]) {
    return error(
        fmt::format("active[{}] = {} s is before inactive[{}] = {} s: intervals overlap or "
                    "are not in order",
                    i, active, i - 1, (*device.inactive)[i - 1]));
  }
  return {};
}

Result<void> check_availability(const TraceDevice& device, const std::string& name) {
  const auto error = [&](std::string_view sentence) {
    return malformed(fmt::format("{}: {}", device.place(name), sentence));
  };
  if (!device.active) return error("active is missing (a list of seconds)");
  if (!device.inactive) return error("inactive is missing (a list of seconds)");
  if (!device.finish_time) return error("finish_time is missing (seconds)");
  // Less than a microsecond is 0 on every clock here.
  if (!(*device.finish_time >= 1e-6 && *device.finish_time <= kMaxSeconds)) {
    return error(fmt::format("finish_time = {} s must be more than 0 and at most {}",
                             *device.finish_time, kMaxSeconds));
  }
  const std::size_t begun = device.active->size(), ended = device.inactive->size();
  if (begun != ended) {
    return error(fmt::format("active has {} times and inactive {}: the {} is missing at index {}",
                             begun, ended, begun < ended ? "first" : "second",
                             std::min(begun, ended)));
  }
  for (std::size_t i = 0; i < begun; ++i) COVEY_TRY(check_interval(device, name, i));
  return {};
}

}  // namespace

std::string TraceDevice::place(const std::string& file, std::size_t row) const {
  if (row >= lines.size()) return fmt::format("{}: device {}", file, id);
  return fmt::format("{}:{}: device {}", file, lines[row], id);
}

std::optional<std::uint64_t> device_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Result<void> read_trace(std::string_view text, const std::string& name, TraceKind kind,
                        const TraceSink& sink) {
  if (name.ends_with(".json")) return read_json_trace(text, name, sink);
  if (name.ends_with(".csv")) return read_csv_trace(text, name, kind, sink);
  return invalid_argument(
      name +
      ": a trace's name ends in .json or .csv (scripts/convert_fedscale_traces.py makes JSON "
      "of FedScale's pickles)");
}

Result<CapacityTrace> CapacityTrace::parse(std::string_view text, const std::string& name) {
  std::vector<std::uint64_t> ids;
  std::vector<Capacity> devices;
  COVEY_TRY(
      read_trace(text, name, TraceKind::kCapacity, [&](const TraceDevice& device) -> Result<void> {
        COVEY_ASSIGN(const Capacity one, checked_capacity(device, name));
        ids.push_back(device.id);
        devices.push_back(one);
        return {};
      }));
  COVEY_ASSIGN(const auto order, order_of(ids, name));
  CapacityTrace trace;
  trace.devices_.reserve(order.size());
  for (const std::size_t i : order) trace.devices_.push_back(devices[i]);
  return trace;
}

bool AvailabilityTrace::is_empty() const {
  for (std::size_t i = 0; i + 1 < bounds_us_.size(); i += 2) {
    if (bounds_us_[i] < bounds_us_[i + 1]) return false;
  }
  return true;
}

Result<AvailabilityTrace> AvailabilityTrace::parse(std::string_view text, const std::string& name) {
  AvailabilityTrace read;  // in the file's order
  std::vector<std::uint64_t> ids;
  const auto take = [&](const TraceDevice& device) -> Result<void> {
    COVEY_TRY(check_availability(device, name));
    ids.push_back(device.id);
    read.first_.push_back(read.bounds_us_.size());
    read.finish_us_.push_back(microseconds(*device.finish_time));
    for (std::size_t i = 0; i < device.active->size(); ++i) {
      read.bounds_us_.push_back(microseconds((*device.active)[i]));
      read.bounds_us_.push_back(microseconds((*device.inactive)[i]));
    }
    return {};
  };
  COVEY_TRY(read_trace(text, name, TraceKind::kAvailability, take));
  read.first_.push_back(read.bounds_us_.size());
  COVEY_ASSIGN(const auto order, order_of(ids, name));
  if (std::ranges::is_sorted(order)) return read;
  AvailabilityTrace trace;
  trace.bounds_us_.reserve(read.bounds_us_.size());
  for (const std::size_t i : order) {
    trace.first_.push_back(trace.bounds_us_.size());
    trace.finish_us_.push_back(read.finish_us_[i]);
    const auto begin = read.bounds_us_.begin();
    trace.bounds_us_.insert(trace.bounds_us_.end(),
                            begin + static_cast<std::ptrdiff_t>(read.first_[i]),
                            begin + static_cast<std::ptrdiff_t>(read.first_[i + 1]));
  }
  trace.first_.push_back(trace.bounds_us_.size());
  return trace;
}

Surroundings AvailabilityTrace::surroundings(ClientId client, Time clock) const {
  const std::size_t device = value_of(client) % size();
  const std::int64_t now = clock.time_since_epoch().count();
  const std::int64_t finish = finish_us_[device];
  const std::int64_t turn = floor_divide(now, finish) * finish;
  const std::int64_t at = now - turn;
  const auto first = bounds_us_.begin() + static_cast<std::ptrdiff_t>(first_[device]);
  const auto last = bounds_us_.begin() + static_cast<std::ptrdiff_t>(first_[device + 1]);
  Surroundings result{false, false, false};
  if (first == last) return result;
  // The first bound behind `at`: an end (odd) of the interval that it lies in, or the next
  // beginning. A last moment is still inside.
  auto next = std::upper_bound(first, last, at);
  if (next != first && *(next - 1) == at && (next - 1 - first) % 2 == 1) --next;
  result.online = result.charging = (next - first) % 2 == 1;
  std::int64_t until = finish;
  if (next != last) until = std::min(finish, result.online ? *next + 1 : *next);
  result.until = Time(Duration(turn + until));
  return result;
}

Result<std::string> read_trace_file(const std::string& data_directory, std::string& path) {
  std::error_code ignored;
  const std::filesystem::path given(path);
  if (given.is_relative() && !data_directory.empty()) {
    const auto inside = std::filesystem::path(data_directory) / given;
    if (std::filesystem::exists(inside, ignored)) path = inside.string();
  }
  if (std::filesystem::is_directory(path, ignored)) {
    return invalid_argument(path + ": is a directory, a trace file was expected");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return not_found(path + ": cannot open this trace" +
                     (given.is_relative() && !data_directory.empty()
                          ? " (it is not in " + data_directory + " either)"
                          : ""));
  }
  constexpr std::size_t kPiece = 1 << 20;
  std::string text;
  while (file) {
    const std::size_t read = text.size();
    text.resize(read + kPiece);
    file.read(text.data() + read, kPiece);
    text.resize(read + static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) return failed(path + ": cannot read this trace");
  return text;
}

}  // namespace covey::simulation
