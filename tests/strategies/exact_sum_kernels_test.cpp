#include "exact_sum_kernels.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <covey/random.hpp>
#include <limits>
#include <vector>

using namespace covey;
using namespace covey::strategies;

namespace {
constexpr std::uint64_t kSeed = 5;
constexpr std::size_t kSize = 10007;  // no multiple of any vector width
}  // namespace

TEST_CASE("every instruction set gives the bits of the baseline") {
  INFO("seed " << kSeed);
  RandomStream random(kSeed, RandomPurpose::kTraining);
  std::vector<float> values(kSize);
  for (float& v : values) {
    v = static_cast<float>(random.normal() * std::exp2(random.uniform(-45, 14)));
  }
  // Ties of both grids, the least float and zeros of both signs.
  values[0] = 0x1p-18F, values[1] = 0x1.8p-17F, values[2] = -0x1p-70F, values[3] = 0x1.8p-69F;
  values[4] = std::numeric_limits<float>::denorm_min(), values[5] = -0.0F, values[6] = 0.0F;
  const auto kernels = exact_sum_kernels();
  REQUIRE(kernels.back().instruction_set == std::string("baseline"));
  for (const double weight : {1.0, 600.0, 1.0 / 3.0}) {
    std::vector<std::int64_t> high(kSize, 7), low(kSize, -9);
    kernels.back().accumulate(values.data(), weight, kSize, high.data(), low.data());
    for (const auto& kernel : kernels) {
      INFO(kernel.instruction_set << ", weight " << weight);
      std::vector<std::int64_t> other_high(kSize, 7), other_low(kSize, -9);
      kernel.accumulate(values.data(), weight, kSize, other_high.data(), other_low.data());
      CHECK((other_high == high && other_low == low));
    }
  }
}

TEST_CASE("the split of a term is exact to half a unit of the low word") {
  INFO("seed " << kSeed);
  RandomStream random(kSeed, RandomPurpose::kFault);
  const auto& kernel = exact_sum_kernels().front();
  for (int k = 0; k < 10000; ++k) {
    const float value = static_cast<float>(random.normal() * std::exp2(random.uniform(-60, 14)));
    const double weight = random.uniform(0, 100);
    std::int64_t high = 0, low = 0;
    kernel.accumulate(&value, weight, 1, &high, &low);
    CHECK(std::abs(low) <= (std::int64_t{1} << 51));
    // Every step of this is exact in double.
    const double term = weight * static_cast<double>(value);
    const double remainder = term - static_cast<double>(high) * 0x1p-17;
    REQUIRE(std::abs(remainder - static_cast<double>(low) * 0x1p-69) <= 0x1p-70);
  }
}

TEST_CASE("the largest magnitude is found at every place, and nothing finite hides a NaN") {
  for (const auto& kernel : exact_sum_kernels()) {
    INFO(kernel.instruction_set);
    for (std::size_t size = 0; size < 70; ++size) {
      std::vector<float> values(size, 0.25F);
      CHECK(kernel.max_magnitude(values.data(), size) == (size == 0 ? 0u : 0x3e800000u));
      for (std::size_t i = 0; i < size; ++i) {
        values[i] = -3.0F;
        REQUIRE(kernel.max_magnitude(values.data(), size) == 0x40400000u);
        values[i] = -std::numeric_limits<float>::quiet_NaN();
        REQUIRE(kernel.max_magnitude(values.data(), size) > 0x7f800000u);
        values[i] = 0.25F;
      }
    }
  }
}
