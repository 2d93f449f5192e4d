#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey bench secagg`: what a secure sum costs its devices and its server here.
void add_secagg_bench(CLI::App& bench, std::function<int()>& run);

}  // namespace covey
