#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey bench`: how fast this machine trains.
void add_bench_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
