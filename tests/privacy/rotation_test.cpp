#include <catch2/catch.hpp>
#include <cmath>
#include <covey/privacy/fixed_point.hpp>
#include <covey/random.hpp>
#include <vector>

using namespace covey;
using namespace covey::privacy;

namespace {

std::vector<float> normal_vector(std::uint64_t seed, std::size_t size) {
  RandomStream random(seed, RandomPurpose::kTraining);
  std::vector<float> values(size);
  for (float& x : values) x = static_cast<float>(random.normal());
  return values;
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

}  // namespace

TEST_CASE("a rotation keeps inner products and is undone") {
  const std::size_t size = GENERATE(1, 2, 3, 7, 31, 33, 100, 1023, 5000, 70001);
  const std::uint64_t seed = GENERATE(1, 99);
  CAPTURE(size, seed);
  const RoundNumber round{4};
  const auto a = normal_vector(seed, size);
  const auto b = normal_vector(seed + 1, size);
  auto rotated_a = a;
  auto rotated_b = b;
  rotate(rotated_a, seed, round);
  rotate(rotated_b, seed, round);
  // Single precision: about log2(d) roundings of 2^-24 each.
  const double tolerance = 1e-5 * std::sqrt(dot(a, a) * dot(b, b));
  CHECK(std::abs(dot(rotated_a, rotated_b) - dot(a, b)) < tolerance);
  CHECK(dot(rotated_a, rotated_a) == Approx(dot(a, a)).epsilon(1e-5));

  std::vector<double> back(rotated_a.begin(), rotated_a.end());
  rotate_back(back, seed, round);
  double error = 0;
  for (std::size_t i = 0; i < size; ++i) error += std::pow(back[i] - a[i], 2);
  CHECK(std::sqrt(error) < 1e-6 * std::sqrt(dot(a, a)) + 1e-12);
}

TEST_CASE("a rotation spreads one large coordinate over its block") {
  std::vector<float> values(4096);
  values[1234] = 64;
  rotate(values, 5, RoundNumber{1});
  for (const float x : values) CHECK(std::abs(x) == 1);
}

TEST_CASE("rotations differ between rounds and seeds, and repeat") {
  const auto values = normal_vector(1, 300);
  const auto rotated = [&](std::uint64_t seed, std::uint32_t round) {
    auto copy = values;
    rotate(copy, seed, RoundNumber{round});
    return copy;
  };
  CHECK(rotated(1, 1) == rotated(1, 1));
  CHECK(rotated(1, 1) != rotated(1, 2));
  CHECK(rotated(1, 1) != rotated(2, 1));
}

TEST_CASE("signs are fair in every block, the smallest included") {
  // 2^13 - 1 coordinates: blocks of 4096, ..., 2, 1, so the last is a sign alone.
  const std::size_t size = 8191;
  int negative = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    std::vector<float> values(size);
    values[size - 1] = 1;
    rotate(values, seed, RoundNumber{1});
    REQUIRE(std::abs(values[size - 1]) == 1);
    negative += values[size - 1] < 0 ? 1 : 0;
  }
  CHECK(std::abs(negative - 200) < 50);  // five standard deviations of Binomial(400, 1/2)
}
