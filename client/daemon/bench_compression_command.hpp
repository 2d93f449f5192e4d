#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey bench compression`: how fast this machine encodes and decodes updates, into how many
/// bits, and what is lost.
void add_compression_bench(CLI::App& bench, std::function<int()>& run);

}  // namespace covey
