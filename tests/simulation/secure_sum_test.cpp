// Secure aggregation through the simulator: the deployed state machines, virtual devices that vanish in any
// step, and after every round the unmasked sum held against the sum of what the devices put in.

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <covey/simulation/simulate.hpp>
#include <string>
#include <vector>

using namespace covey;

namespace {

const std::string kRunFile = R"(
[run]
name = "secure"
seed = 11
num-rounds = 3
eval-every = 1000
[data]
source = "synthetic"
size-spread = 0.5
max-examples = 20
[partition]
scheme = "natural"
clients = 12
[client]
learning-rate = 0.05
[selection]
fraction-fit = 1.0
quorum = 0.3
[secure-aggregation]
mode = "honest-but-curious"
max-weight = 64
)";

Result<simulation::SimulationResult> try_run(const std::vector<std::string>& overrides,
                                             bool check_sums = true,
                                             const std::string& text = kRunFile) {
  COVEY_ASSIGN(const auto config, parse_run_text(text, "test.toml", overrides));
  COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto experiment, simulation::load_experiment(config, ""));
  simulation::SimulationOptions options;
  options.check_sums = check_sums;
  return simulation::simulate(experiment, registry, options);
}

simulation::SimulationResult run(const std::vector<std::string>& overrides) {
  auto result = try_run(overrides);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  return std::move(*result);
}

double largest_difference(const SharedBytes& a, const SharedBytes& b) {
  std::vector<float> x(a.size() / 4), y(b.size() / 4);
  REQUIRE(x.size() == y.size());
  REQUIRE(decode_fp32(a.span(), x).ok());
  REQUIRE(decode_fp32(b.span(), y).ok());
  double largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(x[i]) - static_cast<double>(y[i])));
  }
  return largest;
}

std::string model_of(const std::vector<std::string>& overrides) {
  return run(overrides).model.digest().hex();
}

}  // namespace

TEST_CASE("a secure round learns what a plain one does, within the fixed point's resolution") {
  const auto strategy = GENERATE(std::string("fedavg"), std::string("fedprox"), std::string("qfedavg"));
  const auto threat = GENERATE(std::string("honest-but-curious"), std::string("malicious-server"));
  CAPTURE(strategy, threat);
  // q-FedAvg's weights are F_k^q / learning rate: below 100 for losses below 5.
  const std::string weight = strategy == "qfedavg" ? "secure-aggregation.max-weight=400"
                                                   : "secure-aggregation.max-weight=20";
  const auto secure = run({"strategy.name=" + strategy, weight, "secure-aggregation.bits=24",
                           "secure-aggregation.mode=" + threat});
  const auto plain = try_run({"strategy.name=" + strategy, "secure-aggregation.mode=off"}, true,
                             kRunFile.substr(0, kRunFile.find("[secure-aggregation]")));
  INFO((plain.ok() ? "" : plain.error().message));
  REQUIRE(plain.ok());
  // 24 bits over [-1, 1]: a quantum of 2^-23 a device, times max-weight over the mean weight.
  CHECK(largest_difference(secure.model, plain->model) < 1e-4);
  for (std::size_t i = 0; i < secure.rounds.size(); ++i) {
    const RoundMetrics& metrics = secure.rounds[i];
    CHECK(metrics.secure);
    CHECK(metrics.masked == 12);
    CHECK(metrics.recovered == 0);
    CHECK(metrics.clipped_coordinates == 0);
    CHECK(metrics.examples == plain->rounds[i].examples);
    CHECK(metrics.train_steps == plain->rounds[i].train_steps);
    CHECK(metrics.train_loss == Approx(plain->rounds[i].train_loss).epsilon(1e-3));
  }
}

TEST_CASE("sums are exact whoever vanishes in whichever step, over many schedules") {
  // COVEY_SCHEDULES=1000 makes two thousand runs of three rounds, in some minutes.
  const char* wanted = std::getenv("COVEY_SCHEDULES");
  const std::uint64_t seeds = wanted == nullptr ? 60 : std::strtoull(wanted, nullptr, 10);
  std::uint32_t schedules = 0, committed = 0, recovered = 0, abandoned = 0;
  for (const std::string threat : {"honest-but-curious", "malicious-server"}) {
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
      RandomStream random(seed, RandomPurpose::kLoadTest);
      const auto clients = 2 + random.below(threat == "malicious-server" ? 14 : 30);
      const double dropout = 0.3 * random.uniform();
      const auto bits = 2 + random.below(23);
      CAPTURE(threat, seed, clients, dropout, bits);
      auto result = try_run({fmt::format("run.seed={}", seed), fmt::format("partition.clients={}", clients),
                             fmt::format("fleet.dropout={}", dropout), "fleet.dropout-at=any",
                             fmt::format("secure-aggregation.bits={}", bits), "secure-aggregation.mode=" + threat,
                             "secure-aggregation.dropout=0.3", "secure-aggregation.corruption=0.02",
                             "fleet.latency-ms=[1, 400]", fmt::format("fleet.codec={}", seed % 2 == 0)});
      if (!result.ok()) {
        INFO(result.error().message);
        REQUIRE(result.error().message.find("abandoned") != std::string::npos);
        continue;
      }
      for (const RoundMetrics& metrics : result->rounds) {
        ++schedules;
        committed += metrics.committed ? 1 : 0;
        abandoned += metrics.committed ? 0 : 1;
        recovered += metrics.recovered;
      }
    }
  }
  // Each round was checked by the simulator. Of 6 a seed that were wanted:
  CHECK(committed > 5 * seeds);
  CHECK(recovered > seeds);
  CHECK(abandoned > 0);
  WARN(fmt::format("{} rounds, {} committed, {} abandoned, {} devices recovered", schedules, committed,
                   abandoned, recovered));
}

TEST_CASE("a secure run repeats by its seed, over any network and through the codec") {
  const auto threat = GENERATE(std::string("honest-but-curious"), std::string("malicious-server"));
  const std::vector<std::string> base = {"secure-aggregation.mode=" + threat};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), base.begin(), base.end());
    return more;
  };
  const std::string model = model_of(base);
  CHECK(model_of(with({"fleet.codec=true"})) == model);
  CHECK(model_of(with({"fleet.up-mbit-s=0.5", "fleet.latency-ms=[1, 300]",
                       "server.chunk-bytes=1024"})) == model);
  CHECK(model_of(with({"run.seed=12"})) != model);
}

TEST_CASE("masks do not enter the result: cipher, graph and threat model give the same model") {
  const std::string model = model_of({});
  CHECK(model_of({"secure-aggregation.cipher=chacha20"}) == model);
  CHECK(model_of({"secure-aggregation.graph=complete"}) == model);
  CHECK(model_of({"secure-aggregation.mode=malicious-server"}) == model);
}

TEST_CASE("what fixed point cuts off is counted, never silent") {
  const auto result = run({"secure-aggregation.clip=0.0001", "secure-aggregation.max-weight=5"});
  for (const RoundMetrics& metrics : result.rounds) {
    CHECK(metrics.clipped_coordinates > 100);
    CHECK(metrics.clipped_weights == 12);
  }
}

TEST_CASE("a strategy that must see each update is refused under secure aggregation at start") {
  const auto result = try_run({"strategy.name=fedmedian"});
  REQUIRE_FALSE(result.ok());
  CHECK_THAT(result.error().message,
             Catch::Contains("fedmedian") && Catch::Contains("secure aggregation"));
}

TEST_CASE("differential privacy spends its budget, tells so in every round, and stops at it") {
  const auto mechanism = GENERATE(std::string("central-gaussian"), std::string("discrete-gaussian"),
                                  std::string("skellam"), std::string("local-gaussian"),
                                  std::string("dp-ftrl"));
  CAPTURE(mechanism);
  const bool distributed = mechanism == "discrete-gaussian" || mechanism == "skellam";
  std::vector<std::string> overrides = {
      "run.num-rounds=40", "privacy.mechanism=" + mechanism, "privacy.noise-multiplier=2",
      mechanism == "dp-ftrl" ? "privacy.epsilon=4.5" : "privacy.epsilon=6",
      "privacy.delta=0.001", "privacy.clip-norm=0.5",
      "privacy.amplification=false",
      std::string("privacy.accountant=") + (mechanism == "central-gaussian" || mechanism == "local-gaussian" ? "pld" : "rdp")};
  if (distributed) overrides.insert(overrides.end(), {"secure-aggregation.rotation=true", "secure-aggregation.clip=0.5"});
  if (mechanism == "dp-ftrl") {
    overrides.insert(overrides.end(), {"privacy.max-participations=5", "selection.fraction-fit=0.09",
                                       "selection.min-fit-clients=1"});
  }
  std::string text = kRunFile;
  text.erase(text.find("max-weight"), 15);
  if (!distributed) text.erase(text.find("[secure-aggregation]"));
  const auto result = try_run(overrides, true, text);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  CHECK(result->committed < 40);
  CHECK(result->committed >= 1);
  double before = 0;
  for (const RoundMetrics& metrics : result->rounds) {
    REQUIRE(metrics.epsilon);
    CHECK(*metrics.epsilon >= before);
    CHECK(*metrics.epsilon <= 6);
    CHECK(metrics.private_figures);
    CHECK(metrics.examples == 0);
    before = *metrics.epsilon;
  }
}
