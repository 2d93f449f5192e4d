#pragma once

#include <covey/result.hpp>
#include <span>
#include <string>
#include <string_view>

#include "client/daemon/background_priority.hpp"
#include "client/daemon/device.hpp"

namespace covey::client {

inline constexpr std::string_view kDefaultConfiguration = "/etc/covey/client.toml";

/// What the program was told, by its configuration file and its command line. Both know the same
/// names.
struct ProgramOptions {
  std::string config;           ///< file read, "": none
  std::string kit;              ///< directory
  std::string data;             ///< as open_local_data takes it
  std::string server;           ///< HOST:PORT in the place of the kit's; "": the kit's
  DeviceOptions device;         ///< without the kit itself
  BackgroundPriority priority;  ///< of training
  bool once = false;
  bool keep_running = false;
  bool self_test = false;
  bool json = false;
  bool verbose = false;
  bool help = false;
  bool version = false;
};

/// Reads the configuration file (--config, else kDefaultConfiguration where that exists), then the
/// command line over it. `arguments`: without the program's name. Errors name the option, or file,
/// line and key.
Result<ProgramOptions> read_options(std::span<const char* const> arguments,
                                    std::string_view default_configuration = kDefaultConfiguration);

/// Every option with what it does and its default, and an example.
std::string help_text();

/// "24M": bytes. K, M and G are powers of 1024.
Result<std::uint64_t> parse_size(std::string_view text);

}  // namespace covey::client
