#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include <covey/simulation/simulate.hpp>

#include "command_line.hpp"

namespace covey {

/// `covey simulate --faults SEED` and `--check`.
struct FaultOptions {
  std::optional<std::uint64_t> seed;
  bool check = false;
};
void add_fault_options(CLI::App& command, FaultOptions& options);

/// The run file with the faults that the seed stands for; --set faults.NAME comes on top of them.
Result<RunConfig> load_with_faults(const RunFileOptions& run_file, const FaultOptions& options);

/// The command that repeats a run.
std::string replay_command(const RunFileOptions& run_file, const FaultOptions& options);

/// What went wrong and was survived, in a line for people; "": nothing.
std::string fault_summary(const simulation::FaultFigures& figures);

}  // namespace covey
