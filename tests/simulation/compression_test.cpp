// Compressed updates through the simulator: the deployed trainer, coordinator and pipeline.

#include <catch2/catch.hpp>
#include <covey/compression/compressor.hpp>
#include <covey/simulation/simulate.hpp>
#include <string>
#include <vector>

using namespace covey;

namespace {

const std::string kRunFile = R"(
[run]
name = "compression"
seed = 5
num-rounds = 4
[data]
source = "synthetic"
[partition]
scheme = "natural"
clients = 12
[client]
learning-rate = 0.05
[selection]
fraction-fit = 0.5
)";

Result<simulation::SimulationResult> try_run(const std::vector<std::string>& overrides,
                                             unsigned threads = 2, bool check_sums = false) {
  COVEY_ASSIGN(const auto config, parse_run_text(kRunFile, "test.toml", overrides));
  COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto experiment, simulation::load_experiment(config, ""));
  simulation::SimulationOptions options;
  options.threads = threads;
  options.check_sums = check_sums;
  return simulation::simulate(experiment, registry, options);
}

simulation::SimulationResult run(const std::vector<std::string>& overrides, unsigned threads = 2,
                                 bool check_sums = false) {
  auto result = try_run(overrides, threads, check_sums);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  return std::move(*result);
}

/// Logistic regression 60 -> 10.
compression::SizeRange sizes_of(const std::string& name) {
  ModelLayout layout;
  layout.append("dense1.weight", {60, 10});
  layout.append("dense1.bias", {10});
  return compression::make_compressor(parse_compressor(name).value(), layout).value()->sizes();
}

const std::vector<std::string> kSecure = {"secure-aggregation.mode=honest-but-curious",
                                          "secure-aggregation.max-weight=1000"};

std::vector<std::string> operator+(std::vector<std::string> all, const std::string& more) {
  all.push_back(more);
  return all;
}

}  // namespace

TEST_CASE("what goes up is what the compressor made of it, and what comes down stays whole") {
  for (const std::string name : {"fp16", "int4", "int2", "sign", "drive", "eden-1", "eden-3",
                                 "top-k:0.05", "random-k:0.1", "rate-distortion", "int8+zstd"}) {
    CAPTURE(name);
    const auto sizes = sizes_of(name);
    const auto result = run({"client.compressor=" + name});
    for (const RoundMetrics& metrics : result.rounds) {
      CHECK(metrics.accepted == 6);
      CHECK(metrics.bytes_up >= 6 * sizes.min);
      CHECK(metrics.bytes_up <= 6 * sizes.max);
      CHECK(metrics.bytes_down == 6 * 4 * 610);
    }
    CHECK(result.bytes_up < 4 * 6 * 4 * 610);
  }
}

TEST_CASE("compression changes nothing about how results depend on threads or messages") {
  for (const std::string name : {"eden-1", "top-k:0.05", "eden-2+error-feedback"}) {
    CAPTURE(name);
    const auto one = run({"client.compressor=" + name}, 1).model.digest();
    CHECK(run({"client.compressor=" + name}, 3).model.digest() == one);
    CHECK(run({"client.compressor=" + name, "fleet.codec=true"}).model.digest() == one);
  }
}

TEST_CASE("error feedback reaches the devices' later updates") {
  const std::vector<std::string> all{"selection.fraction-fit=1"};
  const auto with = run(all + std::string("client.compressor=eden-1+error-feedback"));
  const auto without = run(all + std::string("client.compressor=eden-1"));
  CHECK(with.model.digest() != without.model.digest());
  // A hundredth of the values in each round: without what was left out before, a run over many
  // rounds would leave most of the model where it began.
  const std::vector<std::string> many{"selection.fraction-fit=1", "run.num-rounds=60"};
  const double sparse = *run(many + std::string("client.compressor=top-k:0.01")).rounds.back().loss;
  const double exact = *run(many).rounds.back().loss;
  const double start = *run({"run.num-rounds=1", "client.learning-rate=1e-6"}).rounds.back().loss;
  CHECK(sparse < exact + 0.5 * (start - exact));
}

TEST_CASE("of several compressors simulated devices take the first") {
  const auto first = run({"client.compressor=[\"eden-1\", \"int8\", \"fp32\"]"});
  CHECK(first.model.digest() == run({"client.compressor=eden-1"}).model.digest());
}

TEST_CASE("compression goes with asynchronous rounds and with strategies that see each update") {
  const std::vector<std::string> asynchronous{"strategy.name=fedbuff", "asynchronous.buffer=3",
                                              "fleet.gflops=[0.0001, 0.002]"};
  CHECK(run(asynchronous + std::string("client.compressor=top-k:0.1")).rounds.size() == 4);
  const auto robust = try_run({"strategy.name=fedmedian", "client.compressor=eden-2"});
  INFO((robust.ok() ? "" : robust.error().message));
  CHECK(robust.ok());
}

TEST_CASE("in a secure sum few bits and few coordinates make few bytes, and the sum is checked") {
  const auto plain = run(kSecure, 2, true);
  for (const std::string name : {"int8", "int4", "int2", "eden-1", "eden-4+error-feedback",
                                 "random-k:0.25", "random-k:0.25+error-feedback"}) {
    CAPTURE(name);
    const auto few = run(kSecure + ("client.compressor=" + name), 2, true);
    CHECK(few.rounds.size() == 4);
    CHECK(few.bytes_up < plain.bytes_up);
    CHECK(run(kSecure + ("client.compressor=" + name), 3).model.digest() == few.model.digest());
  }
}

TEST_CASE("the range of few bits finds the size of the updates") {
  // About 105 examples each. At 64 updates drown in the noise of rounding, at 0.001 they are cut
  // off.
  const std::vector<std::string> alike{"run.num-rounds=30", "data.size-spread=0"};
  const double exact = *run(alike).rounds.back().loss;
  for (const std::string clip : {"64", "0.001"}) {
    CAPTURE(clip);
    const auto secure = alike + std::string("secure-aggregation.mode=honest-but-curious") +
                        std::string("secure-aggregation.max-weight=110") +
                        ("secure-aggregation.clip=" + clip);
    const auto adapted = run(secure + std::string("client.compressor=int4"));
    const auto fixed = run(secure + std::string("secure-aggregation.bits=4"));
    CHECK(*adapted.rounds.back().loss < exact + 0.3);
    CHECK(*fixed.rounds.back().loss > exact + 1);
  }
}

TEST_CASE("a server that dies and starts again goes on with the range that it had told devices") {
  const std::vector<std::string> alike{"run.num-rounds=30", "data.size-spread=0"};
  const double exact = *run(alike).rounds.back().loss;
  const auto result =
      run(alike + std::string("secure-aggregation.mode=honest-but-curious") +
              std::string("secure-aggregation.max-weight=110") +
              std::string("secure-aggregation.clip=64") + std::string("client.compressor=eden-4") +
              std::string("faults.seed=3") + std::string("faults.server-crash=0.003"),
          2, true);
  CHECK(result.faults.server_crashes > 3);
  CHECK(*result.rounds.back().loss < exact + 0.3);
}
