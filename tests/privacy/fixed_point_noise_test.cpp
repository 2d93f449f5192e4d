// Distributed differential privacy: contributions with noise on the lattice.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/privacy/fixed_point.hpp>
#include <covey/random.hpp>
#include <vector>

#include "mechanisms/fixed_point_layout.hpp"

using namespace covey;
using namespace covey::privacy;

namespace {

struct Setting {
  std::uint32_t bits = 16;
  std::uint32_t devices = 10;
  double clip = 1;
  double clip_norm = 1;
  DeviceNoise noise = DeviceNoise::kDiscreteGaussian;
  double lattice_stddev = 1;
  std::size_t dimension = 100;
  std::size_t num_scalars = 0;
  bool rotation = false;
};

SumFormat format_of(const Setting& setting) {
  SecureAggregationPlan plan;
  plan.bits = setting.bits;
  plan.clip = setting.clip;
  plan.max_devices = setting.devices;
  plan.rotation = setting.rotation;
  const double quantum = setting.clip / static_cast<double>(offset_of(plan));
  const PrivacyPlan privacy{ClipKind::kFlat, setting.clip_norm, setting.noise,
                            setting.lattice_stddev * quantum};
  auto format = SumFormat::make(plan, privacy, setting.dimension, setting.num_scalars);
  if (!format.ok()) FAIL(format.error().message);
  return *format;
}

std::vector<float> normal_vector(RandomStream& random, std::size_t size, double norm) {
  std::vector<float> values(size);
  double squares = 0;
  for (float& x : values) {
    x = static_cast<float>(random.normal());
    squares += static_cast<double>(x) * x;
  }
  for (float& x : values) x = static_cast<float>(x * norm / std::sqrt(squares));
  return values;
}

void add(const SumFormat& format, const std::vector<float>& update, std::uint64_t seed,
         std::uint64_t client, std::span<const double> scalars, std::vector<std::uint64_t>& words) {
  const auto secrets = seeded_secrets(seed, RoundNumber{1}, ClientId{client});
  const auto encoded = encode_contribution(format, update, 1, scalars,
                                           {seed, RoundNumber{1}, ClientId{client}}, *secrets);
  if (!encoded.ok()) FAIL(encoded.error().message);
  add_packed(format.packed, encoded->packed, words);
}

// One contribution's lattice point, centred. The noise of 2^-10 steps is never drawn as anything
// but 0: P(other) = 2 e^(-2^19).
std::vector<std::int64_t> lattice_point(const SumFormat& format, const std::vector<float>& update,
                                        std::uint64_t seed) {
  std::vector<std::uint64_t> words(format.packed.words());
  add(format, update, seed, 1, {}, words);
  std::vector<std::int64_t> point(format.packed.coordinates);
  unpack(format.packed, words, point);
  for (auto& x : point) x -= offset_of(format.plan);
  return point;
}

double squared_norm(const std::vector<std::int64_t>& point) {
  double sum = 0;
  for (const auto x : point) sum += static_cast<double>(x * x);
  return sum;
}

}  // namespace

TEST_CASE("the largest norm behind rounding is that of Kairouz, Liu and Steinke") {
  // gamma = .01, c = 1, d = 4096, beta = e^-1/2: c / gamma = 100, sqrt(d) = 64;
  // min(164^2, 10000 + 1024 + 100 + 32) = 11156.
  Setting setting;
  setting.bits = 8;
  setting.clip = 1.27;  // 127 steps of .01
  setting.dimension = 4096;
  CHECK(largest_squared_norm(format_of(setting)) == Approx(11156));
}

TEST_CASE("no contribution exceeds the norm that its privacy is counted with") {
  const std::uint64_t seed = GENERATE(range(1, 80));
  CAPTURE(seed);
  RandomStream random(seed, RandomPurpose::kTraining);
  Setting setting;
  setting.lattice_stddev = 0x1p-10;
  setting.dimension = 1 + random.below(random.below(4) == 0 ? 20000 : 300);
  setting.bits = static_cast<std::uint32_t>(2 + random.below(17));
  setting.clip_norm = std::exp(random.uniform(-3, 3));
  setting.clip = setting.clip_norm * std::exp(random.uniform(-3, 0.5));
  setting.rotation = random.below(2) == 1;
  const auto format = format_of(setting);
  // Some are sent without being clipped before.
  const double norm = setting.clip_norm * (random.below(2) == 0 ? 1 : 20);
  const auto update = normal_vector(random, setting.dimension, norm);
  CAPTURE(setting.dimension, setting.bits, setting.clip, setting.clip_norm, norm);
  CHECK(squared_norm(lattice_point(format, update, seed)) <= largest_squared_norm(format));
}

TEST_CASE("a rounding that is too long is drawn again") {
  // 63 coordinates of half a step, c = 4 steps: a plain rounding's squared norm is Binomial(63,
  // 1/2), and the largest allowed 16 + 63/4 + 4 + sqrt(63)/2 = 39.72, which 2.1% of them exceed:
  // 4,000 do so about 86 times.
  Setting setting;
  setting.bits = 8;
  setting.clip = 127;  // steps of 1
  setting.clip_norm = 4;
  setting.dimension = 63;
  setting.lattice_stddev = 0x1p-10;
  const auto format = format_of(setting);
  CHECK(largest_squared_norm(format) == Approx(39.72).epsilon(1e-4));
  const std::vector<float> update(63, 0.5f);
  bool at_limit = false;
  double mean = 0;
  constexpr int kRounds = 4000;
  for (std::uint64_t seed = 0; seed < kRounds; ++seed) {
    const double squares = squared_norm(lattice_point(format, update, seed));
    REQUIRE(squares <= 39);
    at_limit = at_limit || squares == 39;
    mean += squares / kRounds;
  }
  CHECK(at_limit);
  // Binomial(63, 1/2) given that it is below 40 has mean 31.292 (31.5 without) and deviation 3.75.
  CHECK(std::abs(mean - 31.292) < 3.4 * 3.75 / std::sqrt(kRounds));
}

TEST_CASE("the sum carries every device's noise and no other error") {
  Setting setting;
  setting.noise = GENERATE(DeviceNoise::kDiscreteGaussian, DeviceNoise::kSkellam);
  setting.lattice_stddev = GENERATE(0.7, 20.0, 3000.0);
  setting.rotation = GENERATE(false, true);
  setting.bits = 12;
  setting.dimension = 5000;
  setting.num_scalars = 1;
  const std::uint64_t seed = 17;
  CAPTURE(seed, setting.lattice_stddev, setting.rotation);
  const auto format = format_of(setting);
  RandomStream random(seed, RandomPurpose::kTraining);
  std::vector<std::uint64_t> words(format.packed.words());
  std::vector<double> expected(setting.dimension);
  const std::uint32_t n = 8;
  for (std::uint64_t client = 0; client < n; ++client) {
    const auto update = normal_vector(random, setting.dimension, 0.999);
    const std::vector<double> scalars{client % 2 == 0 ? 0.5 : -0.5};
    add(format, update, seed, client, scalars, words);
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += update[i];
  }
  const auto sum = decode_sum(format, words, n, seed, RoundNumber{1}).value();
  CHECK(sum.scalars[0] == 0);
  double mean = 0;
  double square = 0;
  const auto d = static_cast<double>(setting.dimension);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = (sum.vector[i] - expected[i]) / format.quantum;
    mean += error / d;
    square += error * error / d;
  }
  // Rounding to a step adds between 0 and 1/4 of its square a device (1/6 where fractions are
  // uniform).
  const double variance = n * setting.lattice_stddev * setting.lattice_stddev;
  const double spread = 1 + 6 * std::sqrt(2 / d);
  // At 0.7 steps a discrete Gaussian's variance is .489 for .49.
  CHECK(square > 0.995 * variance / spread);
  CHECK(square < (variance + n / 4.0) * spread);
  CHECK(std::abs(mean) < 6 * std::sqrt((variance + n / 4.0) / d));
}

TEST_CASE("noise far wider than the lattice's clip does not overflow") {
  Setting setting;
  setting.bits = 2;
  setting.devices = 50;
  setting.lattice_stddev = 1000;
  setting.noise = GENERATE(DeviceNoise::kDiscreteGaussian, DeviceNoise::kSkellam);
  setting.dimension = 20000;
  const auto format = format_of(setting);
  std::vector<std::uint64_t> words(format.packed.words());
  const std::vector<float> update(setting.dimension);
  for (std::uint64_t client = 0; client < setting.devices; ++client) {
    add(format, update, 3, client, {}, words);
  }
  const auto sum = decode_sum(format, words, setting.devices, 3, RoundNumber{1}).value();
  const auto [low, high] = std::minmax_element(sum.vector.begin(), sum.vector.end());
  // 20,000 normal variables of standard deviation 7,071 reach about 4 of them on both sides.
  const double stddev = 1000 * std::sqrt(50) * format.quantum;
  CHECK(*low < -3 * stddev);
  CHECK(*low > -6 * stddev);
  CHECK(*high > 3 * stddev);
  CHECK(*high < 6 * stddev);
}

TEST_CASE("what noise cannot have made is an error") {
  Setting setting;
  setting.dimension = 3;
  const auto format = format_of(setting);
  const auto margin = static_cast<std::int64_t>(noise_margin(format));
  const std::int64_t largest = 2 * 2 * offset_of(format.plan);
  const auto decoded = [&](std::vector<std::int64_t> points) {
    std::vector<std::uint64_t> words(format.packed.words());
    pack(format.packed, points, words);
    const auto sum = decode_sum(format, words, 2, 1, RoundNumber{1});
    return sum.ok() ? "accepted" : sum.error().message;
  };
  CHECK(decoded({-margin, 0, largest + margin}) == "accepted");
  CHECK_THAT(decoded({0, largest + margin + 1, 0}), Catch::Contains("coordinate 1"));
}

TEST_CASE("a contribution whose noise could not be drawn is not sent") {
  class Broken final : public SecretSource {
    Result<void> fill(std::span<std::byte>) override { return failed("the generator is broken"); }
  };
  Broken broken;
  Setting setting;
  const auto format = format_of(setting);
  const std::vector<float> update(setting.dimension);
  const auto encoded = encode_contribution(format, update, 1, {}, {}, broken);
  REQUIRE_FALSE(encoded.ok());
  CHECK_THAT(encoded.error().message, Catch::Contains("broken"));
}
