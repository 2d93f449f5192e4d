#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace covey {

/// `covey client --kit kits/device-0000 RUN-FILE`: one device, or many in one process for load tests.
void add_client_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
