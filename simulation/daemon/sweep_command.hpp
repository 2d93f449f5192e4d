#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey sweep FILE.toml`: a grid or list of settings with several seeds, each a run of its own;
/// one table and one plot.
void add_sweep_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
