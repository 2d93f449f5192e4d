// Run files of tests/scenarios: each brings out a bug that was found by a seed of faults and is
// gone.

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/simulation/simulate.hpp>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

using namespace covey;

namespace {

std::vector<std::filesystem::path> scenarios() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(COVEY_SCENARIOS)) {
    if (entry.path().extension() == ".toml") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

Result<simulation::SimulationResult> run(const std::string& path) {
  COVEY_ASSIGN(const auto config, load_run_file(path, {}));
  COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto experiment, simulation::load_experiment(config, ""));
  simulation::SimulationOptions options;
  options.check_invariants = true;
  return simulation::simulate(experiment, registry, options);
}

}  // namespace

TEST_CASE("no scenario brings its bug back") {
  const auto files = scenarios();
  REQUIRE_FALSE(files.empty());
  for (const auto& file : files) {
    CAPTURE(file.filename().string());
    const auto result = run(file.string());
    INFO((result.ok() ? "" : result.error().message));
    REQUIRE(result.ok());
    CHECK(result->finished);
    // Every committed round is shown once, and in order.
    std::vector<std::uint32_t> shown;
    for (const RoundMetrics& round : result->rounds) {
      if (round.committed) shown.push_back(value_of(round.round));
    }
    std::vector<std::uint32_t> all(result->committed);
    std::iota(all.begin(), all.end(), 1U);
    CHECK(shown == all);
    const auto& faults = result->faults;
    CHECK(faults.lost + faults.late + faults.repeated + faults.overtaken + faults.damaged +
              faults.cut + faults.device_crashes + faults.server_crashes + faults.full_disks >
          0);
  }
}
