#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/privacy/samplers.hpp>
#include <covey/random.hpp>
#include <cstring>
#include <functional>
#include <map>
#include <numbers>
#include <vector>

#include "mechanisms/samplers_gaussian.hpp"
#include "mechanisms/samplers_quad.hpp"
#include "mechanisms/samplers_skellam.hpp"

using namespace covey;
using namespace covey::privacy;

namespace {

std::unique_ptr<SecretSource> source(std::uint64_t seed) {
  return seeded_secrets(seed, RoundNumber{1}, ClientId{1});
}

/// Gives words of a list, then fails.
class ScriptedSource final : public SecretSource {
 public:
  explicit ScriptedSource(std::vector<std::uint64_t> words) : words_(std::move(words)) {}
  Result<void> fill(std::span<std::byte> bytes) override {
    if (filled_) return failed("the script is over");
    filled_ = true;
    words_.resize(bytes.size() / 8);
    std::memcpy(bytes.data(), words_.data(), bytes.size());
    return {};
  }

 private:
  std::vector<std::uint64_t> words_;
  bool filled_ = false;
};

/// Fails at its n-th use and ever after.
class FailingSource final : public SecretSource {
 public:
  explicit FailingSource(int good) : good_(good), inner_(source(1)) {}
  Result<void> fill(std::span<std::byte> bytes) override {
    if (good_-- <= 0) return failed("the generator is broken");
    return inner_->fill(bytes);
  }

 private:
  int good_;
  std::unique_ptr<SecretSource> inner_;
};

// Chi-square of draws against probabilities, as standard deviations of a normal variable (Wilson
// and Hilferty 1931). Cells that expect fewer than 10 are merged into the tails.
double chi_square_deviation(const std::vector<std::int64_t>& draws,
                            const std::function<double(std::int64_t)>& probability,
                            std::int64_t low, std::int64_t high) {
  const auto n = static_cast<double>(draws.size());
  while (low < 0 && n * probability(low) < 10) ++low;
  while (high > 0 && n * probability(high) < 10) --high;
  std::map<std::int64_t, double> seen;
  for (const auto x : draws) seen[std::clamp(x, low - 1, high + 1)] += 1;
  double inside = 0;
  double statistic = 0;
  double cells = 0;
  for (auto x = low; x <= high; ++x) {
    const double expected = n * probability(x);
    inside += expected;
    statistic += std::pow(seen[x] - expected, 2) / expected;
    ++cells;
  }
  const double outside = n - inside;
  if (outside > 1) {
    statistic += std::pow(seen[low - 1] + seen[high + 1] - outside, 2) / outside;
    ++cells;
  }
  const double freedom = cells - 1;
  const double spread = 2 / (9 * freedom);
  return (std::cbrt(statistic / freedom) - (1 - spread)) / std::sqrt(spread);
}

std::function<double(std::int64_t)> gaussian_pmf(double sigma) {
  double total = 0;
  const auto weight = [sigma](std::int64_t x) {
    return std::exp(-static_cast<double>(x) * static_cast<double>(x) / (2 * sigma * sigma));
  };
  const auto reach = static_cast<std::int64_t>(40 * sigma) + 40;
  for (std::int64_t x = -reach; x <= reach; ++x) total += weight(x);
  return [=](std::int64_t x) { return weight(x) / total; };
}

// e^-mu I_|x|(mu), by the series of the Bessel function: sum over j of (mu / 2)^(2 j + x) / (j! (j
// + x)!).
std::function<double(std::int64_t)> skellam_pmf(double mu) {
  return [mu](std::int64_t x) {
    const auto order = static_cast<double>(std::abs(x));
    double sum = 0;
    for (double j = 0; j < 2000; ++j) {
      sum += std::exp((2 * j + order) * std::log(mu / 2) - std::lgamma(j + 1) -
                      std::lgamma(j + order + 1) - mu);
    }
    return sum;
  };
}

// The largest distance of the empirical distribution function from N(0, stddev^2)'s, over the one
// that a true sample exceeds with probability 10^-6 (Massart 1990).
double distance_from_normal(std::vector<double> values, double stddev) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  double largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double expected = std::erfc(-values[i] / (stddev * std::numbers::sqrt2)) / 2;
    const auto rank = static_cast<double>(i);
    largest =
        std::max({largest, std::abs(expected - rank / n), std::abs(expected - (rank + 1) / n)});
  }
  return largest / std::sqrt(std::log(2e6) / (2 * n));
}

constexpr std::size_t kDraws = 200000;
/// P(a normal variable is above this) = 2.9e-7.
constexpr double kFiveSigma = 5;

}  // namespace

TEST_CASE("discrete Gaussian draws have the discrete Gaussian's probabilities") {
  const double sigma = GENERATE(0.3, 0.5, 1.0, 3.7, 50.0);
  const std::uint64_t seed = GENERATE(101, 102);
  CAPTURE(sigma, seed);
  const auto secrets = source(seed);
  NoiseSampler sampler(*secrets);
  std::vector<std::int64_t> draws(kDraws);
  sampler.discrete_gaussian(sigma, draws);
  CHECK(sampler.status().ok());
  CHECK(std::abs(chi_square_deviation(draws, gaussian_pmf(sigma), -500, 500)) < kFiveSigma);
}

TEST_CASE("the chi-square test tells a discrete Gaussian from a slightly wider and a rounded one") {
  const auto secrets = source(7);
  NoiseSampler sampler(*secrets);
  std::vector<std::int64_t> draws(kDraws);
  sampler.discrete_gaussian(3.8, draws);
  CHECK(chi_square_deviation(draws, gaussian_pmf(3.7), -500, 500) > kFiveSigma);
  RandomStream random(7, RandomPurpose::kTraining);
  for (auto& x : draws) x = std::llround(random.normal(0, 0.5));
  CHECK(chi_square_deviation(draws, gaussian_pmf(0.5), -500, 500) > kFiveSigma);
}

TEST_CASE("Skellam draws have the Skellam distribution's probabilities") {
  const double mu = GENERATE(0.01, 0.5, 4.0, 100.0, 900.0);
  const std::uint64_t seed = GENERATE(201, 202);
  CAPTURE(mu, seed);
  const auto secrets = source(seed);
  NoiseSampler sampler(*secrets);
  std::vector<std::int64_t> draws(kDraws);
  sampler.skellam(mu, draws);
  CHECK(sampler.status().ok());
  CHECK(std::abs(chi_square_deviation(draws, skellam_pmf(mu), -150, 150)) < kFiveSigma);
}

TEST_CASE("the Poisson draws behind wide Skellam noise have the Poisson probabilities") {
  const double lambda = GENERATE(0x1p18, 0x1p18 + 0.375, 300000.9);
  const std::uint64_t seed = 301;
  CAPTURE(lambda, seed);
  const auto secrets = source(seed);
  SecretBits bits(*secrets);
  const PoissonSampler sampler(lambda);
  // Cells of 32 values.
  std::vector<std::int64_t> draws(kDraws);
  for (auto& x : draws)
    x = static_cast<std::int64_t>(std::floor(static_cast<double>(sampler.draw(bits)) / 32));
  const auto cell = [lambda](std::int64_t x) {
    double sum = 0;
    for (int i = 0; i < 32; ++i) {
      const double k = std::floor(lambda) + 32 * static_cast<double>(x) + i;
      sum += std::exp(k * std::log(lambda) - lambda - std::lgamma(k + 1));
    }
    return sum;
  };
  CHECK(std::abs(chi_square_deviation(draws, cell, -200, 200)) < kFiveSigma);
}

TEST_CASE("wide noise is close to a normal variable of its variance") {
  const std::uint64_t seed = 401;
  const auto secrets = source(seed);
  NoiseSampler sampler(*secrets);
  std::vector<std::int64_t> draws(kDraws);
  double stddev = GENERATE(500.0, 0x1p20 + 0.5, 1e9, 0x1p40);
  const bool skellam = GENERATE(false, true);
  if (skellam) stddev = std::min(stddev, 0x1p20);
  CAPTURE(seed, stddev, skellam);
  if (skellam) {
    sampler.skellam(stddev * stddev, draws);
  } else {
    sampler.discrete_gaussian(stddev, draws);
  }
  const std::vector<double> values(draws.begin(), draws.end());
  double mean = 0;
  double square = 0;
  double fourth = 0;
  const auto n = static_cast<double>(kDraws);
  for (const double x : values) {
    mean += x / stddev / n;
    square += std::pow(x / stddev, 2) / n;
    fourth += std::pow(x / stddev, 4) / n;
  }
  // The powers of a normal variable have variances 1, 2 and 96.
  CHECK(std::abs(mean) < kFiveSigma / std::sqrt(n));
  CHECK(std::abs(square - 1) < kFiveSigma * std::sqrt(2 / n));
  CHECK(std::abs(fourth - 3) < kFiveSigma * std::sqrt(96 / n));
  CHECK(distance_from_normal(values, stddev) < 1);
}

TEST_CASE("Gaussian noise is normal and lies on its lattice") {
  const double sigma = GENERATE(1.0, 0.013, 12345.6, 0x1p-300);
  const std::uint64_t seed = 501;
  CAPTURE(sigma, seed);
  const auto secrets = source(seed);
  NoiseSampler sampler(*secrets);
  std::vector<double> values(50000);
  for (auto& x : values) x = sampler.gaussian(sigma);
  CHECK(distance_from_normal(values, sigma) < 1);
  CHECK(distance_from_normal(values, 1.05 * sigma) > 1);
  // sigma is 2^20 to 2^21 steps of a power of two.
  const double step = std::exp2(std::floor(std::log2(sigma)) - 20);
  for (const double x : values) REQUIRE(std::nearbyint(x / step) == x / step);
}

TEST_CASE("a value under Gaussian noise shows no trace between the lattice points") {
  const double sigma = 0.7;
  const double value = GENERATE(0.0, 1.0 / 3, -12345.678901);
  const std::uint64_t seed = 551;
  CAPTURE(value, seed);
  const auto secrets = source(seed);
  NoiseSampler sampler(*secrets);
  std::vector<double> noise(50000);
  for (auto& x : noise) {
    const double sum = sampler.add_gaussian(value, sigma);
    REQUIRE(std::nearbyint(sum * 0x1p21) == sum * 0x1p21);  // 0.7 is 2^20 to 2^21 steps of 2^-21
    x = sum - value;
  }
  CHECK(distance_from_normal(noise, sigma) < 1);
}

TEST_CASE("bounds of 64 bits decide as long division does") {
  const double sigma = GENERATE(0x1p-10, 0.1, 1.0, 3.7, 1000.5, 0x1p20 + 0.7, 1e9, 0x1p40);
  const std::uint64_t seed = 601;
  CAPTURE(sigma, seed);
  const auto one = source(seed);
  const auto other = source(seed);
  SecretBits fast_bits(*one);
  SecretBits exact_bits(*other);
  const DiscreteGaussian fast(sigma);
  const DiscreteGaussian exact(sigma, true);
  for (int i = 0; i < 3000; ++i) REQUIRE(fast.draw(fast_bits) == exact.draw(exact_bits));
}

TEST_CASE("a comparison draws digits until one differs") {
  const Fraction third{Uint256::of(1), Uint256::of(3)};  // 0.010101...
  const Fraction half{Uint256::of(1), Uint256::of(2)};
  const auto decide = [](std::uint64_t first, const Fraction& fraction, std::uint64_t then) {
    ScriptedSource script({then});
    SecretBits bits(script);
    return exactly_below(first, fraction, bits);
  };
  CHECK(decide(0x5555555555555554, third, ~0ull));
  CHECK_FALSE(decide(0x5555555555555556, third, 0));
  // Bits come lowest first: the digits 65, 66, ... of 1/3 are 0, 1, 0, 1, ...
  CHECK(decide(0x5555555555555555, third, 0b00));
  CHECK_FALSE(decide(0x5555555555555555, third, 0b01));
  CHECK_FALSE(decide(0x5555555555555555, third, 0b110));
  CHECK(decide(0x5555555555555555, third, 0b0010));
  CHECK(decide(0x7fffffffffffffff, half, ~0ull));
  // 1/2 has no further digits: 0.1000... is not below it.
  CHECK_FALSE(decide(0x8000000000000000, half, 0x100));
}

TEST_CASE("wide integers calculate as narrow ones where both can") {
  const std::uint64_t seed = 701;
  CAPTURE(seed);
  RandomStream random(seed, RandomPurpose::kTraining);
  for (int i = 0; i < 2000; ++i) {
    const std::uint64_t a = random.next_u64() >> random.below(64);
    const std::uint64_t b = random.next_u64() >> random.below(64);
    const auto product = static_cast<Uint256::Half>(a) * b;
    REQUIRE(Uint256::of(a).times(b).words == Uint256::of(product).words);
    REQUIRE(Uint256::square(a).words == Uint256::of(static_cast<Uint256::Half>(a) * a).words);
    // (p + 1)^2 - p^2 - 2 p = 1, up to 256 bits.
    Uint256 rest = Uint256::square(product + 1);
    rest.subtract(Uint256::square(product));
    rest.subtract(Uint256::of(product));
    rest.subtract(Uint256::of(product));
    REQUIRE(rest.words == Uint256::of(1).words);
    Uint256 doubled = Uint256::of(product);
    doubled.shift_in(true);
    REQUIRE(doubled.at_least(Uint256::of(product)));
    doubled.subtract(Uint256::of(product));
    doubled.subtract(Uint256::of(product));
    REQUIRE(doubled.words == Uint256::of(1).words);
    if (product == 0) continue;
    int shift = 0;
    const std::uint64_t top = Uint256::of(product).top(shift);
    REQUIRE(top >> 63 == 1);
    REQUIRE(top == static_cast<std::uint64_t>(shift >= 0 ? product >> shift : product << -shift));
  }
}

TEST_CASE("functions of 113 bits agree with each other and with double") {
  const auto close = [](Quad a, Quad b, double bits) {
    const Quad difference = a > b ? a - b : b - a;
    return difference <= Quad{std::exp2(-bits)} * (b < 0 ? -b : b);
  };
  // e^-ln(a/b) = b/a.
  for (const double a : {1.0, 1.3, 1.7, 1.99}) {
    CHECK(close(exp_minus(log_ratio<Quad>(Quad{a}, 1)), 1 / Quad{a}, 100));
  }
  // e^-1 = 0x0.5E2D58D8B3BCDF1ABADEC7829054F90D...
  const Quad inverse_e = static_cast<Quad>(0x5E2D58D8B3BCDF1A) * Quad{0x1p-64} +
                         static_cast<Quad>(0xBADEC7829054F90D) * Quad{0x1p-64} * Quad{0x1p-64};
  CHECK(close(exp_minus(1), inverse_e, 100));
  // The deviance by its definition, from the logarithm.
  for (const double y : {0.2, -0.2, 0.01, -0.003}) {
    const Quad expected = (1 + Quad{y}) * log_ratio<Quad>(1 + Quad{y}, 1) - Quad{y};
    CHECK(close(deviance<Quad>(Quad{y}), expected, 95));
    CHECK(close(Quad{deviance<double>(y)}, expected, 48));
    CHECK(close(Quad{log_ratio<double>(1 + y, 1)}, log_ratio<Quad>(Quad{1 + y}, 1), 48));
  }
  CHECK(deviance<double>(0) == 0);
  CHECK(log_ratio<double>(3, 3) == 0);
  // ln 131072! from the library, which has 52 bits of it.
  const double k = 131072;
  const double stirling = (k + 0.5) * std::log(k) - k + 0.5 * std::log(2 * std::numbers::pi);
  CHECK(stirling + stirling_rest<double>(k) == Approx(std::lgamma(k + 1)).epsilon(1e-14));
  CHECK(stirling_rest<double>(k) == Approx(1 / (12 * k)).epsilon(1e-9));
}

TEST_CASE("the first and the last random word give Skellam's middle and tail") {
  for (const double mu : {0x1p-20, 1.0, 0x1p20}) {
    const SkellamTable table(mu);
    ScriptedSource zeros({0, 0});
    SecretBits low(zeros);
    CHECK(table.draw(low) == 0);
    ScriptedSource ones({UINT64_MAX, UINT64_MAX, 0});
    SecretBits high(ones);
    const auto extreme = static_cast<double>(table.draw(high));
    CHECK(extreme > 10 * std::sqrt(mu));
    CHECK(extreme < 20 * std::sqrt(mu) + 50);
  }
}

TEST_CASE("equal secrets give equal noise, one by one or at once") {
  const auto one = source(3);
  const auto other = source(3);
  NoiseSampler singles(*one);
  NoiseSampler spans(*other);
  std::vector<std::int64_t> gaussian(1000);
  std::vector<std::int64_t> narrow(1000);
  std::vector<std::int64_t> wide(1000);
  spans.discrete_gaussian(5, gaussian);
  spans.skellam(5, narrow);
  spans.skellam(0x1p30, wide);
  for (const auto x : gaussian) REQUIRE(singles.discrete_gaussian(5) == x);
  for (const auto x : narrow) REQUIRE(singles.skellam(5) == x);
  for (const auto x : wide) REQUIRE(singles.skellam(0x1p30) == x);
}

TEST_CASE("a source that fails is reported, and no draw hangs") {
  for (int good = 0; good < 6; ++good) {
    FailingSource broken(good);
    NoiseSampler sampler(broken);
    std::vector<std::int64_t> draws(3000);
    sampler.discrete_gaussian(4, draws);
    sampler.skellam(4, draws);
    sampler.skellam(0x1p30, draws);
    sampler.gaussian(1);
    REQUIRE_FALSE(sampler.status().ok());
    CHECK_THAT(sampler.status().error().message, Catch::Contains("broken"));
  }
}
