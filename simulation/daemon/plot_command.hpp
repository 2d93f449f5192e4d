#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace covey {

/// `covey plot runs/a runs/b --out figure.svg`: accuracy over rounds of several runs in one picture.
void add_plot_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
