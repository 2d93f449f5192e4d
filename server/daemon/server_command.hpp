#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace covey {

/// `covey server RUN-FILE --kit DIR`.
void add_server_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
