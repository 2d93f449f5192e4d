// How devices come to a round's model: whole, as a difference to one that they kept, or as one that
// follows the server's in compressed steps.

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/simulation/simulate.hpp>
#include <string>
#include <vector>

using namespace covey;

namespace {

using Overrides = std::vector<std::string>;

/// Twelve devices of Synthetic(1,1): a logistic regression of 610 parameters.
const std::string kRunFile = R"(
[run]
name = "test"
seed = 11
num-rounds = 12
[data]
source = "synthetic"
size-spread = 0.5
[partition]
scheme = "natural"
clients = 12
[client]
learning-rate = 0.05
[selection]
fraction-fit = 1.0
)";

constexpr std::uint64_t kDevices = 12;
constexpr std::uint64_t kModel = 4 * 610;

Overrides operator+(Overrides a, const Overrides& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Result<simulation::SimulationResult> try_run(const Overrides& overrides, unsigned threads = 1) {
  COVEY_ASSIGN(const auto config, parse_run_text(kRunFile, "test.toml", overrides));
  COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto experiment, simulation::load_experiment(config, ""));
  simulation::SimulationOptions options;
  options.threads = threads;
  options.check_invariants = true;
  return simulation::simulate(experiment, registry, options);
}

simulation::SimulationResult run(const Overrides& overrides, unsigned threads = 1) {
  CAPTURE(overrides);
  auto result = try_run(overrides, threads);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  return std::move(*result);
}

std::uint64_t bytes_down(const simulation::SimulationResult& result) {
  std::uint64_t bytes = 0;
  for (const RoundMetrics& round : result.rounds) bytes += round.bytes_down;
  return bytes;
}

double accuracy(const simulation::SimulationResult& result) {
  REQUIRE(result.rounds.back().accuracy);
  return *result.rounds.back().accuracy;
}

const Overrides kKeep = {"fleet.keep-model=true"};

}  // namespace

TEST_CASE("devices that keep their model download differences and learn the same bits") {
  const std::string precision = GENERATE("fp32", "bf16", "int8");
  const Overrides overrides = {"client.precision=" + precision};
  const auto whole = run(overrides);
  const auto kept = run(overrides + kKeep);
  CHECK(kept.model.digest() == whole.model.digest());
  CHECK(kept.rounds.front().bytes_down == whole.rounds.front().bytes_down);
  for (std::size_t i = 1; i < kept.rounds.size(); ++i) {
    CHECK(kept.rounds[i].bytes_down * 10 < whole.rounds[i].bytes_down * 9);
  }
}

TEST_CASE("without a history of models every download is whole") {
  const auto kept = run(kKeep + Overrides{"server.model-history=0"});
  CHECK(bytes_down(kept) == 12 * kDevices * kModel);
}

TEST_CASE("a compressed model learns alike, and is downloaded in steps by who was there before") {
  // int8: an encoded update of 12 + 600 + 10 * 4 bytes or so, and 8 that frame it.
  const Overrides overrides = {"server.model-compressor=int8"};
  const auto exact = run({});
  const auto compressed = run(overrides);
  const auto kept = run(overrides + kKeep);
  CHECK(bytes_down(compressed) == 12 * kDevices * kModel);
  CHECK(kept.rounds.front().bytes_down == kDevices * kModel);
  for (std::size_t i = 1; i < kept.rounds.size(); ++i) {
    CHECK(kept.rounds[i].bytes_down < kDevices * (kModel / 4 + 120));
  }
  CHECK(kept.model.digest() == compressed.model.digest());
  CHECK(kept.model.digest() != exact.model.digest());
  CHECK(accuracy(kept) == Approx(accuracy(exact)).margin(0.02));
}

TEST_CASE("a compressed model has the same bits for any threads, network and codec") {
  const Overrides overrides = {"server.model-compressor=eden-2", "selection.fraction-fit=0.5",
                               "fleet.keep-model=true"};
  const auto one = run(overrides);
  CHECK(run(overrides, 4).model.digest() == one.model.digest());
  CHECK(run(overrides + Overrides{"fleet.codec=true"}).model.digest() == one.model.digest());
  CHECK(run(overrides + Overrides{"fleet.down-mbit-s=[1, 4]", "server.chunk-bytes=1024",
                                  "fleet.latency-ms=[1, 300]"})
            .model.digest() == one.model.digest());
  // Half of the devices are there in a round: those who missed some download several steps.
  CHECK(bytes_down(one) < 12 * 6 * kModel / 2);
}

TEST_CASE("compressed models go with secure sums, noise, single updates and stale ones") {
  const auto overrides = GENERATE(
      Overrides{"secure-aggregation.mode=honest-but-curious", "secure-aggregation.max-weight=64"},
      Overrides{"privacy.mechanism=central-gaussian", "privacy.noise-multiplier=0.01",
                "privacy.clip-norm=10", "run.num-rounds=4"},
      Overrides{"strategy.name=fedmedian"},
      Overrides{"strategy.name=fedprox", "strategy.proximal-mu=0.1"},
      Overrides{"strategy.name=qfedavg"},
      Overrides{"asynchronous.buffer=4", "strategy.name=fedbuff", "fleet.gflops=[0.001, 0.1]"},
      Overrides{"asynchronous.buffer=1", "strategy.name=fedasync", "fleet.gflops=[0.001, 0.1]",
                "run.num-rounds=40"});
  CAPTURE(overrides);
  const auto exact = run(overrides);
  const auto compressed =
      run(overrides + Overrides{"server.model-compressor=int8", "fleet.keep-model=true"});
  CHECK(compressed.model.digest() != exact.model.digest());
  CHECK(accuracy(compressed) == Approx(accuracy(exact)).margin(0.05));
  // Asynchronously a device is up to a dozen steps behind: int8 steps are worth it up to three.
  const bool asynchronous = overrides.front().starts_with("asynchronous");
  CHECK((asynchronous ? 1 : 2) * bytes_down(compressed) <= bytes_down(exact));
}

TEST_CASE("servers and devices that crash change nothing of a compressed model's run but bytes") {
  const auto seed = GENERATE(range(1, 6));
  const Overrides overrides = {"server.model-compressor=int4",
                               "fleet.keep-model=true",
                               "faults.seed=" + std::to_string(seed),
                               "faults.server-crash=0.002",
                               "faults.commit-crash=0.2",
                               "faults.device-crash=0.002",
                               "faults.cut=0.01",
                               "faults.until-s=2000",
                               "selection.round-deadline-s=3600",
                               "selection.timeout-s=3600"};
  const auto result = run(overrides);
  CHECK(result.finished);
  CHECK(result.faults.server_crashes > 0);
  const auto calm = run({"server.model-compressor=int4"});
  CHECK(result.model.digest() == calm.model.digest());
}

TEST_CASE("a compressed model that does not go with the run is refused by its key") {
  const auto bf16 = try_run({"server.model-compressor=int8", "client.precision=bf16"});
  REQUIRE_FALSE(bf16.ok());
  CHECK_THAT(bf16.error().message, Catch::Contains("server.model-compressor"));
  const auto both = try_run({"server.model-compressor=int8", "server.model-history=5"});
  REQUIRE_FALSE(both.ok());
  CHECK_THAT(both.error().message, Catch::Contains("server.model-history"));
}
