// Hundreds of fault plans, each a seed, over small runs of every kind: the deployed state machines
// behind a network that loses, delays, repeats and damages messages, on machines that crash and
// start again. After every event the invariants are checked, and behind the faults rounds have to
// go on.
//
// COVEY_SEEDS=N runs N seeds of each kind, COVEY_FIRST_SEED=S begins with S.

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <covey/simulation/faults.hpp>
#include <covey/simulation/simulate.hpp>
#include <cstdlib>
#include <string>
#include <vector>

using namespace covey;

namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

Result<simulation::SimulationResult> run(const std::string& file,
                                         const std::vector<std::string>& overrides,
                                         std::uint64_t seed) {
  const std::string path = std::string(COVEY_SCENARIOS) + "/fleets/" + file;
  COVEY_ASSIGN(const auto plain, load_run_file(path, overrides));
  auto all = simulation::fault_overrides(simulation::faults_of_seed(seed, plain));
  all.insert(all.end(), overrides.begin(), overrides.end());
  COVEY_ASSIGN(const auto config, load_run_file(path, all));
  COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto experiment, simulation::load_experiment(config, ""));
  simulation::SimulationOptions options;
  return simulation::simulate(experiment, registry, options);
}

/// Every seed's run ends with all its rounds, and with every invariant kept.
void survives(const std::string& file, std::uint64_t seeds_here) {
  const std::uint64_t first = from_environment("COVEY_FIRST_SEED", 1);
  const std::uint64_t seeds = from_environment("COVEY_SEEDS", seeds_here);
  std::uint32_t committed = 0, abandoned = 0;
  double hours = 0;
  std::uint64_t crashes = 0, damaged = 0, broken = 0;
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    const std::string run_seed = fmt::format("run.seed={}", seed);
    const std::string command = fmt::format(
        "covey simulate tests/scenarios/fleets/{} --faults {} --set {}", file, seed, run_seed);
    CAPTURE(command);
    const auto result = run(file, {run_seed}, seed);
    if (!result.ok()) {
      FAIL_CHECK(result.error().message << "\n  to repeat it: " << command);
      continue;
    }
    CHECK(result->finished);
    std::uint32_t shown = 0;
    for (const RoundMetrics& round : result->rounds) {
      ++(round.committed ? committed : abandoned);
      shown += round.committed;
    }
    CHECK(shown == result->committed);  // every committed round is published, and once
    hours += result->virtual_s / 3600;
    crashes += result->faults.server_crashes;
    damaged += result->faults.damaged + result->faults.repeated + result->faults.overtaken;
    broken += result->faults.lost + result->faults.cut + result->faults.device_crashes;
  }
  fmt::print(
      "{}: {} seeds, {} rounds committed, {} abandoned, {:.0f} hours of virtual time; {} crashes "
      "of the "
      "server, {} messages that were not what was sent, {} broken connections\n",
      file, seeds, committed, abandoned, hours, crashes, damaged, broken);
  CHECK(committed > 0);
  constexpr std::uint64_t kEnough = 10;  // seeds, for every fault to be among them
  if (seeds < kEnough) return;
  CHECK(crashes > 0);
  CHECK(damaged > 0);
  CHECK(broken > 0);
}

}  // namespace

TEST_CASE("synchronous rounds survive every seed's faults") { survives("plain.toml", 40); }
TEST_CASE("a strategy of single updates survives every seed's faults") {
  survives("median.toml", 20);
}
TEST_CASE("scalars and quantised updates survive every seed's faults") {
  survives("quantised.toml", 30);
}
TEST_CASE("over-selection with a deadline survives every seed's faults") {
  survives("over_selection.toml", 30);
}
TEST_CASE("secure sums survive every seed's faults") { survives("secure.toml", 30); }
TEST_CASE("secure sums against a malicious server survive every seed's faults") {
  survives("malicious_server.toml", 20);
}
TEST_CASE("central differential privacy survives every seed's faults") {
  survives("private.toml", 30);
}
TEST_CASE("noise of the devices in a secure sum survives every seed's faults") {
  survives("skellam.toml", 15);
}
TEST_CASE("tree noise and limited participations survive every seed's faults") {
  survives("tree.toml", 20);
}
TEST_CASE("asynchronous aggregation survives every seed's faults") {
  survives("asynchronous.toml", 30);
}
TEST_CASE("selection by utility with limits survives every seed's faults") {
  survives("oort.toml", 25);
}
TEST_CASE("classes of devices with plans of their own survive every seed's faults") {
  survives("classes.toml", 12);
}
TEST_CASE("phones that come and go survive every seed's faults") { survives("phones.toml", 20); }
