#pragma once

#include <catch2/catch.hpp>
#include <covey/privacy/private_release.hpp>
#include <string>
#include <utility>

/// Runs with differential privacy, for tests to change one key of.
namespace covey::privacy {

/// 1000 devices of which 100 are drawn, 100 rounds of central noise in R^8, without amplification.
inline PrivateRelease::Run plain_run() {
  PrivateRelease::Run run;
  run.config.mechanism = "central-gaussian";
  run.config.noise_multiplier = 2;
  run.config.delta = 1e-5;
  run.config.clip_norm = 0.5;
  run.config.amplification = false;
  run.selection.fraction_fit = 0.1;
  run.num_rounds = 100;
  run.population = 1000;
  run.dimension = 8;
  run.strategy = "fedavg";
  return run;
}

inline PrivateRelease::Run distributed_run(const std::string& mechanism) {
  PrivateRelease::Run run = plain_run();
  run.config.mechanism = mechanism;
  run.config.accountant = "rdp";
  run.secure_aggregation.threat_model = ThreatModel::kHonestButCurious;
  run.secure_aggregation.corruption = 0.1;
  run.selection.quorum = 0.8;
  return run;
}

/// Each device in at most 10 rounds, which is what 100 rounds of 100 of them take.
inline PrivateRelease::Run tree_run() {
  PrivateRelease::Run run = plain_run();
  run.config.mechanism = "dp-ftrl";
  run.config.max_participations = 10;
  return run;
}

inline PrivateRelease make(const PrivateRelease::Run& run) {
  auto made = PrivateRelease::make(run);
  if (!made.ok()) FAIL(made.error().message);
  REQUIRE(made->has_value());
  return std::move(**made);
}

inline std::string refusal(const PrivateRelease::Run& run) {
  const auto made = PrivateRelease::make(run);
  if (made.ok()) return "accepted";
  CHECK(made.error().code == ErrorCode::kInvalidArgument);
  return made.error().message;
}

template <typename Change>
std::string refusal_with(PrivateRelease::Run run, const Change& change) {
  change(run);
  return refusal(run);
}

inline bool says(const std::string& sentence, const std::string& part) {
  INFO(sentence);
  CHECK(sentence.find(part) != std::string::npos);
  return sentence.find(part) != std::string::npos;
}

}  // namespace covey::privacy
