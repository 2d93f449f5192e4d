#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/random.hpp>
#include <functional>
#include <numeric>
#include <set>
#include <span>
#include <vector>

namespace covey {
namespace {

using Counter = std::array<std::uint32_t, 4>;
using Key = std::array<std::uint32_t, 2>;

// Philox4x32-10 written down once more from Salmon et al. 2011, section 3.3, with named halves.
Counter reference_philox(Counter c, Key k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * c[0];
    const std::uint64_t b = 0xCD9E8D57ull * c[2];
    const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
    const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
    c = {high(b) ^ c[1] ^ k[0], low(b), high(a) ^ c[3] ^ k[1], low(a)};
    k = {k[0] + 0x9E3779B9u, k[1] + 0xBB67AE85u};
  }
  return c;
}

constexpr std::uint64_t kSeed = 20240607;

RandomStream stream(std::uint64_t seed = kSeed, std::uint32_t round = 0, std::uint64_t client = 0) {
  return RandomStream(seed, RandomPurpose::kTraining, RoundNumber{round}, ClientId{client});
}

std::vector<double> draws(std::size_t count, const std::function<double(RandomStream&)>& draw) {
  RandomStream random = stream();
  std::vector<double> values(count);
  for (double& value : values) value = draw(random);
  return values;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double variance(const std::vector<double>& values) {
  const double m = mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - m) * (value - m);
  return sum / static_cast<double>(values.size());
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

/// Largest distance between the sample's distribution and `cdf` (Kolmogorov and Smirnov).
double distance(std::vector<double> values, const std::function<double(double)>& cdf) {
  std::sort(values.begin(), values.end());
  const double n = static_cast<double>(values.size());
  double largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double at = cdf(values[i]);
    largest = std::max({largest, std::abs(at - static_cast<double>(i) / n),
                        std::abs(at - static_cast<double>(i + 1) / n)});
  }
  return largest;
}

}  // namespace

TEST_CASE("the test's Philox4x32-10 gives Random123's known answers") {
  // Random123, tests/kat_vectors, lines "philox4x32 10".
  CHECK(reference_philox({}, {}) == Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(reference_philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(reference_philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                         {0xa4093822, 0x299f31d0}) ==
        Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a stream is Philox keyed by seed, purpose and round, and counted by block and client") {
  const std::uint64_t seed = 0x0123456789abcdef;
  const std::uint64_t client = 0xfedcba9876543210;
  RandomStream random(seed, RandomPurpose::kSelection, RoundNumber{77}, ClientId{client});
  const Counter mixed =
      reference_philox({4 /* kSelection */, 77, 0x436f7665, 0}, {0x89abcdef, 0x01234567});
  for (std::uint32_t block = 0; block < 3; ++block) {
    const Counter expected =
        reference_philox({block, 0, 0x76543210, 0xfedcba98}, {mixed[0], mixed[1]});
    for (const std::uint32_t word : expected) CHECK(random.next_u32() == word);
  }
}

TEST_CASE("equal names give equal draws, any other name gives others") {
  const auto first = [](RandomStream random) { return random.next_u64(); };
  CHECK(first(stream(1, 2, 3)) == first(stream(1, 2, 3)));
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    for (std::uint32_t purpose = 1; purpose <= 13; ++purpose) {
      for (std::uint32_t round = 0; round < 4; ++round) {
        for (std::uint64_t client = 0; client < 4; ++client) {
          seen.insert(first(
              RandomStream(seed, RandomPurpose{purpose}, RoundNumber{round}, ClientId{client})));
        }
      }
    }
  }
  CHECK(seen.size() == 4 * 13 * 4 * 4);
}

TEST_CASE("streams of neighbouring devices, rounds and seeds are uncorrelated") {
  INFO("seed " << kSeed);
  constexpr std::size_t kDraws = 20000;
  const auto correlation = [](RandomStream a, RandomStream b) {
    double sum = 0;  // of products of uniforms with mean 0 and variance 1/12
    for (std::size_t i = 0; i < kDraws; ++i) sum += (a.uniform() - 0.5) * (b.uniform() - 0.5);
    return 12 * sum / static_cast<double>(kDraws);
  };
  // Independent: normal with deviation 1/sqrt(20000) = 0.007; 5 deviations.
  CHECK(std::abs(correlation(stream(kSeed, 1, 1), stream(kSeed, 1, 2))) < 0.036);
  CHECK(std::abs(correlation(stream(kSeed, 1, 1), stream(kSeed, 2, 1))) < 0.036);
  CHECK(std::abs(correlation(stream(kSeed, 1, 1), stream(kSeed + 1, 1, 1))) < 0.036);
}

TEST_CASE("bounded draws are uniform over the whole range") {
  INFO("seed " << kSeed);
  constexpr std::uint64_t kBound = 10;
  constexpr int kDraws = 100000;
  RandomStream random = stream();
  std::array<int, kBound> counts{};
  for (int i = 0; i < kDraws; ++i) ++counts.at(random.below(kBound));
  double chi_squared = 0;
  for (const int count : counts) chi_squared += std::pow(count - kDraws / 10, 2) / (kDraws / 10.0);
  CHECK(chi_squared < 27.9);  // 9 degrees of freedom: exceeded by chance once in 1000
}

TEST_CASE("bounded draws stay below their bound in 32 and in 64 bits") {
  RandomStream random = stream();
  for (const std::uint64_t bound :
       {1ull, 2ull, 0xffffffffull, 0x100000000ull, 0x100000001ull, 0xffffffffffffffffull}) {
    std::uint64_t largest = 0;
    for (int i = 0; i < 1000; ++i) {
      const std::uint64_t draw = random.below(bound);
      REQUIRE(draw < bound);
      largest = std::max(largest, draw);
    }
    CHECK(largest >= bound / 2);  // chance of failure 2^-1000, or bound = 1
  }
}

TEST_CASE("uniform draws lie between 0 and below 1 and are uniform") {
  INFO("seed " << kSeed);
  const auto values = draws(100000, [](RandomStream& r) { return r.uniform(); });
  CHECK(*std::min_element(values.begin(), values.end()) >= 0);
  CHECK(*std::max_element(values.begin(), values.end()) < 1);
  // 1.95 / sqrt(n) is exceeded by chance once in 1000.
  CHECK(distance(values, [](double x) { return x; }) < 1.95 / std::sqrt(100000.0));
}

TEST_CASE("normal draws have the normal distribution") {
  INFO("seed " << kSeed);
  const auto values = draws(100000, [](RandomStream& r) { return r.normal(); });
  CHECK(distance(values, normal_cdf) < 1.95 / std::sqrt(100000.0));
}

TEST_CASE("log-normal draws are exponentials of normal ones") {
  INFO("seed " << kSeed);
  const auto values = draws(50000, [](RandomStream& r) { return r.log_normal(4, 2); });
  const auto cdf = [](double x) { return normal_cdf((std::log(x) - 4) / 2); };
  CHECK(distance(values, cdf) < 1.95 / std::sqrt(50000.0));
}

TEST_CASE("exponential draws have the exponential distribution") {
  INFO("seed " << kSeed);
  const auto values = draws(50000, [](RandomStream& r) { return r.exponential(); });
  CHECK(distance(values, [](double x) { return 1 - std::exp(-x); }) < 1.95 / std::sqrt(50000.0));
}

TEST_CASE("gamma draws have mean and variance equal to their shape") {
  INFO("seed " << kSeed);
  const double n = 100000;
  for (const double shape : {0.1, 0.5, 1.0, 2.5, 30.0}) {
    INFO("shape " << shape);
    const auto values =
        draws(static_cast<std::size_t>(n), [&](RandomStream& r) { return r.gamma(shape); });
    // Deviation of the mean sqrt(shape/n); of the variance sqrt((2 shape^2 + 6 shape)/n).
    CHECK(std::abs(mean(values) - shape) < 5 * std::sqrt(shape / n));
    CHECK(std::abs(variance(values) - shape) < 5 * std::sqrt((2 * shape * shape + 6 * shape) / n));
  }
}

TEST_CASE("gamma draws of shape 1 are exponential") {
  INFO("seed " << kSeed);
  const auto values = draws(50000, [](RandomStream& r) { return r.gamma(1); });
  CHECK(distance(values, [](double x) { return 1 - std::exp(-x); }) < 1.95 / std::sqrt(50000.0));
}

TEST_CASE("a shuffle keeps the items and gives every order equally often") {
  INFO("seed " << kSeed);
  RandomStream random = stream();
  std::array<int, 27> counts{};
  constexpr int kShuffles = 60000;
  for (int i = 0; i < kShuffles; ++i) {
    std::array<std::size_t, 3> items{0, 1, 2};
    random.shuffle(std::span<std::size_t>(items));
    REQUIRE(std::set(items.begin(), items.end()).size() == 3);
    ++counts[items[0] * 9 + items[1] * 3 + items[2]];
  }
  double chi_squared = 0;
  for (const int count : counts) {
    if (count > 0) chi_squared += std::pow(count - kShuffles / 6, 2) / (kShuffles / 6.0);
  }
  CHECK(std::count_if(counts.begin(), counts.end(), [](int c) { return c > 0; }) == 6);
  CHECK(chi_squared < 20.5);  // 5 degrees of freedom: exceeded by chance once in 1000
}

}  // namespace covey
