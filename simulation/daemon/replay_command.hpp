#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey replay STATE_DIR`: simulates a server's recorded run with the devices that it had, and
/// sets what happened beside what is simulated.
void add_replay_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
