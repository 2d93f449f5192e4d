#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace covey {

/// `covey plot runs/a runs/b --out figure.svg`: a figure of several runs over rounds, virtual time, bytes
/// or updates in one picture.
void add_plot_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
