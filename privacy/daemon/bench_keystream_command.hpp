#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey bench keystream`: how fast this machine makes masks.
void add_keystream_bench(CLI::App& bench, std::function<int()>& run);

}  // namespace covey
