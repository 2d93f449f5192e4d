#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace covey {

/// `covey simulate RUN-FILE`. On parse `run` becomes what is to be done; it returns the exit code.
void add_simulate_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
