// The errors that the methods' papers state.
#include <covey/hadamard.hpp>
#include <numbers>

#include "compression_support.hpp"
#include "lloyd_max.hpp"

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

namespace {

constexpr std::size_t kSize = std::size_t{1} << 18;

struct Expected {
  const char* spec;
  double error;
};

// Distortion of the Lloyd-Max quantiser, D, and of its unbiased form, D / (1 - D): Vargaftik et al.
// 2022, table 1. Those of 1 bit are 1 - 2/pi and pi/2 - 1.
constexpr Expected kErrors[] = {
    {"drive", .57080},
    {"drive+error-feedback", .36338},
    {"eden-1", .57080},
    {"eden-2", .13312},
    {"eden-3", .03578},
    {"eden-4", .00959},
    {"eden-1+error-feedback", .36338},
    {"eden-2+error-feedback", .11748},
    {"eden-3+error-feedback", .03455},
    {"eden-4+error-feedback", .00950},
};

double density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }
double above(double x) { return 0.5 * std::erfc(x / std::numbers::sqrt2); }

template <unsigned Bits>
void check_levels() {
  constexpr auto& levels = LloydMax<Bits>::kLevels;
  double distortion = 0;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const double low = i == 0 ? 0 : (double{levels[i - 1]} + levels[i]) / 2;
    const bool last = i + 1 == levels.size();
    const double high = last ? 40 : (double{levels[i]} + levels[i + 1]) / 2;
    const double chance = above(low) - above(high);
    const double mean = (density(low) - density(high)) / chance;
    CAPTURE(Bits, i);
    CHECK(levels[i] == Approx(mean).epsilon(2e-6));
    distortion += chance * levels[i] * levels[i];
  }
  // With each level its cell's mean, E(x - c)^2 = 1 - E c^2.
  const double expected[] = {.36338, .11748, .03455, .00950};
  CHECK(1 - 2 * distortion == Approx(expected[Bits - 1]).margin(1e-5));
}

}  // namespace

TEST_CASE("DRIVE and EDEN have the errors of their papers on a normal vector") {
  const Expected expected = GENERATE(from_range(std::begin(kErrors), std::end(kErrors)));
  CAPTURE(kSeed, expected.spec);
  const auto values = normal_vector(kSize);
  const double error = normalised_error(values, round_trip(expected.spec, values));
  // One rotation of 2^18 values: the error's own deviation is about 3 / sqrt(2^18), 0.6 percent.
  CHECK(error == Approx(expected.error).epsilon(0.02));
}

TEST_CASE("DRIVE and EDEN do as well where few values hold most of the norm") {
  const Expected expected = GENERATE(from_range(std::begin(kErrors), std::end(kErrors)));
  CAPTURE(kSeed, expected.spec);
  const auto values = heavy_vector(kSize);
  const double error = normalised_error(values, round_trip(expected.spec, values));
  // A block with one value far above the others is nearer to what signs alone can say: less error.
  CHECK(error < expected.error * 1.02);
  CHECK(error > expected.error * 0.85);
}

TEST_CASE("EDEN's levels are Lloyd's and Max's for a normal distribution") {
  check_levels<1>();
  check_levels<2>();
  check_levels<3>();
  check_levels<4>();
}

TEST_CASE("linear quantisation keeps QSGD's variance bound in blocks of 64") {
  const int levels = GENERATE(1, 7);
  const std::string spec = levels == 1 ? "int2" : "int4";
  CAPTURE(kSeed, spec);
  // Alistarh et al. 2017, lemma 3.1, of n values and s levels.
  const double bound = std::min(64.0 / (levels * levels), 8.0 / levels);
  std::vector<float> equal(1 << 14, 0.25f);
  for (const auto& values : {normal_vector(1 << 14), heavy_vector(1 << 14), equal}) {
    CHECK(normalised_error(values, round_trip(spec, values)) <= bound);
  }
}

TEST_CASE("error feedback's rounding loses less than the unbiased one") {
  CAPTURE(kSeed);
  for (const char* spec : {"fp16", "bf16", "int8", "int4", "int2", "drive", "eden-1", "eden-2",
                           "eden-3", "eden-4", "random-k:0.1", "rate-distortion"}) {
    CAPTURE(spec);
    for (const auto& values : {normal_vector(1 << 15), heavy_vector(1 << 15)}) {
      const double unbiased = normalised_error(values, round_trip(spec, values));
      const double least =
          normalised_error(values, round_trip(std::string(spec) + "+error-feedback", values));
      CHECK(least < unbiased);
    }
  }
}

TEST_CASE("signs keep (|p|_1 / n) sgn p of every tensor") {
  CAPTURE(kSeed);
  ModelLayout layout;
  layout.append("weight", {2, 2});
  layout.append("empty", {0});
  layout.append("bias", {3});
  const auto compressor = make("sign", layout);
  const std::vector<float> values = {1, -3, 2, 2, -10, 0, 20};
  const SharedBytes bytes = compressor->encode(values, kName);
  CHECK(bytes.size() == 2 * 4 + 1);
  CHECK(decoded(*compressor, bytes, 7) == std::vector<float>{2, -2, 2, 2, -10, 10, 10});
}
