#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey provision create|request|approve|identity|revoke|show`: the certificates of a run. The
/// chosen sub-command sets `run`, which returns the exit code.
void add_provision_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
