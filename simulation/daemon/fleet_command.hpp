#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey fleet RUN.toml`: who the devices of a run file are, and who is there when.
void add_fleet_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
