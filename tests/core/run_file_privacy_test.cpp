#include <catch2/catch.hpp>
#include <covey/run_config.hpp>
#include <string>
#include <utility>
#include <vector>

namespace covey {
namespace {

RunConfig parsed(const std::string& text, const std::vector<std::string>& overrides = {}) {
  auto config = parse_run_text(text, "run.toml", overrides);
  if (!config.ok()) FAIL(config.error().message);
  return std::move(config).value();
}

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const auto config = parse_run_text(text, "run.toml", overrides);
  if (config.ok()) return "(no error)";
  CHECK(config.error().code == ErrorCode::kInvalidArgument);
  return config.error().message;
}

// Every key of the two tables away from its default, but max-weight, which goes without [privacy].
constexpr const char* kBoth = R"([selection]
policy = "poisson"
[secure-aggregation]
mode = "malicious-server"
cipher = "chacha20"
graph = "complete"
bits = 20
clip = 0.25
rotation = true
dropout = 0.3
corruption = 0.125
[privacy]
mechanism = "skellam"
noise-multiplier = 1.5
epsilon = 4
delta = 1e-6
clip = "adaptive"
clip-norm = 0.75
target-quantile = 0.8
clip-learning-rate = 0.1
accountant = "rdp"
amplification = false
[fleet]
dropout-at = "unmasking"
)";

constexpr const char* kSecure = R"([secure-aggregation]
mode = "honest-but-curious"
max-weight = 600
)";

void check_both(const RunConfig& config) {
  CHECK(config.selection.policy == "poisson");
  const SecureAggregationConfig& sum = config.secure_aggregation;
  CHECK(sum.mode == "malicious-server");
  CHECK(sum.cipher == "chacha20");
  CHECK(sum.graph == "complete");
  CHECK(sum.bits == 20);
  CHECK(sum.clip == 0.25);
  CHECK(sum.max_weight == 0);
  CHECK(sum.rotation);
  CHECK(sum.dropout == 0.3);
  CHECK(sum.corruption == 0.125);
  const PrivacyConfig& privacy = config.privacy;
  CHECK(privacy.mechanism == "skellam");
  CHECK(privacy.noise_multiplier == 1.5);
  CHECK(privacy.epsilon == 4);
  CHECK(privacy.delta == 1e-6);
  CHECK(privacy.clip == "adaptive");
  CHECK(privacy.clip_norm == 0.75);
  CHECK(privacy.target_quantile == 0.8);
  CHECK(privacy.clip_learning_rate == 0.1);
  CHECK(privacy.accountant == "rdp");
  CHECK_FALSE(privacy.amplification);
  CHECK(config.fleet.dropout_at == "unmasking");
}

}  // namespace

TEST_CASE("every key of secure aggregation and privacy reaches its member and is written again") {
  check_both(parsed(kBoth));
  const std::string text = to_toml(parsed(kBoth));
  check_both(parsed(text));
  CHECK(to_toml(parsed(text)) == text);
  CHECK(parsed(to_toml(parsed(kSecure))).secure_aggregation.max_weight == 600);
}

TEST_CASE("a run file without privacy is written with the two switches alone") {
  const std::string text = to_toml(RunConfig{});
  CHECK_THAT(text, Catch::Contains("[secure-aggregation]\nmode = \"off\"\n\n[privacy]\n"
                                   "mechanism = \"none\"\n\n[fleet]\n"));
}

TEST_CASE("every choice of secure aggregation and privacy is taken") {
  for (const char* mechanism :
       {"central-gaussian", "local-gaussian", "discrete-gaussian", "skellam", "dp-ftrl"}) {
    const std::string text =
        std::string("[privacy]\nmechanism = \"") + mechanism + "\"\nclip = \"per-layer\"\n";
    CHECK(parsed(text).privacy.mechanism == mechanism);
  }
  for (const char* accountant : {"pld", "rdp", "zcdp"}) {
    CHECK(parsed("[privacy]\nmechanism = \"dp-ftrl\"\n",
                 {"privacy.accountant=" + std::string(accountant)})
              .privacy.accountant == accountant);
  }
  for (const char* step : {"training", "sharing", "masking", "unmasking", "any"}) {
    CHECK(parsed(kSecure, {"fleet.dropout-at=" + std::string(step)}).fleet.dropout_at == step);
  }
  for (const char* cipher : {"aes-128-ctr", "chacha20"}) {
    CHECK(parsed(kSecure, {"secure-aggregation.cipher=" + std::string(cipher)})
              .secure_aggregation.cipher == cipher);
  }
}

TEST_CASE("choices of privacy that do not exist are refused with those that do") {
  CHECK(error_of("[secure-aggregation]\nmode = \"on\"\n") ==
        "run.toml:2: secure-aggregation.mode: \"on\" is not one of off, honest-but-curious, "
        "malicious-server");
  CHECK(error_of("[privacy]\nmechanism = \"gaussian\"\n") ==
        "run.toml:2: privacy.mechanism: \"gaussian\" is not one of none, central-gaussian, "
        "local-gaussian, discrete-gaussian, skellam, dp-ftrl");
  CHECK(error_of(kSecure, {"secure-aggregation.graph=ring"}) ==
        "--set secure-aggregation.graph=ring: secure-aggregation.graph: \"ring\" is not one of "
        "auto, complete");
  CHECK_THAT(error_of("[selection]\npolicy = \"all\"\n"),
             Catch::Contains("uniform, by-examples, poisson"));
  CHECK_THAT(error_of("[fleet]\ndropout-at = \"start\"\n"),
             Catch::Contains("training, sharing, masking, unmasking, any"));
  CHECK_THAT(error_of("[privacy]\naccountant = \"moments\"\n"), Catch::Contains("pld, rdp, zcdp"));
  CHECK_THAT(error_of("[privacy]\nclip = \"none\"\n"),
             Catch::Contains("flat, per-layer, adaptive"));
}

TEST_CASE("unknown keys of privacy are refused with the nearest known one") {
  CHECK(error_of("[privacy]\nepsilo = 1\n") ==
        "run.toml:2: privacy.epsilo: unknown key; did you mean privacy.epsilon?");
  CHECK(error_of("[secure-aggregation]\nbit = 1\n") ==
        "run.toml:2: secure-aggregation.bit: unknown key; did you mean secure-aggregation.bits?");
  CHECK(error_of("[secure_aggregation]\nbits = 8\n") ==
        "run.toml:1: secure_aggregation: unknown table; did you mean [secure-aggregation]?");
}

TEST_CASE("numbers of secure aggregation are refused outside of their range") {
  const auto out_of_range = [](const std::string& assignment) {
    const std::string text = error_of(kSecure, {"secure-aggregation." + assignment});
    return text.find("is out of range") != std::string::npos;
  };
  CHECK_FALSE(out_of_range("bits=2"));
  CHECK_FALSE(out_of_range("bits=24"));
  CHECK(out_of_range("bits=1"));
  CHECK(out_of_range("bits=25"));
  CHECK(out_of_range("clip=0"));
  CHECK(out_of_range("clip=-1"));
  CHECK(out_of_range("max-weight=0"));
  CHECK_FALSE(out_of_range("dropout=0"));
  CHECK(out_of_range("dropout=1"));
  CHECK(out_of_range("dropout=-0.1"));
  CHECK(out_of_range("corruption=1"));
  CHECK_FALSE(out_of_range("corruption=0.33"));
}

TEST_CASE("numbers of differential privacy are refused outside of their range") {
  const std::string base = "[privacy]\nmechanism = \"central-gaussian\"\nclip = \"adaptive\"\n";
  const auto out_of_range = [&](const std::string& assignment) {
    const std::string text = error_of(base, {"privacy." + assignment});
    return text.find("is out of range") != std::string::npos;
  };
  CHECK_FALSE(out_of_range("noise-multiplier=0"));
  CHECK(out_of_range("noise-multiplier=-1"));
  CHECK_FALSE(out_of_range("epsilon=0"));
  CHECK(out_of_range("epsilon=-1"));
  CHECK(out_of_range("delta=0"));
  CHECK(out_of_range("delta=1"));
  CHECK(out_of_range("clip-norm=0"));
  CHECK(out_of_range("target-quantile=0"));
  CHECK(out_of_range("target-quantile=1"));
  CHECK(out_of_range("clip-learning-rate=0"));
  CHECK(out_of_range("clip-learning-rate=11"));
}

TEST_CASE("a key of secure aggregation says nothing while it is off") {
  for (const char* assignment :
       {"cipher=chacha20", "graph=complete", "bits=8", "clip=2", "max-weight=3", "rotation=true",
        "dropout=0.2", "corruption=0.2"}) {
    CHECK_THAT(error_of("", {"secure-aggregation." + std::string(assignment)}),
               Catch::Contains(": says nothing without secure-aggregation.mode = "
                               "\"honest-but-curious\" or \"malicious-server\""));
  }
  CHECK(error_of("[secure-aggregation]\nmode = \"off\"\nbits = 16\n") ==
        "run.toml:3: secure-aggregation.bits: says nothing without secure-aggregation.mode = "
        "\"honest-but-curious\" or \"malicious-server\"");
}

TEST_CASE("a key of privacy says nothing without a mechanism") {
  for (const char* assignment :
       {"noise-multiplier=1", "epsilon=2", "delta=1e-6", "clip=flat", "clip-norm=1",
        "target-quantile=0.4", "clip-learning-rate=0.1", "accountant=rdp", "amplification=false"}) {
    CHECK_THAT(error_of("", {"privacy." + std::string(assignment)}),
               Catch::Contains(": says nothing without a privacy.mechanism"));
  }
}

TEST_CASE("the keys of adaptive clipping say nothing with another clip") {
  const std::string text = "[privacy]\nmechanism = \"central-gaussian\"\n";
  for (const char* assignment : {"privacy.target-quantile=0.4", "privacy.clip-learning-rate=0.1"}) {
    CHECK_THAT(error_of(text, {assignment}),
               Catch::Contains(": says nothing without privacy.clip = \"adaptive\""));
    CHECK(error_of(text, {assignment, "privacy.clip=adaptive"}) == "(no error)");
  }
}

TEST_CASE("devices drop out in a step of a secure sum only where there is one") {
  CHECK_THAT(error_of("[fleet]\ndropout-at = \"masking\"\n"),
             Catch::StartsWith("run.toml:2: fleet.dropout-at: says nothing without "
                               "secure-aggregation.mode"));
  CHECK(error_of("[fleet]\ndropout-at = \"training\"\n") == "(no error)");
}

TEST_CASE("secure aggregation asks for the largest weight, but not under differential privacy") {
  const std::string mode = "[secure-aggregation]\nmode = \"honest-but-curious\"\n";
  CHECK(error_of(mode) ==
        "run.toml: secure-aggregation.max-weight: is missing: the largest weight of an update, "
        "e.g. the most examples a device has (fedavg, fedprox); a heavier update counts as this");
  const std::string noised = mode + "[privacy]\nmechanism = \"skellam\"\n";
  CHECK(error_of(noised) == "(no error)");
  CHECK_THAT(error_of(noised, {"secure-aggregation.max-weight=5"}),
             Catch::Contains("every update weighs the same"));
}

TEST_CASE("only what adds up is masked, and nothing is compressed after it was made private") {
  CHECK(error_of(std::string("[client]\ncompressor = \"top-k:0.1\"\n") + kSecure) ==
        "run.toml:2: client.compressor: \"top-k:0.1\" encodes each device's update in a way of its "
        "own, so masked updates would not add up; those that add up are \"int8\", \"int4\", "
        "\"int2\", \"eden-1\" to \"eden-4\" and \"random-k:SHARE\" (or \"auto\" with "
        "secure-aggregation.bits)");
  for (const char* compressor : {"auto", "fp32"}) {
    for (const char* precision : {"fp32", "bf16", "qat-int8"}) {
      CHECK(error_of(kSecure, {"client.compressor=" + std::string(compressor),
                               "client.precision=" + std::string(precision)}) == "(no error)");
    }
  }
  CHECK_THAT(error_of(kSecure, {"client.precision=int8"}),
             Catch::Contains("client.precision: \"int8\" makes updates in int8") &&
                 Catch::Contains("secure aggregation needs them in floating point"));
  for (const std::string mechanism : {"dp-ftrl", "local-gaussian", "central-gaussian"}) {
    CHECK_THAT(error_of("[privacy]\nmechanism = \"" + mechanism + "\"\n", {"client.compressor=bf16"}),
               Catch::Contains("client.compressor: \"bf16\" rounds an update after it was clipped"));
  }
}

TEST_CASE("what masks or a Poisson draw leave without a meaning is refused") {
  CHECK_THAT(error_of(kSecure, {"selection.max-update-norm=3"}),
             Catch::Contains("selection.max-update-norm"));
  for (const char* key : {"selection.over-selection=1.5", "selection.min-fit-clients=4"}) {
    CHECK_THAT(error_of("[selection]\npolicy = \"poisson\"\n", {key}), Catch::Contains("poisson"));
  }
}

TEST_CASE("the plan of secure aggregation is the run file's") {
  CHECK(secure_aggregation_plan_of(RunConfig{}, 100).value() == SecureAggregationPlan{});
  const auto plan = secure_aggregation_plan_of(parsed(kBoth), 100);
  REQUIRE(plan.ok());
  CHECK(*plan == SecureAggregationPlan{.threat_model = ThreatModel::kMaliciousServer,
                                       .cipher = MaskCipher::kChaCha20,
                                       .complete_graph = true,
                                       .bits = 20,
                                       .clip = 0.25,
                                       .max_weight = 1,  // under differential privacy
                                       .rotation = true,
                                       .max_devices = 100,
                                       .dropout = 0.3,
                                       .corruption = 0.125});
  const auto honest = secure_aggregation_plan_of(parsed(kSecure), 7);
  REQUIRE(honest.ok());
  CHECK(*honest == SecureAggregationPlan{.threat_model = ThreatModel::kHonestButCurious,
                                         .max_weight = 600,
                                         .max_devices = 7});
}

TEST_CASE("a configuration made without a run file is refused a plan by the key's name") {
  RunConfig config;
  config.secure_aggregation.mode = "honest-but-curious";
  const auto missing = secure_aggregation_plan_of(config, 10);
  REQUIRE_FALSE(missing.ok());
  CHECK_THAT(missing.error().message,
             Catch::StartsWith("secure-aggregation.max-weight: is missing"));
  config.secure_aggregation.max_weight = 3;
  config.client.compressors = {"bf16"};
  const auto compressed = secure_aggregation_plan_of(config, 10);
  REQUIRE_FALSE(compressed.ok());
  CHECK(compressed.error().code == ErrorCode::kInvalidArgument);
  CHECK_THAT(compressed.error().message, Catch::StartsWith("client.compressor: \"bf16\""));
}

}  // namespace covey
