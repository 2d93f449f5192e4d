#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace covey {

/// `covey status --kit kits/operator`: asks a running server what it is doing.
void add_status_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
