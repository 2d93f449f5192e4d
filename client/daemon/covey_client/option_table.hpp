#pragma once

#include <covey/result.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "client/daemon/covey_client/options.hpp"

namespace covey::client {

/// One option of the command line and key of the configuration file.
struct Option {
  std::string_view name;
  const char* value;  ///< what it takes, for people; nullptr: it is a flag
  std::string_view help;
  /// Reads the value ("true" or "false" of a flag). The error says what it must be.
  Result<void> (*set)(std::string_view text, ProgramOptions& options);
  bool only_command_line = false;
};

std::vector<std::string_view> option_names();
/// nullptr: there is none of this name.
const Option* find_option(std::string_view name);

}  // namespace covey::client
