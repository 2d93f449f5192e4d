#include "client/daemon/covey_client/options.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "client/daemon/covey_client/option_table.hpp"
#include "client/daemon/settings_file.hpp"

namespace covey::client {
namespace {

Error wrong_usage(std::string sentence) {
  return invalid_argument(std::move(sentence) + "; see covey-client --help");
}

/// An option of the command line with its value.
struct Given {
  const Option* option;
  std::string value;
};

Result<std::vector<Given>> parse_arguments(std::span<const char* const> arguments) {
  std::vector<Given> given;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string_view argument = arguments[i];
    if (argument == "-h") argument = "--help";
    if (!argument.starts_with("--") || argument.size() == 2) {
      return wrong_usage(fmt::format("\"{}\" is not an option", argument));
    }
    const std::size_t equals = argument.find('=');
    const std::string_view name = argument.substr(2, equals - 2);
    const Option* option = find_option(name);
    if (option == nullptr) return wrong_usage(fmt::format("--{} is not an option", name));
    const bool attached = equals != std::string_view::npos;
    if (option->value == nullptr) {
      if (attached) return wrong_usage(fmt::format("--{} takes no value", name));
      given.push_back({option, "true"});
    } else if (attached) {
      given.push_back({option, std::string(argument.substr(equals + 1))});
    } else if (i + 1 < arguments.size()) {
      given.push_back({option, arguments[++i]});
    } else {
      return wrong_usage(fmt::format("--{} needs a value: {}", name, option->value));
    }
  }
  return given;
}

/// The value as the command line would have it.
std::string text_of(const Setting& setting) {
  return std::visit(
      [](const auto& value) {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>) {
          return value;
        } else {
          return fmt::to_string(value);
        }
      },
      setting.value);
}

Result<void> apply_file(const std::string& path, ProgramOptions& options) {
  COVEY_ASSIGN(const SettingsFile file, SettingsFile::read(path));
  for (const Setting& setting : file.settings()) {
    const Option* option = find_option(setting.key);
    if (option == nullptr || option->only_command_line) {
      return file.wrong(setting, "is not a key of this file");
    }
    const bool is_flag = option->value == nullptr;
    if (is_flag != std::holds_alternative<bool>(setting.value)) {
      return file.wrong(setting, is_flag ? "must be true or false"
                                         : fmt::format("must be one value: {}", option->value));
    }
    if (const auto set = option->set(text_of(setting), options); !set.ok()) {
      return file.wrong(setting, set.error().message);
    }
  }
  options.config = path;
  return {};
}

/// What cannot be left out, or not be had together.
Result<void> check(const ProgramOptions& options) {
  if (options.self_test) return {};  // which finds out
  if (options.kit.empty()) {
    return wrong_usage("say where this device's kit is: --kit DIR, as `covey provision` made it");
  }
  if (options.data.empty()) {
    return wrong_usage("say what this device is to train on: --data csv:FILE, idx:DIR, ...");
  }
  if (options.once && options.keep_running) {
    return wrong_usage("--once and --keep-running exclude each other");
  }
  return {};
}

}  // namespace

Result<ProgramOptions> read_options(std::span<const char* const> arguments,
                                    std::string_view default_configuration) {
  COVEY_ASSIGN(const auto given, parse_arguments(arguments));
  ProgramOptions options;
  // systemd makes this folder for a unit with StateDirectory=.
  const char* state = std::getenv("STATE_DIRECTORY");
  options.device.state_directory = state != nullptr ? state : "/var/lib/covey-client";

  const Option* config = find_option("config");
  const auto named = std::find_if(given.rbegin(), given.rend(),
                                  [&](const Given& one) { return one.option == config; });
  const std::string file(named != given.rend() ? named->value : std::string(default_configuration));
  const bool asks = std::any_of(given.begin(), given.end(), [](const Given& one) {
    return one.option->name == "help" || one.option->name == "version";
  });
  if (!asks && !file.empty() && (named != given.rend() || access(file.c_str(), F_OK) == 0)) {
    COVEY_TRY(apply_file(file, options));
  }
  for (const Given& one : given) {
    if (one.option == config) continue;
    if (const auto set = one.option->set(one.value, options); !set.ok()) {
      return wrong_usage(
          fmt::format("--{} {}: {}", one.option->name, one.value, set.error().message));
    }
  }
  if (!asks) COVEY_TRY(check(options));
  return options;
}

}  // namespace covey::client
