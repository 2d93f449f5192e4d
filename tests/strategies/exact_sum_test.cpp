#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/random.hpp>
#include <covey/strategies/exact_sum.hpp>
#include <limits>
#include <numeric>
#include <vector>

using namespace covey;
using namespace covey::strategies;
using Catch::Matchers::Contains;

namespace {

constexpr std::uint64_t kSeed = 20170217;

struct Terms {
  std::vector<std::vector<float>> vectors;
  std::vector<double> weights;
};

// Values over 40 binary orders of magnitude with both signs, weights that are not whole: plain
// double sums of these depend on their order.
Terms random_terms(std::size_t count, std::size_t size) {
  Terms terms;
  RandomStream random(kSeed, RandomPurpose::kTraining);
  for (std::size_t k = 0; k < count; ++k) {
    std::vector<float> vector(size);
    for (float& v : vector) {
      v = static_cast<float>(random.normal() * std::exp2(random.uniform(-30, 10)));
    }
    terms.vectors.push_back(std::move(vector));
    terms.weights.push_back(random.uniform(0, 1000));
  }
  return terms;
}

std::vector<double> sum_in_order(const Terms& terms, std::span<const std::size_t> order) {
  ExactSum sum(terms.vectors[0].size());
  for (const std::size_t k : order) {
    REQUIRE(sum.add(terms.vectors[k], terms.weights[k]).ok());
  }
  std::vector<double> out(sum.size());
  sum.read(out);
  return out;
}

std::vector<double> read(const ExactSum& sum) {
  std::vector<double> out(sum.size());
  sum.read(out);
  return out;
}

}  // namespace

TEST_CASE("an exact sum has the same bits for every order") {
  INFO("seed " << kSeed);
  const Terms terms = random_terms(200, 33);
  std::vector<std::size_t> order(terms.weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto expected = sum_in_order(terms, order);
  RandomStream random(kSeed, RandomPurpose::kSelection);
  bool double_sum_depends_on_order = false;
  const auto in_double = [&] {
    double sum = 0;
    for (const std::size_t k : order) {
      sum += terms.weights[k] * static_cast<double>(terms.vectors[k][0]);
    }
    return sum;
  };
  const double first = in_double();
  for (int shuffle = 0; shuffle < 20; ++shuffle) {
    random.shuffle(std::span(order));
    double_sum_depends_on_order |= in_double() != first;
    CHECK(sum_in_order(terms, order) == expected);
  }
  CHECK(double_sum_depends_on_order);  // so the comparison above could have failed
}

TEST_CASE("an exact sum has the same bits for every split into partial sums") {
  INFO("seed " << kSeed);
  const Terms terms = random_terms(100, 17);
  std::vector<std::size_t> order(terms.weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto expected = sum_in_order(terms, order);
  for (const std::size_t parts : {2u, 3u, 7u, 64u}) {
    std::vector<ExactSum> partial(parts, ExactSum(17));
    for (const std::size_t k : order) {
      REQUIRE(partial[k % parts].add(terms.vectors[k], terms.weights[k]).ok());
    }
    ExactSum total(17);
    for (std::size_t p = parts; p-- > 0;) REQUIRE(total.add(partial[p]).ok());
    CHECK(read(total) == expected);
    CHECK(total.terms() == 100);
  }
}

TEST_CASE("whole weights and values on the grid are summed without any error") {
  ExactSum sum(3);
  // 2^-69 is the finest step; 2^24 - 1 the largest odd float.
  const std::array<float, 3> fine{0x1p-69F, 0.1F, -0x1p-69F};
  const std::array<float, 3> coarse{16777215.0F, 3.0F, 0};
  REQUIRE(sum.add(fine, 1).ok());
  REQUIRE(sum.add(coarse, 1).ok());
  const std::array<float, 3> back{-16777215.0F, -3.0F, 0};
  REQUIRE(sum.add(back, 1).ok());
  CHECK(read(sum) == std::vector<double>{0x1p-69, static_cast<double>(0.1F), -0x1p-69});
}

TEST_CASE("the error of a sum is within 2^-70 per term") {
  INFO("seed " << kSeed);
  RandomStream random(kSeed, RandomPurpose::kFault);
  constexpr std::int64_t kCount = 1000;
  ExactSum sum(1);
  std::int64_t exact = 0;  // in units of 2^-80, finer than the grid
  for (std::int64_t k = 0; k < kCount; ++k) {
    const auto units = static_cast<std::int64_t>(random.below(1 << 24)) - (1 << 23);
    exact += units;
    const float value = static_cast<float>(units) * 0x1p-80F;
    REQUIRE(sum.add(std::span(&value, 1), 1).ok());
  }
  const double error = std::abs(read(sum)[0] - static_cast<double>(exact) * 0x1p-80);
  CHECK(error <= kCount * 0x1p-70);
  CHECK(error > 0);  // below the grid there is an error to bound
}

TEST_CASE("reading rounds once, to nearest, where the sum is wider than a double") {
  ExactSum sum(1);
  const float large = 0x1p25F;
  for (int k = 0; k < 2048; ++k) REQUIRE(sum.add(std::span(&large, 1), 1).ok());
  const auto add = [&](float value) { REQUIRE(sum.add(std::span(&value, 1), 1).ok()); };
  // 2^36 has steps of 2^-16 in double; half a step goes to even, the least more goes up.
  add(0x1p-17F);
  CHECK(read(sum)[0] == 0x1p36);
  add(0x1p-69F);
  CHECK(read(sum)[0] == 0x1p36 + 0x1p-16);
}

TEST_CASE("carries from the low words change no bit, however many terms there are") {
  // Ties at 2^-18 have the largest remainder, 2^51 low units; 5000 terms cross the carry twice.
  constexpr int kCount = 5000;
  for (const float value : {0x1p-18F, -0x1p-18F, 0x1.8p-17F}) {
    ExactSum one(1), first(1), second(1);
    for (int k = 0; k < kCount; ++k) {
      REQUIRE(one.add(std::span(&value, 1), 1).ok());
      REQUIRE((k < 2047 ? first : second).add(std::span(&value, 1), 1).ok());
    }
    CHECK(read(one)[0] == kCount * static_cast<double>(value));
    REQUIRE(first.add(second).ok());
    CHECK(read(first) == read(one));
    // Without a carry at merges, 320,000 terms of 2^51 low units would pass 2^63.
    for (int doubling = 0; doubling < 6; ++doubling) REQUIRE(first.add(ExactSum(first)).ok());
    CHECK(read(first)[0] == 64 * kCount * static_cast<double>(value));
  }
}

TEST_CASE("the largest terms fill a sum without overflow and the next one is refused") {
  // Doubling a partial sum reaches the limit of 2^20 - 1 terms in 20 steps.
  const float value = std::nextafter(0x1p26F, 0.0F);
  for (const double sign : {1.0, -1.0}) {
    ExactSum sum(1);
    REQUIRE(sum.add(std::span(&value, 1), sign).ok());
    for (int k = 1; k < 20; ++k) {
      REQUIRE(sum.add(ExactSum(sum)).ok());
      REQUIRE(sum.add(std::span(&value, 1), sign).ok());
    }
    REQUIRE(sum.terms() == ExactSum::kMaxTerms);
    const double full =
        sign * static_cast<double>(ExactSum::kMaxTerms) * static_cast<double>(value);
    CHECK(read(sum)[0] == full);
    const auto refused = sum.add(std::span(&value, 1), sign);
    REQUIRE_FALSE(refused.ok());
    CHECK_THAT(refused.error().message, Contains("full"));
    ExactSum one(1);
    REQUIRE(one.add(std::span(&value, 1), sign).ok());
    CHECK_FALSE(sum.add(one).ok());
    CHECK(read(sum)[0] == full);
  }
}

TEST_CASE("a refused vector changes nothing and the message names coordinate and value") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  ExactSum sum(40);
  const std::vector<float> good(40, 0.3F);
  REQUIRE(sum.add(good, 2).ok());
  const auto before = read(sum);
  const auto refused = [&](float value, double weight, const std::string& wanted) {
    std::vector<float> bad = good;
    bad[37] = value;
    const auto added = sum.add(bad, weight);
    REQUIRE_FALSE(added.ok());
    CHECK_THAT(added.error().message, Contains(wanted));
    CHECK(read(sum) == before);
    CHECK(sum.terms() == 1);
  };
  refused(std::numeric_limits<float>::quiet_NaN(), 1, "coordinate 37 is nan");
  refused(-kInfinity, 0, "coordinate 37 is -inf");
  refused(-0x1p25F, 2, "coordinate 37 is -33554432");
  refused(1, std::numeric_limits<double>::infinity(), "weight");
  CHECK_FALSE(sum.add(std::vector<float>(39), 1).ok());
  CHECK_FALSE(sum.add(ExactSum(41)).ok());
  CHECK(read(sum) == before);
  REQUIRE(sum.add(std::vector<float>(40, 0x1.fffffep25F), 1).ok());
}

TEST_CASE("a cleared sum starts again from nothing") {
  ExactSum sum(2);
  REQUIRE(sum.add(std::array<float, 2>{1, 2}, 3).ok());
  sum.clear();
  CHECK(sum.terms() == 0);
  CHECK(read(sum) == std::vector<double>{0, 0});
}

TEST_CASE("an exact scalar sum has the same bits for every order and split") {
  INFO("seed " << kSeed);
  RandomStream random(kSeed, RandomPurpose::kStraggler);
  std::vector<double> values(500);
  for (double& v : values) v = random.normal() * std::exp2(random.uniform(-60, 30));
  ExactScalarSum forward, backward, left, right;
  for (std::size_t k = 0; k < values.size(); ++k) {
    REQUIRE(forward.add(values[k]).ok());
    REQUIRE(backward.add(values[values.size() - 1 - k]).ok());
    REQUIRE((k % 3 == 0 ? left : right).add(values[k]).ok());
  }
  left.add(right);
  CHECK(backward.read() == forward.read());
  CHECK(left.read() == forward.read());
}

TEST_CASE("an exact scalar sum cancels exactly and refuses what it cannot hold") {
  ExactScalarSum sum;
  REQUIRE(sum.add(0x1p-66).ok());
  REQUIRE(sum.add(std::nextafter(0x1p40, 0.0)).ok());
  REQUIRE(sum.add(-std::nextafter(0x1p40, 0.0)).ok());
  CHECK(sum.read() == 0x1p-66);
  for (const double bad : {0x1p40, -0x1p40, std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()}) {
    CHECK_FALSE(sum.add(bad).ok());
  }
  CHECK(sum.read() == 0x1p-66);
}
