#pragma once

#include <covey/result.hpp>
#include <covey/time.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "device_models.hpp"

namespace covey::simulation {

/// Who of a fleet is there when, as far as its devices' models say: no training is simulated.
struct FleetDay {
  /// A stretch of one device's time online.
  struct Stretch {
    Time begins{}, ends{};
    bool charging = false;
  };
  struct Row {
    ClientId client{};
    std::uint32_t device_class = 0;
    std::vector<Stretch> online;
  };

  Duration length{};
  Duration step{};
  std::vector<double> online;    ///< share of the devices, every `step` from the run's beginning
  std::vector<double> charging;  ///< share that is online, on its charger and unmetered
  std::vector<Row> rows;         ///< of some devices, by class
};

struct FleetDayOptions {
  Duration length = std::chrono::hours(24);
  Duration step = std::chrono::minutes(10);
  std::uint64_t population = 1;  ///< of the fleet
  std::uint64_t devices = 1;     ///< that are looked at, spread over the fleet; at most all
  std::size_t rows = 60;
};

FleetDay observe_day(const DeviceModels& models, const FleetDayOptions& options);

/// The day as a picture: a row for each of `day.rows` (light: online, dark: charging), the shares
/// below. `path` ends in .svg or .png. `start_hour`: coordinated time at which it begins.
Result<void> write_fleet_picture(const FleetDay& day, const DeviceModels& models,
                                 const std::string& title, double start_hour,
                                 const std::string& path);

}  // namespace covey::simulation
