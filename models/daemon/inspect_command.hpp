#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey inspect`: what a network costs, layer by layer, before anything is trained.
void add_inspect_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
