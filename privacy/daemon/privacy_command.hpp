#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey privacy`: noise for an epsilon, an epsilon for noise, rounds for both, or what a run
/// file's keys will spend.
void add_privacy_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
