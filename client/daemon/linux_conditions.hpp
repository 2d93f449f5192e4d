#pragma once

#include <chrono>
#include <covey/client/conditions.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace covey::client {

/// What a Linux system says of itself: /sys/class/power_supply, /sys/class/thermal, /proc, the file
/// system under the state directory, NetworkManager, the local time. One thread.
class LinuxConditions {
 public:
  struct Options {
    std::string state_directory;  ///< whose file system's free space counts; "": that is not read
    bool ask_network = true;      ///< whether it is metered, of NetworkManager
    std::string sys = "/sys";
    std::string proc = "/proc";
    std::string bus_socket = "/run/dbus/system_bus_socket";
    std::chrono::milliseconds bus_patience{1000};
    std::chrono::seconds ask_network_every{60};
  };
  explicit LinuxConditions(Options options);
  ~LinuxConditions();  ///< waits for a question to the bus, `bus_patience` at most

  /// Reads some small files of the kernel: well below a millisecond. The bus is asked on another
  /// thread, its answer is in a later reading.
  DeviceReadings read();

 private:
  class Network;
  std::optional<double> others_load();

  Options options_;
  std::unique_ptr<Network> network_;
  // This process's part of the system's load average.
  double own_load_ = 0;
  std::optional<std::pair<std::chrono::steady_clock::time_point, double>>
      cpu_;  ///< at the last reading
};

}  // namespace covey::client
