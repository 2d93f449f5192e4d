#include <catch2/catch.hpp>
#include <covey/simulation/simulate.hpp>
#include <string>
#include <vector>

#include "simulation/devices/device_models.hpp"
#include "simulation/feasibility.hpp"

using namespace covey;
using simulation::Experiment;

// Data that are generated when a device trains, devices that hold none, and deadlines nobody can
// keep.
namespace {

const std::string kRunFile = R"(
[run]
seed = 9
num-rounds = 5
[data]
source = "synthetic"
[partition]
scheme = "natural"
clients = 30
[selection]
fraction-fit = 0.3
)";

Result<Experiment> load(const std::vector<std::string>& overrides) {
  const auto config = parse_run_text(kRunFile, "run.toml", overrides);
  INFO((config.ok() ? "" : config.error().message));
  REQUIRE(config.ok());
  return simulation::load_experiment(*config, "");
}

Experiment loaded(const std::vector<std::string>& overrides) {
  auto experiment = load(overrides);
  INFO((experiment.ok() ? "" : experiment.error().message));
  REQUIRE(experiment.ok());
  return std::move(*experiment);
}

std::string refusal(const std::vector<std::string>& overrides) {
  const auto experiment = load(overrides);
  return experiment.ok() ? "(no error)" : experiment.error().message;
}

simulation::SimulationResult run(const Experiment& experiment, unsigned threads = 1) {
  const auto registry = simulation::load_registry(experiment.config);
  REQUIRE(registry.ok());
  simulation::SimulationOptions options;
  options.threads = threads;
  auto result = simulation::simulate(experiment, *registry, options);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  return std::move(*result);
}

bool said(const Experiment& experiment, const std::string& what) {
  for (const std::string& notice : experiment.notices) {
    if (notice.find(what) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a run is the same whether its data are kept or generated when needed") {
  for (const std::string batch : {"10", "0"}) {  // 0: all of a device's examples
    const std::vector<std::string> kept = {"data.on-demand=never", "client.batch-size=" + batch};
    const std::vector<std::string> generated = {"data.on-demand=always",
                                                "client.batch-size=" + batch};
    const Experiment in_memory = loaded(kept);
    const Experiment on_demand = loaded(generated);
    CHECK(in_memory.shards.size() == 30);
    CHECK(on_demand.shards.empty());
    CHECK(on_demand.population() == 30);
    CHECK(on_demand.largest_num_examples() == in_memory.largest_num_examples());
    const auto a = run(in_memory);
    const auto b = run(on_demand, 3);
    CHECK(a.model.digest() == b.model.digest());
    // All thirty devices are among those whose held-out examples are the test set.
    CHECK(a.rounds.back().accuracy == b.rounds.back().accuracy);
    CHECK(a.fairness.devices == b.fairness.devices);
    CHECK(a.fairness.worst10 == b.fairness.worst10);
  }
}

TEST_CASE("a large fleet's data are generated on demand, and that is said") {
  CHECK_FALSE(loaded({}).generated.has_value());
  const Experiment large = loaded(
      {"partition.clients=1000000", "data.max-examples=100", "selection.fraction-fit=0.001"});
  REQUIRE(large.generated.has_value());
  CHECK(large.population() == 1'000'000);
  CHECK(large.tested_devices().size() == Experiment::kTestedDevices);
  CHECK(large.data.train.empty());
  CHECK_FALSE(large.data.test.empty());
  CHECK(said(large, "the first 1000 devices"));
  Experiment::Scratch scratch;
  const auto examples = large.training_examples(ClientId{987'654}, scratch);
  CHECK(examples.indices.size() == large.num_examples(ClientId{987'654}));
  CHECK(examples.data->size() == examples.indices.size());
}

TEST_CASE("few devices with very many examples are generated on demand too") {
  const Experiment experiment =
      loaded({"partition.clients=400", "data.size-mean=10", "data.size-spread=0"});
  CHECK(experiment.generated.has_value());                      // 400 times 22,076
  CHECK(experiment.tested_devices().size() == 250'000 / 4415);  // a fifth of each is held out
  CHECK(experiment.data.test.size() <= Experiment::kTestedExamples);
}

TEST_CASE("on-demand is refused where data cannot be generated") {
  const auto config =
      parse_run_text("[data]\nsource = \"mnist\"\non-demand = \"always\"\n", "run.toml", {});
  REQUIRE_FALSE(config.ok());
  CHECK_THAT(config.error().message, Catch::Contains("run.toml:3: data.on-demand") &&
                                         Catch::Contains("data.source = \"synthetic\""));
}

TEST_CASE("devices without examples are said, and the rounds go on without them") {
  const std::vector<std::string> sparse = {"partition.scheme=dirichlet",
                                           "partition.concentration=0.01", "partition.clients=60"};
  CHECK_THAT(refusal(sparse), Catch::Contains("partition.empty"));
  auto kept = sparse;
  kept.push_back("partition.empty=keep");
  const Experiment experiment = loaded(kept);
  REQUIRE(experiment.empty_devices > 0);
  CHECK(experiment.population_with_data() == 60 - experiment.empty_devices);
  CHECK(said(experiment, std::to_string(experiment.empty_devices) + " of 60 devices have no"));
  const auto result = run(experiment);
  CHECK(result.committed == 5);
  for (const RoundMetrics& round : result.rounds) {
    CHECK(round.accepted == round.selected);  // nobody was drawn that has nothing to train on
  }
  auto moved = sparse;
  moved.push_back("partition.empty=move");
  const Experiment filled = loaded(moved);
  CHECK(filled.empty_devices == 0);
  CHECK(filled.notices.empty());
}

TEST_CASE("more devices a round than hold examples are refused") {
  const std::vector<std::string> sparse = {"partition.scheme=dirichlet",
                                           "partition.concentration=0.01", "partition.clients=60",
                                           "partition.empty=keep", "selection.min-fit-clients=60"};
  CHECK_THAT(refusal(sparse), Catch::Contains("selection.min-fit-clients = 60: the partition has") &&
                                  Catch::Contains("that hold training examples"));
}

TEST_CASE("more devices a round than are registered are refused, also where data are generated") {
  CHECK_THAT(refusal({"partition.clients=100000", "selection.min-available-clients=100001",
                      "data.max-examples=60"}),
             Catch::Contains("selection.min-available-clients = 100001: the partition has 100000"));
}

TEST_CASE("a deadline that no device can keep is refused with the time that the fastest takes") {
  // 610 weights: 2440 bytes each way at 1 Mbit/s are 19.5 ms each, four latencies of 20 ms are 80
  // ms.
  const std::vector<std::string> slow = {"data.max-examples=50", "fleet.up-mbit-s=1",
                                         "fleet.down-mbit-s=1", "fleet.gflops=1e-6"};
  const Experiment experiment = loaded(slow);
  const auto models = simulation::DeviceModels::make(experiment.config, "", 30);
  REQUIRE(models.ok());
  const double training =
      40 * experiment.training_flops_per_example() / 1e3;  // 50 less 20% for tests
  CHECK(simulation::shortest_round_s(experiment, *models, ClientId{0}) ==
        Approx(training + 0.08 + 2 * 2440 * 8 / 1e6));
  auto strict = slow;
  strict.push_back("selection.round-deadline-s=30");
  const Experiment impossible = loaded(strict);
  const auto registry = simulation::load_registry(impossible.config);
  const auto refused = simulation::simulate(impossible, *registry, {});
  REQUIRE_FALSE(refused.ok());
  CHECK_THAT(refused.error().message,
             Catch::Contains("selection.round-deadline-s = 30: no device can train and transfer"));
  strict.back() = "selection.round-deadline-s=" + std::to_string(training + 1);
  CHECK(simulation::check_deadline(loaded(strict), *models).ok());
}

TEST_CASE("a deadline for one epoch will do where partial work is accepted") {
  std::vector<std::string> run_keys = {"data.max-examples=50", "client.local-epochs=20",
                                       "fleet.gflops=1e-6", "selection.round-deadline-s=200"};
  const auto possible = [&] {
    const Experiment experiment = loaded(run_keys);
    const auto models = simulation::DeviceModels::make(experiment.config, "", 30);
    return simulation::check_deadline(experiment, *models).ok();
  };
  CHECK_FALSE(possible());  // 20 epochs of 40 examples take 40 times 3.6 s and more
  run_keys.push_back("client.accept-partial-work=true");
  CHECK(possible());
}
