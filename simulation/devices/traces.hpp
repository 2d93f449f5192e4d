#pragma once

#include <covey/result.hpp>
#include <covey/time.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "device_models.hpp"

namespace covey::simulation {

/// How fast each device of a trace computes and talks (FedScale's client_device_capacity, Lai et
/// al. 2022, "FedScale", ICML): JSON {"1": {"computation": 105.0, "communication": 1634.3}, ...} or
/// CSV id,computation,communication. Devices in the order of their numbers.
class CapacityTrace {
 public:
  struct Capacity {
    double computation_ms;        ///< of the forward pass of one example
    double communication_kbit_s;  ///< in either direction

    /// Of training: three times the forward pass, as FedScale counts.
    double seconds_per_example() const { return 3 * computation_ms / 1000; }
    double bytes_per_s() const { return communication_kbit_s * 1000 / 8; }
  };

  /// `name`: the file, for messages; what it ends in says which form `text` has: .json or .csv.
  static Result<CapacityTrace> parse(std::string_view text, const std::string& name);

  std::size_t size() const { return devices_.size(); }
  const Capacity& of(ClientId client) const { return devices_[value_of(client) % devices_.size()]; }

 private:
  std::vector<Capacity> devices_;
};

/// When each device of a trace is there (FedScale's client_behave_trace): JSON {"1": {"active":
/// [..], "inactive": [..], "finish_time": ..}, ...} or CSV id,active,inactive,finish_time with a
/// row for every interval. In seconds; a device is there from active[i] to inactive[i], both
/// included, and all begins again at finish_time. Kept as two numbers an interval.
class AvailabilityTrace {
 public:
  static Result<AvailabilityTrace> parse(std::string_view text, const std::string& name);

  std::size_t size() const { return finish_us_.size(); }
  /// Whether no device is online at any time.
  bool is_empty() const;
  /// There, it is charging and unmetered: what was recorded is when a phone could have trained.
  Surroundings surroundings(ClientId client, Time clock) const;

 private:
  std::vector<std::int64_t> bounds_us_;  ///< active, inactive, active, ... of all devices
  std::vector<std::size_t> first_;       ///< of a device's bounds; one more behind the last
  std::vector<std::int64_t> finish_us_;
};

/// The text of a trace file; relative paths are looked up in `data_directory` first, if there is
/// one. `path` becomes where it was found.
Result<std::string> read_trace_file(const std::string& data_directory, std::string& path);

}  // namespace covey::simulation
