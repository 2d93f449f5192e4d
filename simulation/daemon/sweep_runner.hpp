#pragma once

#include <atomic>
#include <covey/result.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sweep_plan.hpp"

namespace covey {

enum class RunState {
  kDone,     ///< result.json is there and the run had finished
  kResumes,  ///< begun, with a journal to go on from
  kStarts,   ///< not begun, or begun without a journal
  kStopped,  ///< by Ctrl-C
  kFailed,
};

/// One run of a sweep: a process `covey simulate` and the folder it writes.
struct SweepRun {
  std::size_t sweep_case = 0;  ///< index into SweepPlan::cases
  std::uint64_t seed = 0;
  std::string folder;  ///< <out>/<case>/seed-<n>
  std::string log;     ///< <out>/<case>/seed-<n>.log: what it printed; removed once it is done
  std::vector<std::string> arguments;  ///< of `covey`, to start it from nothing
  RunState state = RunState::kStarts;
  std::string problem;  ///< of a failed run
};

struct SweepRunOptions {
  std::string out;             ///< folder of the sweep
  std::string data_directory;  ///< --data
  unsigned jobs = 1;
  unsigned threads = 1;  ///< of each run
};

/// All runs of a plan, with what is there of each. Error where a folder holds a run of other
/// settings, so that none is overwritten.
Result<std::vector<SweepRun>> runs_of(const SweepPlan& plan, const SweepRunOptions& options);

/// The command that a run is, as a shell would take it.
std::string command_of(const SweepRun& run, const SweepRunOptions& options);

/// Does the runs that are not done, `jobs` at a time, each in a process of its own; `ended` is
/// called as each one ends. A run that fails ends nothing else. When `stop` is set, the processes
/// are told to stop and waited for; what they had done stays.
void do_runs(std::vector<SweepRun>& runs, const SweepRunOptions& options,
             const std::atomic<bool>& stop, const std::function<void(const SweepRun&)>& ended);

}  // namespace covey
