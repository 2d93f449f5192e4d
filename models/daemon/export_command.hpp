#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace covey {

/// `covey export runs/mnist --quantize int8`: makes what a run learnt a model for devices.
void add_export_command(CLI::App& app, std::function<int()>& run);

}  // namespace covey
