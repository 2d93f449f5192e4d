#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/privacy/fixed_point.hpp>
#include <covey/random.hpp>
#include <limits>
#include <numeric>
#include <vector>

#include "mechanisms/fixed_point_kernels.hpp"

using namespace covey;
using namespace covey::privacy;

namespace {

SecureAggregationPlan plan_of(std::uint32_t bits, std::uint32_t devices, double clip = 1,
                              double max_weight = 1) {
  SecureAggregationPlan plan;
  plan.threat_model = ThreatModel::kHonestButCurious;
  plan.bits = bits;
  plan.clip = clip;
  plan.max_weight = max_weight;
  plan.max_devices = devices;
  return plan;
}

PrivacyPlan noise_of(DeviceNoise noise, double stddev, double clip_norm = 1) {
  return {ClipKind::kFlat, clip_norm, noise, stddev};
}

SumFormat format_of(const SecureAggregationPlan& plan, std::size_t dimension,
                    std::size_t num_scalars = 0, const PrivacyPlan& privacy = {}) {
  auto format = SumFormat::make(plan, privacy, dimension, num_scalars);
  if (!format.ok()) FAIL(format.error().message);
  return *format;
}

std::vector<float> normal_vector(RandomStream& random, std::size_t size, double stddev) {
  std::vector<float> values(size);
  for (float& x : values) x = static_cast<float>(stddev * random.normal());
  return values;
}

FixedPointContribution encode(const SumFormat& format, std::span<const float> update, double weight,
                              std::span<const double> scalars, std::uint64_t seed,
                              std::uint64_t client) {
  const auto secrets = seeded_secrets(seed, RoundNumber{3}, ClientId{client});
  auto encoded = encode_contribution(format, update, weight, scalars,
                                     {seed, RoundNumber{3}, ClientId{client}}, *secrets);
  if (!encoded.ok()) FAIL(encoded.error().message);
  return *std::move(encoded);
}

DecodedSum decode(const SumFormat& format, std::span<const std::uint64_t> words,
                  std::uint32_t count, std::uint64_t seed) {
  auto sum = decode_sum(format, words, count, seed, RoundNumber{3});
  if (!sum.ok()) FAIL(sum.error().message);
  return *std::move(sum);
}

std::string refusal(const SecureAggregationPlan& plan, const PrivacyPlan& privacy = {},
                    std::size_t dimension = 10) {
  const auto format = SumFormat::make(plan, privacy, dimension, 0);
  return format.ok() ? "accepted" : format.error().message;
}

}  // namespace

TEST_CASE("the modulus is the smallest that holds the sum of all devices") {
  // n (2^b - 1) < 2^m: 1 * 3 < 2^2; 3 * 3 < 2^4; 1000 * 65535 < 2^26; 2^24 - 1 < 2^24.
  CHECK(format_of(plan_of(2, 1), 10).packed.sum_bits == 2);
  CHECK(format_of(plan_of(2, 3), 10).packed.sum_bits == 4);
  CHECK(format_of(plan_of(16, 1000), 10).packed.sum_bits == 26);
  CHECK(format_of(plan_of(24, 1), 10).packed.sum_bits == 24);
  // A device less than a power of two has the room of that power: 256 * 255 < 2^16 <= 258 * 255.
  CHECK(format_of(plan_of(8, 257), 10).packed.sum_bits == 16);
  CHECK(format_of(plan_of(8, 258), 10).packed.sum_bits == 17);
}

TEST_CASE("a lattice step is 2 C / (2^b - 2)") {
  CHECK(format_of(plan_of(2, 5, 3), 4).quantum == 3);
  CHECK(format_of(plan_of(8, 5, 2), 4).quantum == Approx(4.0 / 254));
  CHECK(format_of(plan_of(24, 5, 1), 4).quantum == Approx(2.0 / 16777214));
}

TEST_CASE("settings that make no sense are refused with their value") {
  CHECK_THAT(refusal(plan_of(1, 5)), Catch::Contains("1 bits"));
  CHECK_THAT(refusal(plan_of(25, 5)), Catch::Contains("25 bits"));
  CHECK_THAT(refusal(plan_of(16, 0)), Catch::Contains("at most 0 devices"));
  CHECK_THAT(refusal(plan_of(16, 1u << 20)), Catch::Contains("1048576 devices"));
  CHECK_THAT(refusal(plan_of(16, 5, 0)), Catch::Contains("clips coordinates to 0"));
  CHECK_THAT(refusal(plan_of(16, 5, -1)), Catch::Contains("clips coordinates to -1"));
  CHECK_THAT(refusal(plan_of(16, 5, std::numeric_limits<double>::infinity())),
             Catch::Contains("clips coordinates to inf"));
  CHECK_THAT(refusal(plan_of(16, 5, std::nan(""))), Catch::Contains("clips coordinates to nan"));
  CHECK_THAT(refusal(plan_of(16, 5, std::numeric_limits<double>::denorm_min())),
             Catch::Contains("too little"));
  CHECK_THAT(refusal(plan_of(16, 5, 1, 0)), Catch::Contains("largest weight"));
  CHECK_THAT(refusal(plan_of(16, 5, 1, std::nan(""))), Catch::Contains("largest weight"));
  CHECK_THAT(refusal(plan_of(16, 5), {}, 0), Catch::Contains("without a coordinate"));
}

TEST_CASE("under differential privacy no largest weight is needed") {
  CHECK(refusal(plan_of(16, 5, 1, 0), noise_of(DeviceNoise::kNone, 0)) == "accepted");
}

TEST_CASE("noise that the lattice cannot carry is refused") {
  const auto plan = plan_of(16, 100);
  const double quantum = format_of(plan, 10).quantum;
  CHECK_THAT(refusal(plan, noise_of(DeviceNoise::kSkellam, 0)), Catch::Contains("lattice"));
  CHECK_THAT(refusal(plan, noise_of(DeviceNoise::kDiscreteGaussian, quantum * 0x1p-11)),
             Catch::Contains("lattice"));
  CHECK_THAT(refusal(plan, noise_of(DeviceNoise::kSkellam, quantum * 0x1p21)),
             Catch::Contains("lattice"));
  CHECK_THAT(refusal(plan, noise_of(DeviceNoise::kDiscreteGaussian, std::nan(""))),
             Catch::Contains("lattice"));
  CHECK_THAT(refusal(plan, noise_of(DeviceNoise::kDiscreteGaussian, quantum * 0x1p41)),
             Catch::Contains("lattice"));
  CHECK(refusal(plan_of(24, (1u << 20) - 1), noise_of(DeviceNoise::kDiscreteGaussian, 0x1p16)) ==
        "accepted");
  CHECK_THAT(refusal(plan, noise_of(DeviceNoise::kSkellam, quantum, 0)), Catch::Contains("norm"));
  CHECK_THAT(refusal(plan, {ClipKind::kNone, 1, DeviceNoise::kSkellam, quantum}),
             Catch::Contains("norm"));
}

TEST_CASE("the modulus has room for noise on both sides of the sum") {
  // d = 10 has 4 binary digits: s = 45 ln 2 = 31.19. Discrete Gaussian of 8 steps, n = 100:
  // M = ceil(8 sqrt(200 s)) = 632, so 2 * 632 + 100 * 15 = 2764 < 2^12.
  const auto plan = plan_of(4, 100);
  const double quantum = format_of(plan, 10).quantum;
  CHECK(format_of(plan, 10).packed.sum_bits == 11);
  CHECK(format_of(plan, 10, 0, noise_of(DeviceNoise::kDiscreteGaussian, 8 * quantum))
            .packed.sum_bits == 12);
  // 40 steps: M = 3160, 2 M + 1500 = 7820 < 2^13.
  CHECK(format_of(plan, 10, 0, noise_of(DeviceNoise::kSkellam, 40 * quantum)).packed.sum_bits ==
        13);
}

TEST_CASE("the generator of rounding draws is Threefry-4x32-13") {
  // Random123's known answers (kat_vectors).
  using Words = std::array<std::uint32_t, 4>;
  CHECK(threefry(Words{}, Words{}) == Words{0x531c7e4f, 0x39491ee5, 0x2c855a92, 0x3d6abf9a});
}

TEST_CASE("every instruction set rounds to the same lattice points") {
  const std::uint64_t seed = 11;
  CAPTURE(seed);
  RandomStream random(seed, RandomPurpose::kTraining);
  const auto values = normal_vector(random, 10 * kRoundingBlock, 0.7);
  Rounding rounding{0.9, 1, 32767, 32767, {1, 2, 3, 4}, {7, 0, 0}};
  const auto kernels = rounding_kernels();
  std::vector<std::int64_t> expected(values.size());
  const auto clipped = kernels.back().round(rounding, values.data(), 5, 10, expected.data());
  CHECK(clipped > 0);
  for (const auto& kernel : kernels) {
    std::vector<std::int64_t> points(values.size());
    INFO(kernel.instruction_set);
    CHECK(kernel.round(rounding, values.data(), 5, 10, points.data()) == clipped);
    CHECK(points == expected);
  }
}

TEST_CASE("rounding has the draws that its counter names") {
  // Value 1/4 between lattice points goes up where the draw is in the top quarter.
  std::vector<float> values(kRoundingBlock, 0.25f);
  std::vector<std::int64_t> points(kRoundingBlock);
  const Rounding rounding{1, 7, 1, 7, {1, 2, 3, 4}, {9, 0, 0}};
  rounding_kernels().front().round(rounding, values.data(), 3, 1, points.data());
  for (std::uint32_t i = 0; i < kRoundingBlock; ++i) {
    const auto draw = threefry({16 * 3 + i % 16, 9, 0, 0}, rounding.key)[i / 16];
    CHECK(points[i] == (draw >= 0xC0000000u ? 8 : 7));
  }
}

TEST_CASE("rounding is unbiased and between the two nearest lattice points") {
  const std::uint64_t seed = GENERATE(1, 2);
  const std::uint32_t bits = GENERATE(2, 5, 16, 24);
  CAPTURE(seed, bits);
  const std::size_t d = 200000;
  const auto format = format_of(plan_of(bits, 4), d);
  RandomStream random(seed, RandomPurpose::kTraining);
  const auto x = static_cast<float>(random.uniform(-0.9, 0.9));
  const std::vector<float> update(d, x);
  const auto encoded = encode(format, update, 1, {}, seed, 5);
  std::vector<std::uint64_t> words(format.packed.words());
  add_packed(format.packed, encoded.packed, words);
  const auto sum = decode(format, words, 1, seed);
  double mean = 0;
  for (const double v : sum.vector) {
    REQUIRE(std::abs(v - x) < format.quantum * (1 + 1e-6));
    mean += v / static_cast<double>(d);
  }
  // The standard deviation of the mean is at most quantum / 2 / sqrt(d): five of them.
  CHECK(std::abs(mean - x) < 5 * format.quantum / 2 / std::sqrt(static_cast<double>(d)));
  CHECK(encoded.clipped == 0);
}

TEST_CASE("lattice points are kept as they are") {
  const auto format = format_of(plan_of(6, 2, 31), 63);  // quantum 1
  std::vector<float> update(63);
  std::iota(update.begin(), update.end(), -31.0f);
  std::vector<std::uint64_t> words(format.packed.words());
  add_packed(format.packed, encode(format, update, 1, {}, 1, 1).packed, words);
  const auto sum = decode(format, words, 1, 1);
  CHECK(std::vector<float>(sum.vector.begin(), sum.vector.end()) == update);
}

TEST_CASE("coordinates beyond the clip are counted and cut") {
  const auto format = format_of(plan_of(16, 2, 0.5), 5);
  const std::vector<float> update{0.5f, -0.5f, std::nextafter(0.5f, 1.0f), -3e38f, 0.1f};
  const auto encoded = encode(format, update, 1, {}, 1, 1);
  CHECK(encoded.clipped == 2);
  std::vector<std::uint64_t> words(format.packed.words());
  add_packed(format.packed, encoded.packed, words);
  const auto sum = decode(format, words, 1, 1);
  CHECK(sum.vector[0] == 0.5);
  CHECK(sum.vector[1] == -0.5);
  CHECK(sum.vector[2] == 0.5);
  CHECK(sum.vector[3] == -0.5);
}

TEST_CASE("a weight above the largest counts as the largest and is reported") {
  const auto format = format_of(plan_of(16, 2, 1, 100), 3);
  const std::vector<float> update{0.5f, -1.0f, 0};
  CHECK_FALSE(encode(format, update, 100, {}, 1, 1).weight_clipped);
  const auto encoded = encode(format, update, 101, {}, 1, 1);
  CHECK(encoded.weight_clipped);
  CHECK(encoded.packed == encode(format, update, 100, {}, 1, 1).packed);
}

TEST_CASE("under differential privacy the weight says nothing") {
  const auto format = format_of(plan_of(16, 2, 1, 100), 3, 0, noise_of(DeviceNoise::kNone, 0));
  const std::vector<float> update{0.5f, -1.0f, 0};
  const auto encoded = encode(format, update, 3, {}, 1, 1);
  CHECK_FALSE(encoded.weight_clipped);
  CHECK(encoded.packed == encode(format, update, 777, {}, 1, 1).packed);
}

TEST_CASE("sums decode to the plain weighted sum within a lattice step each, scalars exactly") {
  const std::uint64_t seed = GENERATE(range(1, 60));
  CAPTURE(seed);
  RandomStream random(seed, RandomPurpose::kTraining);
  const auto n = static_cast<std::uint32_t>(1 + random.below(12));
  const auto bits = static_cast<std::uint32_t>(2 + random.below(23));
  const std::size_t d = 1 + random.below(random.below(3) == 0 ? 9000 : 200);
  const std::size_t num_scalars = random.below(4);
  auto plan = plan_of(bits, n + static_cast<std::uint32_t>(random.below(1000)),
                      std::exp(random.uniform(-8, 8)), std::exp(random.uniform(0, 8)));
  plan.rotation = random.below(2) == 1;
  CAPTURE(n, bits, d, num_scalars, plan.clip, plan.max_weight, plan.rotation);
  const auto format = format_of(plan, d, num_scalars);

  std::vector<std::uint64_t> words(format.packed.words());
  std::vector<double> expected(d);
  std::vector<Catch::Detail::Approx> scalars;
  std::vector<__int128> exact(num_scalars);
  for (std::uint64_t client = 0; client < n; ++client) {
    // A sixth of the clip: the rotation keeps such coordinates below it all but surely.
    auto update = normal_vector(random, d, plan.clip / 6);
    for (float& x : update)
      x = std::clamp(x, static_cast<float>(-plan.clip), static_cast<float>(plan.clip));
    const double weight = random.uniform(0, 1.2 * plan.max_weight);
    std::vector<double> own(num_scalars);
    for (std::size_t i = 0; i < num_scalars; ++i) {
      own[i] = std::ldexp(random.uniform(-1, 1), static_cast<int>(random.below(41)));
      exact[i] += static_cast<__int128>(std::nearbyint(std::ldexp(own[i], 66)));
    }
    const auto encoded = encode(format, update, weight, own, seed, client);
    REQUIRE((plan.rotation || encoded.clipped == 0));
    add_packed(format.packed, encoded.packed, words);
    for (std::size_t i = 0; i < d; ++i)
      expected[i] += std::min(weight, plan.max_weight) * update[i];
  }
  const auto sum = decode(format, words, n, seed);
  // A coordinate of the lattice is off by less than a step a device; the rotation keeps the norm of
  // the error, and single precision adds 2^-20 of the values.
  const double step = format.quantum * plan.max_weight;
  double error = 0;
  double largest = 0;
  for (std::size_t i = 0; i < d; ++i) {
    error += std::pow(sum.vector[i] - expected[i], 2);
    largest = std::max(largest, std::abs(sum.vector[i] - expected[i]));
  }
  const double single = 0x1p-20 * n * plan.clip * plan.max_weight;
  if (!plan.rotation) CHECK(largest < n * step * (1 + 1e-9));
  CHECK(std::sqrt(error) < (n * step + single) * std::sqrt(static_cast<double>(d)));
  for (std::size_t i = 0; i < num_scalars; ++i) {
    CHECK(sum.scalars[i] == std::ldexp(static_cast<double>(exact[i]), -66));
  }
}

TEST_CASE("a full sum of extreme contributions does not overflow") {
  const std::uint32_t n = GENERATE(1, 3, 257, 1000);
  const std::uint32_t bits = GENERATE(2, 3, 16, 24);
  const double sign = GENERATE(1.0, -1.0);
  CAPTURE(n, bits, sign);
  const auto format = format_of(plan_of(bits, n, 1), 70, 2);
  const double extreme = std::nextafter(0x1p40, 0.0);
  const auto encoded = encode(format, std::vector<float>(70, static_cast<float>(2 * sign)), 1,
                              std::vector<double>{extreme, -extreme}, 1, 1);
  CHECK(encoded.clipped == 70);
  std::vector<std::uint64_t> words(format.packed.words());
  for (std::uint32_t i = 0; i < n; ++i) add_packed(format.packed, encoded.packed, words);
  const auto sum = decode(format, words, n, 1);
  for (const double x : sum.vector) CHECK(x == Approx(sign * n).epsilon(1e-12));
  CHECK(sum.scalars[0] == n * extreme);
  CHECK(sum.scalars[1] == -(n * extreme));
}

TEST_CASE("a sum that contributions cannot make is an error that names the place") {
  const auto format = format_of(plan_of(8, 5), 600, 1);
  std::vector<std::int64_t> points(format.packed.coordinates, 3 * 127);
  for (std::size_t i = 600; i < points.size(); ++i) points[i] = 0;
  std::vector<std::uint64_t> words(format.packed.words());
  const auto decoded = [&](std::uint32_t count) {
    pack(format.packed, points, words);
    const auto sum = decode_sum(format, words, count, 1, RoundNumber{1});
    return sum.ok() ? "accepted" : sum.error().message;
  };
  CHECK(decoded(3) == "accepted");
  points[555] = 3 * 254 + 1;
  CHECK_THAT(decoded(3), Catch::Contains("coordinate 555 is 763, outside 0 to 762"));
  points[555] = 0;
  points[601] = 3 * 255 + 1;
  CHECK_THAT(decoded(3), Catch::Contains("digit 1 of scalar 0"));
  // The highest digit of 107 bits has 3 (of 14 digits of 8 bits): three devices' cannot make 25.
  points[601] = 0;
  points[613] = 25;
  CHECK_THAT(decoded(3), Catch::Contains("digit 13 of scalar 0"));
  points[613] = 24;
  CHECK(decoded(3) == "accepted");
  CHECK_THAT(decoded(6), Catch::Contains("room for 5"));
  const auto short_sum = decode_sum(format, std::span(words).first(8), 3, 1, RoundNumber{1});
  CHECK_FALSE(short_sum.ok());
}

TEST_CASE("what cannot enter a sum is refused") {
  const auto format = format_of(plan_of(8, 5), 3, 1);
  const auto secrets = seeded_secrets(1, RoundNumber{1}, ClientId{1});
  const auto refused = [&](std::vector<float> update, double weight, std::vector<double> scalars) {
    const auto encoded = encode_contribution(format, update, weight, scalars, {}, *secrets);
    return encoded.ok() ? "accepted" : encoded.error().message;
  };
  CHECK(refused({1, 2, 3}, 1, {1}) == "accepted");
  CHECK_THAT(refused({1, 2}, 1, {1}), Catch::Contains("2 parameters"));
  CHECK_THAT(refused({1, 2, 3}, 1, {}), Catch::Contains("0 scalars"));
  CHECK_THAT(refused({1, std::nanf(""), 3}, 1, {1}), Catch::Contains("coordinate 1"));
  CHECK_THAT(refused({1, 2, -std::numeric_limits<float>::infinity()}, 1, {1}),
             Catch::Contains("coordinate 2 of the update is -inf"));
  CHECK_THAT(refused({1, 2, 3}, -1, {1}), Catch::Contains("weight -1"));
  CHECK_THAT(refused({1, 2, 3}, std::numeric_limits<double>::infinity(), {1}),
             Catch::Contains("weight inf"));
  CHECK_THAT(refused({1, 2, 3}, 1, {0x1p40}), Catch::Contains("scalar 0"));
  CHECK_THAT(refused({1, 2, 3}, 1, {std::nan("")}), Catch::Contains("scalar 0"));
}

TEST_CASE("equal draws give equal bytes, other rounds and devices give others") {
  const auto format = format_of(plan_of(8, 5), 500);
  const std::vector<float> update(500, 0.123f);
  const auto secrets = seeded_secrets(1, RoundNumber{1}, ClientId{1});
  const auto bytes = [&](const ContributionDraw& draw) {
    return encode_contribution(format, update, 1, {}, draw, *secrets).value().packed;
  };
  const auto first = bytes({1, RoundNumber{1}, ClientId{1}});
  CHECK(first == bytes({1, RoundNumber{1}, ClientId{1}}));
  CHECK(first != bytes({2, RoundNumber{1}, ClientId{1}}));
  CHECK(first != bytes({1, RoundNumber{2}, ClientId{1}}));
  CHECK(first != bytes({1, RoundNumber{1}, ClientId{2}}));
}
