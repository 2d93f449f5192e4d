#include <catch2/catch.hpp>
#include <cmath>
#include <covey/privacy/fixed_point.hpp>
#include <cstring>
#include <set>
#include <vector>

using namespace covey;
using namespace covey::privacy;

namespace {

constexpr std::uint64_t kSeed = 20261121;
constexpr std::size_t kDimension = 1000;

SecureAggregationPlan plan_of(double subsample, std::uint32_t bits = 16, bool rotation = false) {
  SecureAggregationPlan plan;
  plan.threat_model = ThreatModel::kHonestButCurious;
  plan.bits = bits;
  plan.clip = 4;
  plan.max_weight = 2;
  plan.max_devices = 8;
  plan.rotation = rotation;
  plan.subsample = subsample;
  return plan;
}

SumFormat format_of(const SecureAggregationPlan& plan) {
  return SumFormat::make(plan, {}, kDimension, 1).value();
}

std::vector<float> update_of(std::uint64_t client) {
  RandomStream random(kSeed, RandomPurpose::kFault, RoundNumber{1}, ClientId{client});
  std::vector<float> update(kDimension);
  for (float& value : update) value = static_cast<float>(random.normal());
  return update;
}

std::vector<std::byte> contribution(const SumFormat& format, std::span<const float> update,
                                    double weight, const ContributionDraw& draw) {
  const auto secrets = seeded_secrets(kSeed, draw.round, draw.client);
  return encode_contribution(format, update, weight, std::vector<double>{1.5}, draw, *secrets)
      .value()
      .packed;
}

DecodedSum sum_of(const SumFormat& format, RoundNumber round) {
  std::vector<std::uint64_t> sum(format.packed.words());
  for (std::uint64_t client = 1; client <= 3; ++client) {
    const ContributionDraw draw{kSeed, round, ClientId{client}};
    add_packed(format.packed, contribution(format, update_of(client), 2, draw), sum);
  }
  return decode_sum(format, sum, 3, kSeed, round).value();
}

std::vector<double> exact_sum() {  // of min(weight, W) * update = 2 * update
  std::vector<double> exact(kDimension);
  for (std::uint64_t client = 1; client <= 3; ++client) {
    const auto update = update_of(client);
    for (std::size_t i = 0; i < kDimension; ++i) exact[i] += 2.0 * update[i];
  }
  return exact;
}

}  // namespace

TEST_CASE("a sum of a tenth of the coordinates holds that many, scaled up by ten, and zeros") {
  CAPTURE(kSeed);
  const SumFormat format = format_of(plan_of(0.1));
  CHECK(format.summed == 100);
  CHECK(format.bytes() < format_of(plan_of(1)).bytes());
  const DecodedSum sum = sum_of(format, RoundNumber{1});
  const auto exact = exact_sum();
  std::size_t summed = 0;
  for (std::size_t i = 0; i < kDimension; ++i) {
    if (sum.vector[i] == 0) continue;
    ++summed;
    // Three devices round by less than a quantum each, times W, times 10.
    CHECK(std::abs(sum.vector[i] - 10 * exact[i]) < 10 * 3 * 2 * format.quantum);
  }
  CHECK(summed >= 99);  // 0 is a coordinate's sum once in 10^4
  CHECK(sum.scalars == std::vector<double>{4.5});
}

TEST_CASE("over the rounds every coordinate gets its turn, and their mean is the sum itself") {
  CAPTURE(kSeed);
  const SumFormat format = format_of(plan_of(0.25));
  constexpr std::uint32_t kRounds = 400;
  const auto exact = exact_sum();
  std::vector<double> mean(kDimension);
  for (std::uint32_t round = 1; round <= kRounds; ++round) {
    const DecodedSum sum = sum_of(format, RoundNumber{round});
    for (std::size_t i = 0; i < kDimension; ++i) mean[i] += sum.vector[i] / kRounds;
  }
  for (std::size_t i = 0; i < kDimension; ++i) {
    // Binomial: standard deviation |x| sqrt((1 - p) / (p n)) = 0.087 |x|; six of them.
    CHECK(std::abs(mean[i] - exact[i]) < 0.52 * std::abs(exact[i]) + 0.01);
  }
}

TEST_CASE("behind the rotation a share of the coordinates says a little of each parameter") {
  CAPTURE(kSeed);
  const SumFormat format = format_of(plan_of(0.5, 16, true));
  const DecodedSum sum = sum_of(format, RoundNumber{1});
  const auto exact = exact_sum();
  double error = 0, norm = 0;
  std::size_t zeros = 0;
  for (std::size_t i = 0; i < kDimension; ++i) {
    error += (sum.vector[i] - exact[i]) * (sum.vector[i] - exact[i]);
    norm += exact[i] * exact[i];
    zeros += sum.vector[i] == 0 ? 1 : 0;
  }
  CHECK(zeros < 10);
  CHECK(error / norm == Approx(1).epsilon(0.2));  // 1 / share - 1
}

TEST_CASE("with error feedback a contribution and what it lost make up the update") {
  CAPTURE(kSeed);
  SumFormat format =
      format_of(plan_of(GENERATE(1.0, 0.3), GENERATE(2u, 4u), GENERATE(false, true)));
  format.least_error = true;
  const auto update = update_of(1);
  const ContributionDraw draw{kSeed, RoundNumber{3}, ClientId{1}};
  const double weight = GENERATE(0.5, 2.0, 7.0);  // counts as 2 at most
  CAPTURE(format.plan.subsample, format.plan.bits, format.plan.rotation, weight);
  const auto packed = contribution(format, update, weight, draw);
  const auto said = decode_contribution(format, packed, draw);
  REQUIRE(said.ok());
  double lost = 0, norm = 0;
  for (std::size_t i = 0; i < kDimension; ++i) {
    const double error = update[i] - (*said)[i] / std::min(weight, 2.0);
    lost += error * error;
    norm += static_cast<double>(update[i]) * update[i];
  }
  CHECK(lost <=
        norm * (1 + 1e-6));  // so that errors do not add up without end (Karimireddy et al. 2019)
  // It is what the server reads from a sum of it alone.
  std::vector<std::uint64_t> words(format.packed.words());
  std::memcpy(words.data(), packed.data(), packed.size());
  CHECK(decode_sum(format, words, 1, kSeed, draw.round)->vector == *said);
}

TEST_CASE("bytes that are no contribution are refused") {
  const SumFormat format = format_of(plan_of(1));
  const std::vector<std::byte> bytes(format.bytes() - 1);
  CHECK_FALSE(decode_contribution(format, bytes, {kSeed, RoundNumber{1}, ClientId{1}}).ok());
}

TEST_CASE("a share of the coordinates is refused where it makes no sense") {
  for (const double share : {0.0, -0.5, 1.5, std::nan("")}) {
    CHECK_FALSE(SumFormat::make(plan_of(share), {}, kDimension, 0).ok());
  }
  PrivacyPlan privacy;
  privacy.clip = ClipKind::kFlat;
  privacy.clip_norm = 1;
  const auto noised = SumFormat::make(plan_of(0.5), privacy, kDimension, 0);
  REQUIRE_FALSE(noised.ok());
  CHECK_THAT(noised.error().message, Catch::Contains("differential privacy"));
  CHECK(SumFormat::make(plan_of(1e-9), {}, kDimension, 0)->summed == 1);
}
