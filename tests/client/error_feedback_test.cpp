#include <catch2/catch.hpp>
#include <cmath>
#include <covey/compression/compressor.hpp>
#include <covey/privacy/fixed_point.hpp>
#include <covey/privacy/sum_figures.hpp>
#include <cstring>
#include <limits>

#include "training_fixture.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

std::vector<float> floats_of(const SharedBytes& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  REQUIRE(decode_fp32(bytes.span(), values));
  return values;
}

/// As the server reads it.
std::vector<float> decoded(const Fixture& f, const TrainedUpdate& trained) {
  const auto layout = models::Network::make(f.task.plan.model)->layout();
  const auto compressor =
      compression::make_compressor(parse_compressor(f.task.plan.compressor).value(), layout);
  REQUIRE(compressor.ok());
  std::vector<float> values(layout.size());
  REQUIRE((*compressor)
              ->decode(trained.update.span(), {kSeed, f.task.round, f.task.client}, values)
              .ok());
  return values;
}

Fixture secure_fixture() {
  Fixture f;
  SecureAggregationPlan& sum = f.task.plan.secure_aggregation;
  sum.threat_model = ThreatModel::kHonestButCurious;
  sum.bits = 4;
  sum.clip = 0.5;
  sum.max_weight = 50;
  sum.max_devices = 3;
  return f;
}

}  // namespace

TEST_CASE("what a device sends and what it keeps make up its update and what it had kept") {
  CAPTURE(kSeed);
  Fixture f;
  const std::vector<float> exact = reference(f, 3, 0).update;
  f.task.plan.compressor =
      GENERATE(std::string("top-k:0.2"), std::string("sign"), std::string("int2+error-feedback"));
  CAPTURE(f.task.plan.compressor);
  const auto first = f.train();
  REQUIRE(first);
  REQUIRE(first->residual);
  const auto sent = decoded(f, *first);
  const auto kept = floats_of(*first->residual);
  REQUIRE(kept.size() == exact.size());
  for (std::size_t i = 0; i < exact.size(); ++i) CHECK(sent[i] + kept[i] == Approx(exact[i]));

  f.task.residual = *first->residual;
  const auto second = f.train();
  REQUIRE(second);
  REQUIRE(second->residual);
  CHECK(second->digest != first->digest);
  const auto sent_then = decoded(f, *second);
  const auto kept_then = floats_of(*second->residual);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    CHECK(sent_then[i] + kept_then[i] == Approx(exact[i] + kept[i]).margin(1e-7));
  }
}

TEST_CASE("a compressor without error feedback keeps nothing and takes nothing into account") {
  Fixture f;
  f.task.plan.compressor = GENERATE(std::string("fp32"), std::string("int8"), std::string("eden-2"),
                                    std::string("random-k:0.5"));
  CAPTURE(f.task.plan.compressor);
  const auto trained = f.train();
  REQUIRE(trained);
  CHECK_FALSE(trained->residual);
  f.task.residual = encode_fp32(std::vector<float>(f.initial.size(), 3.0f));
  CHECK(f.train()->digest == trained->digest);
}

TEST_CASE("a residual of another length, or with a value that is not finite, is dropped") {
  Fixture f;
  f.task.plan.compressor = "top-k:0.2";
  const auto without = f.train();
  REQUIRE(without);
  std::vector<float> residual(f.initial.size() + 1, 1.0f);
  SECTION("too long") {}
  SECTION("not finite") {
    residual.resize(f.initial.size());
    residual[3] = std::numeric_limits<float>::infinity();
  }
  f.task.residual = encode_fp32(residual);
  const auto with = f.train();
  REQUIRE(with);
  CHECK(with->digest == without->digest);
}

TEST_CASE("error feedback makes a biased compressor send everything in the end") {
  CAPTURE(kSeed);
  // A third of the values each round: what was left out grows until its turn comes, so the sum of
  // what was sent stays within a bounded distance of the sum of the updates (Karimireddy et al.
  // 2019, Lemma 3).
  Fixture f;
  f.task.plan.compressor = "top-k:0.34";
  const std::vector<float> exact = reference(f, 3, 0).update;
  std::vector<double> sum(exact.size());
  double norm = 0, kept_norm = 0;
  for (const float value : exact) norm += static_cast<double>(value) * value;
  constexpr int kRounds = 30;
  for (int round = 0; round < kRounds; ++round) {
    const auto trained = f.train();
    REQUIRE(trained);
    const auto sent = decoded(f, *trained);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += sent[i];
    f.task.residual = *trained->residual;
  }
  double missing = 0;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    missing += std::pow(kRounds * static_cast<double>(exact[i]) - sum[i], 2);
  }
  for (const float value : floats_of(f.task.residual)) kept_norm += std::pow(value, 2);
  CHECK(missing == Approx(kept_norm).epsilon(1e-3));
  // |e|^2 <= 4 (1 - delta) / delta^2 |update|^2 with delta = 0.34.
  CHECK(kept_norm < 4 * 0.66 / (0.34 * 0.34) * norm);
}

TEST_CASE("in a secure sum a device keeps what its own contribution does not say") {
  CAPTURE(kSeed);
  Fixture f = secure_fixture();
  f.task.plan.secure_aggregation.rotation = GENERATE(false, true);
  f.task.plan.secure_aggregation.subsample = GENERATE(1.0, 0.5);
  const std::vector<float> exact = reference(f, 3, 0).update;
  CHECK_FALSE(f.train()->residual);
  f.task.plan.compressor = "int4+error-feedback";
  f.task.residual = encode_fp32(std::vector<float>(f.initial.size(), 0.25f));
  const auto trained = f.train();
  REQUIRE(trained);
  REQUIRE(trained->residual);
  auto format = privacy::SumFormat::make(f.task.plan.secure_aggregation, {}, exact.size(),
                                         privacy::num_sum_scalars({}, 0));
  REQUIRE(format.ok());
  format->least_error = true;
  std::vector<std::uint64_t> words(format->packed.words());
  REQUIRE(trained->update.size() == format->bytes());
  std::memcpy(words.data(), trained->update.data(), trained->update.size());
  const auto sum = privacy::decode_sum(*format, words, 1, kSeed, f.task.round);
  REQUIRE(sum.ok());
  const auto kept = floats_of(*trained->residual);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    // 25 of at most 50 examples: the sum says 25 times the update.
    CHECK(sum->vector[i] / 25 + kept[i] == Approx(exact[i] + 0.25).margin(1e-6));
  }
}

TEST_CASE("a plan of error feedback under differential privacy is refused by the device") {
  Fixture f;
  f.task.plan.compressor = "int8+error-feedback";
  f.task.plan.privacy.clip = ClipKind::kFlat;
  f.task.plan.privacy.clip_norm = 1;
  const auto trained = f.train();
  REQUIRE_FALSE(trained);
  CHECK_THAT(trained.error().message, Catch::Contains("differential privacy"));
}

TEST_CASE("the echo trainer sends as many bytes as any compressor says") {
  const Fixture f;
  TrainingTask task = f.task;
  task.plan.compressor =
      GENERATE(std::string("eden-1"), std::string("top-k:0.1"), std::string("rate-distortion"));
  CAPTURE(task.plan.compressor);
  EchoTrainer trainer;
  const auto trained = trainer.train(task, {});
  REQUIRE(trained);
  const auto compressor =
      compression::make_compressor(parse_compressor(task.plan.compressor).value(),
                                   models::Network::make(task.plan.model)->layout());
  REQUIRE(compressor.ok());
  CHECK((*compressor)->sizes().contains(trained->update.size()));
  CHECK(trained->digest == trained->update.digest());
}
