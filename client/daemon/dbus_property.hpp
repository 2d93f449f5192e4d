#pragma once

#include <chrono>
#include <covey/result.hpp>
#include <cstdint>
#include <string>

namespace covey::client {

/// A property of an object on a message bus.
struct DbusProperty {
  std::string destination;  ///< "org.freedesktop.NetworkManager"
  std::string path;         ///< "/org/freedesktop/NetworkManager"
  std::string interface;
  std::string name;
};

/// Asks the bus behind `socket_path` for a property of type u. Blocks, `patience` at most. Starts
/// no service: one that does not run is an error, as is everything else that is not the answer.
Result<std::uint32_t> read_dbus_uint32(const std::string& socket_path, const DbusProperty& property,
                                       std::chrono::milliseconds patience);

}  // namespace covey::client
