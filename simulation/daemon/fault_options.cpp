#include "fault_options.hpp"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include <covey/simulation/faults.hpp>

namespace covey {

void add_fault_options(CLI::App& command, FaultOptions& options) {
  command
      .add_option("--faults", options.seed,
                  "Draws from this seed what goes wrong in the first half of the rounds: lost, late, "
                  "repeated and damaged messages, crashes of devices and the server, full disks; every "
                  "invariant is checked. --set faults.NAME=0 leaves one kind out")
      ->type_name("SEED")
      ->check(CLI::Range(std::uint64_t{1}, static_cast<std::uint64_t>(INT64_MAX)));
  command.add_flag("--check", options.check,
                   "Ends with an error where an invariant of the run does not hold; with faults always");
}

Result<RunConfig> load_with_faults(const RunFileOptions& run_file, const FaultOptions& options) {
  if (!options.seed) return run_file.load();
  COVEY_ASSIGN(const RunConfig plain, run_file.load());
  RunFileOptions faulty = run_file;
  faulty.overrides =
      simulation::fault_overrides(simulation::faults_of_seed(*options.seed, plain));
  faulty.overrides.insert(faulty.overrides.end(), run_file.overrides.begin(), run_file.overrides.end());
  return faulty.load();
}

std::string replay_command(const RunFileOptions& run_file, const FaultOptions& options) {
  std::string command = "covey simulate " + run_file.path;
  if (options.seed) command += fmt::format(" --faults {}", *options.seed);
  if (options.check) command += " --check";
  if (run_file.seed) command += fmt::format(" --seed {}", *run_file.seed);
  if (!run_file.data_directory.empty()) command += " --data " + run_file.data_directory;
  for (const std::string& setting : run_file.overrides) command += " --set '" + setting + "'";
  return command;
}

std::string fault_summary(const simulation::FaultFigures& figures) {
  std::string summary;
  const auto add = [&](std::uint64_t count, std::string_view what) {
    if (count > 0) summary += fmt::format("{}{} {}", summary.empty() ? "" : ", ", count, what);
  };
  add(figures.lost, "messages lost");
  add(figures.late, "late");
  add(figures.repeated, "repeated");
  add(figures.overtaken, "overtaken");
  add(figures.damaged, "damaged");
  add(figures.cut, "connections cut");
  add(figures.device_crashes, "device crashes");
  add(figures.server_crashes, "server crashes");
  add(figures.full_disks, "writes to a full disk");
  return summary;
}

}  // namespace covey
