#include <catch2/catch.hpp>
#include <covey/simulation/simulate.hpp>
#include <map>
#include <set>
#include <string>

using namespace covey;

namespace {

/// Twelve devices of Synthetic(1,1), six of them a round.
const std::string kRunFile = R"(
[run]
name = "test"
seed = 11
num-rounds = 8
[data]
source = "synthetic"
size-spread = 0.5
[partition]
scheme = "natural"
clients = 12
[client]
learning-rate = 0.05
[selection]
fraction-fit = 0.5
)";

simulation::SimulationResult run(const std::vector<std::string>& overrides, unsigned threads = 1,
                                 const std::atomic<bool>* stop = nullptr) {
  const auto config = parse_run_text(kRunFile, "test.toml", overrides);
  INFO((config.ok() ? "" : config.error().message));
  REQUIRE(config.ok());
  const auto registry = simulation::load_registry(*config);
  REQUIRE(registry.ok());
  const auto experiment = simulation::load_experiment(*config, "");
  REQUIRE(experiment.ok());
  simulation::SimulationOptions options;
  options.threads = threads;
  options.stop = stop;
  auto result = simulation::simulate(*experiment, *registry, options);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  return std::move(*result);
}

std::string model_of(const std::vector<std::string>& overrides, unsigned threads = 1) {
  return run(overrides, threads).model.digest().hex();
}

}  // namespace

TEST_CASE("the same seed gives the same model bits with 1, 2 and 4 threads") {
  for (const std::string strategy : {"fedavg", "qfedavg", "fedmedian"}) {
    INFO(strategy);
    const std::vector<std::string> overrides = {"strategy.name=" + strategy};
    const std::string one = model_of(overrides, 1);
    CHECK(model_of(overrides, 2) == one);
    CHECK(model_of(overrides, 4) == one);
    CHECK(model_of({"strategy.name=" + strategy, "run.seed=12"}) != one);
  }
}

TEST_CASE("the network's speed and the wire codec change when things arrive, not what is learnt") {
  const std::string plain = model_of({});
  CHECK(model_of({"fleet.codec=true"}) == plain);
  CHECK(model_of({"fleet.up-mbit-s=0.5", "fleet.down-mbit-s=[1, 4]",
                  "fleet.latency-ms=[1, 300]"}) == plain);
  CHECK(model_of({"fleet.gflops=[0.001, 0.1]", "server.chunk-bytes=1024", "fleet.up-mbit-s=1"}) ==
        plain);
}

TEST_CASE("every precision learns, with the same bits for any threads, network and codec") {
  const auto precision = GENERATE(std::string("bf16"), std::string("qat-int8"), std::string("int8"));
  CAPTURE(precision);
  const std::vector<std::string> overrides = {"client.precision=" + precision, "run.num-rounds=30",
                                              "client.local-epochs=3"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), overrides.begin(), overrides.end());
    return more;
  };
  const auto result = run(overrides);
  const std::string model = result.model.digest().hex();
  // The server keeps fp32; qat-int8 has two ranges of activations more.
  CHECK(result.model.size() == (precision == "qat-int8" ? 612 : 610) * 4);
  REQUIRE(result.rounds.back().accuracy);
  CHECK(*result.rounds.back().accuracy > 0.4);  // ten classes
  CHECK(model_of(overrides, 4) == model);
  CHECK(model_of(with({"fleet.codec=true"}), 2) == model);
  CHECK(model_of(with({"fleet.up-mbit-s=0.5", "fleet.latency-ms=[1, 300]",
                       "server.chunk-bytes=1024"})) == model);
  CHECK(model_of(with({"strategy.name=fedprox", "strategy.proximal-mu=1.0"})) != model);
}

TEST_CASE("what travels is as large as its encoding, and the metrics say so") {
  // Logistic regression 60 -> 10: 600 weights and 10 biases, a scale for each of 10 classes.
  const std::size_t fp32 = 4 * 610, bf16 = 2 * 610, int8 = 10 * 4 + 600 + 10 * 4;
  struct Case {
    std::vector<std::string> overrides;
    std::size_t down, up;
  };
  const std::vector<Case> cases{
      {{}, fp32, fp32},
      {{"client.compressor=bf16"}, fp32, bf16},
      {{"client.compressor=int8"}, fp32, int8},
      {{"client.precision=int8"}, int8, int8},
  };
  for (const Case& c : cases) {
    CAPTURE(c.overrides);
    for (const RoundMetrics& metrics : run(c.overrides).rounds) {
      CHECK(metrics.bytes_down == 6 * c.down);
      CHECK(metrics.bytes_up == 6 * c.up);
    }
  }
}

TEST_CASE("updates rounded to bf16 or int8 are nearly as good as exact ones") {
  const std::vector<std::string> long_run = {"run.num-rounds=40", "client.local-epochs=5"};
  const double exact = *run(long_run).rounds.back().loss;
  for (const std::string compressor : {"bf16", "int8"}) {
    INFO(compressor);
    auto overrides = long_run;
    overrides.push_back("client.compressor=" + compressor);
    CHECK(*run(overrides).rounds.back().loss == Approx(exact).epsilon(0.1));
    CHECK(model_of(overrides, 3) == model_of(overrides, 1));
  }
}

TEST_CASE("what int8 training cannot do is refused before the first round") {
  const auto refusal = [](const std::vector<std::string>& overrides) {
    const auto config = parse_run_text(kRunFile, "test.toml", overrides);
    REQUIRE(config.ok());
    const auto experiment = simulation::load_experiment(*config, "");
    return experiment.ok() ? std::string() : experiment.error().message;
  };
  CHECK(refusal({"client.precision=int8"}).empty());
  CHECK_THAT(refusal({"client.precision=int8", "client.optimizer=adam"}),
             Catch::Contains("int8") && Catch::Contains("adam"));
}

TEST_CASE("virtual time counts latency, transfer and computing") {
  const double fast = run({}).virtual_s;
  // 8 rounds, each at least a model of 610 floats up at 10 kbit/s: 4*610*8/10,000 = 1.95 s.
  const double slow = run({"fleet.up-mbit-s=0.01"}).virtual_s;
  CHECK(slow - fast > 8 * 1.95);
  CHECK(slow - fast < 8 * 2.5);
}

TEST_CASE("a model learns: accuracy rises well above chance") {
  const auto result = run({"run.num-rounds=40", "client.local-epochs=5"});
  REQUIRE(result.rounds.size() == 40);
  REQUIRE(result.rounds.back().accuracy);
  CHECK(*result.rounds.back().accuracy > 0.5);  // ten classes
  CHECK(*result.rounds.back().loss < *result.rounds.front().loss);
}

TEST_CASE("each round counts each selected device once") {
  const auto result = run({});
  CHECK(result.committed == 8);
  for (const RoundMetrics& metrics : result.rounds) {
    CHECK(metrics.committed);
    CHECK(metrics.selected == 6);
    CHECK(metrics.accepted == 6);
    CHECK(metrics.rejected == 0);
    CHECK(metrics.dropped == 0);
  }
}

TEST_CASE("devices that drop out leave the quorum to commit, and are counted") {
  const auto result = run({"fleet.dropout=0.3", "selection.quorum=0.3", "run.num-rounds=20"});
  CHECK(result.committed == 20);
  std::uint32_t dropped = 0;
  for (const RoundMetrics& metrics : result.rounds) {
    dropped += metrics.dropped;
    CHECK(metrics.accepted + metrics.dropped == metrics.selected);
    if (metrics.committed) CHECK(metrics.accepted >= 2);  // ceil(0.3 * 6)
  }
  CHECK(dropped > 10);  // expected 0.3 * 6 * 20 = 36
  CHECK(dropped < 70);
}

TEST_CASE("over-selection closes a round at its goal") {
  const auto result = run({"selection.over-selection=1.5", "fleet.gflops=[0.001, 1]"});
  for (const RoundMetrics& metrics : result.rounds) {
    CHECK(metrics.selected == 9);
    CHECK(metrics.accepted >= 6);
  }
}

TEST_CASE("stragglers report partial work only where it is accepted") {
  const std::vector<std::string> base = {"fleet.stragglers=0.9", "client.local-epochs=10",
                                         "selection.quorum=0.1", "run.num-rounds=10"};
  auto keep = base;
  keep.push_back("client.accept-partial-work=true");
  std::uint32_t kept = 0, dropped = 0, rounds = 0;
  for (const auto& metrics : run(keep).rounds) kept += metrics.accepted;
  CHECK(kept == 60);
  for (const auto& metrics : run(base).rounds) {
    dropped += metrics.dropped;
    ++rounds;
  }
  CHECK(dropped > rounds * 4);  // expected 5.4 of 6
}

TEST_CASE("a set stop flag ends the run with what was learnt so far") {
  const std::atomic<bool> stop{true};
  const auto result = run({}, 2, &stop);
  CHECK_FALSE(result.finished);
  CHECK(result.committed == 0);
  CHECK(result.model.size() == 610 * 4);
}

TEST_CASE("a round that can never commit ends the run with the reason") {
  const auto config = parse_run_text(kRunFile, "test.toml", {"fleet.dropout=1.0"});
  REQUIRE(config.ok());
  const auto registry = simulation::load_registry(*config);
  const auto experiment = simulation::load_experiment(*config, "");
  REQUIRE(experiment.ok());
  const auto result = simulation::simulate(*experiment, *registry, {});
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().message.find("round 1 was abandoned 1000 times") != std::string::npos);
}

TEST_CASE("more clients than the partition has are refused by name") {
  const auto config = parse_run_text(kRunFile, "test.toml", {"selection.min-fit-clients=13"});
  REQUIRE_FALSE(config.ok());
  CHECK(config.error().message.find("13 cannot be selected from 12 clients") != std::string::npos);
}
