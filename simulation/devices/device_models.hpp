#pragma once

#include <covey/ids.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/time.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace covey::simulation {

/// What a virtual device can do. Fixed for a run.
struct DeviceTraits {
  Duration latency{};         ///< one way
  double up_bytes_per_s = 0;  ///< 0: unlimited
  double down_bytes_per_s = 0;
  double flops_per_s = 1e9;  ///< in training
  /// Seconds per training example, from a capacity trace; 0: what `flops_per_s` makes of the model.
  double seconds_per_example = 0;
  std::uint64_t memory_bytes = 0;  ///< for training; 0: enough for anything
  double compute_watts = 0;        ///< while it trains
  double radio_joules_per_byte = 0;
  double battery_joules = 0;       ///< 0: on mains
  std::uint32_t device_class = 0;  ///< index for DeviceModels::class_name
};

/// What a device's surroundings are from one moment on, and until when they stay so.
struct Surroundings {
  bool online = true;  ///< it can reach the server and may work; otherwise it is away
  bool charging = true;
  bool metered = false;
  Time until = Time::max();  ///< exclusive; the next moment at which any of these may change
};

/// Who the fleet's devices are: drawn from the run file's mix, classes or traces. Everything about
/// a device follows from (run's seed, client), so nothing is kept per device: a million of them
/// cost nothing. Const methods may run on many threads at once.
class DeviceModels {
 public:
  /// Reads the trace files (relative paths are looked up in `data_directory` first). Error naming
  /// file, line and device: gaps, overlaps, negative times or speeds, a trace without devices.
  static Result<DeviceModels> make(const RunConfig& config, const std::string& data_directory,
                                   std::uint32_t population);

  DeviceTraits traits(ClientId client) const;
  /// `at` >= 0: virtual time since the run began (fleet.start-hour o'clock).
  Surroundings surroundings(ClientId client, Time at) const;
  /// What a device says of itself at check-in; "" where the fleet has one nameless class.
  std::string_view class_name(std::uint32_t device_class) const;
  /// Whether any device is ever away, so that the simulator can do without that where none is.
  bool always_online() const;
  /// The kinds of devices, by DeviceTraits::device_class; shares are relative.
  const std::vector<DeviceClassConfig>& classes() const;
  /// Whether any link has a bandwidth.
  bool has_bandwidths() const;

 private:
  struct Data;
  std::shared_ptr<const Data> data_;
};

/// Charge of a device's battery, kept only while the device is awake in the simulation. Off the
/// charger it loses what training and the radio take and an idle drain; on it, it fills within
/// kChargeTime.
class Battery {
 public:
  /// `traits.battery_joules` == 0: never empty. The level at `now` is drawn from (seed, client,
  /// hour).
  Battery(const DeviceTraits& traits, std::uint64_t seed, ClientId client, Time now);
  void spend(double joules);
  void advance(Duration elapsed, bool charging);
  double level() const { return level_; }  ///< in [0, 1]
  /// From empty to full; a phone's fast charger, our choice.
  static constexpr Duration kChargeTime = std::chrono::minutes(90);
  /// From full to empty with nothing to do but what its owner does; about a day, our choice.
  static constexpr Duration kIdleTime = std::chrono::hours(24);
  /// Below it a device off the charger does not take part.
  static constexpr double kReserve = 0.2;

 private:
  double capacity_ = 0;  ///< joules
  double level_ = 1;
};

}  // namespace covey::simulation
