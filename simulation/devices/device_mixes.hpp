#pragma once

#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <string_view>
#include <vector>

namespace covey::simulation {

/// The classes of a named mix: phones, raspberry-pi, mixed. Error on any other name.
Result<std::vector<DeviceClassConfig>> device_mix(std::string_view name);

}  // namespace covey::simulation
