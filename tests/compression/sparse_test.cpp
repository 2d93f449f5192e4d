#include <set>

#include "compression_support.hpp"

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

namespace {

std::vector<std::size_t> places(const std::vector<float>& values) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] != 0) found.push_back(i);
  }
  return found;
}

}  // namespace

TEST_CASE("top-k keeps the largest magnitudes, nearly as they are") {
  CAPTURE(kSeed);
  const double share = GENERATE(0.001, 0.01, 0.1, 0.5, 0.9);
  const auto values = heavy_vector(20000);
  const auto k = static_cast<std::size_t>(std::ceil(share * 20000));
  std::vector<float> magnitudes;
  for (const float x : values) magnitudes.push_back(std::abs(x));
  std::ranges::sort(magnitudes, std::greater<>());
  std::vector<float> expected(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::abs(values[i]) >= magnitudes[k - 1]) expected[i] = values[i];
  }
  const auto out = round_trip("top-k:" + std::to_string(share), values);
  const auto kept = places(expected);
  REQUIRE(kept.size() == k);  // no ties in this vector
  for (const std::size_t i : places(out)) CHECK(expected[i] != 0);
  // 8 bits a value: steps of 1/127 of a block's largest, which rounding by half of one and a scale
  // of 8 significant bits make 1/254 + 2^-9 of it.
  double largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(out[i]) - expected[i]));
  }
  CHECK(largest <= (1.0 / 254 + 0x1p-8) * magnitudes[0]);
}

TEST_CASE("of equal magnitudes top-k keeps the first") {
  std::vector<float> values(10, 1.0f);
  values[7] = -2;
  values[3] = -1;
  CHECK(places(round_trip("top-k:0.4", values)) == std::vector<std::size_t>{0, 1, 2, 7});
}

TEST_CASE("top-k of one percent takes 16 bits a kept value") {
  CAPTURE(kSeed);
  const auto values = heavy_vector(100000);
  const SharedBytes bytes = make("top-k:0.01", values.size())->encode(values, kName);
  CHECK(8.0 * static_cast<double>(bytes.size()) / 1000 < 16.4);
}

TEST_CASE("random-k draws the same places for all devices of a round, others in the next") {
  CAPTURE(kSeed);
  const double share = GENERATE(0.01, 0.3, 0.5, 0.8, 1.0);
  CAPTURE(share);
  const std::vector<float> values(5000, 1.0f);
  const std::string spec = "random-k:" + std::to_string(share) + "+error-feedback";
  const auto at = [&](std::uint32_t round, std::uint64_t client) {
    return places(round_trip(spec, values, {kSeed, RoundNumber{round}, ClientId{client}}));
  };
  CHECK(at(1, 1).size() == static_cast<std::size_t>(std::ceil(share * 5000)));
  CHECK(at(1, 1) == at(1, 2));
  if (share < 1) CHECK(at(1, 1) != at(2, 1));
}

TEST_CASE("random-k draws every place about as often as any other") {
  CAPTURE(kSeed);
  constexpr std::size_t kSize = 100;
  constexpr int kRounds = 4000;
  const double share = GENERATE(0.2, 0.7);
  const std::vector<float> values(kSize, 1.0f);
  const auto compressor = make("random-k:" + std::to_string(share) + "+error-feedback", kSize);
  std::vector<int> drawn(kSize);
  for (std::uint32_t round = 0; round < kRounds; ++round) {
    const UpdateName name{kSeed, RoundNumber{round}, ClientId{1}};
    for (const std::size_t i :
         places(decoded(*compressor, compressor->encode(values, name), kSize, name))) {
      ++drawn[i];
    }
  }
  // five standard deviations of Binomial(4000, share), over 100 places: one run in 10^4 fails by
  // chance
  const double deviation = std::sqrt(kRounds * share * (1 - share));
  for (const int times : drawn) CHECK(std::abs(times - kRounds * share) < 5 * deviation);
}

TEST_CASE("random-k multiplies by d over k, or not with error feedback") {
  const std::vector<float> values(1000, 0.5f);
  const auto unbiased = round_trip("random-k:0.25", values);
  const auto fed_back = round_trip("random-k:0.25+error-feedback", values);
  CHECK(places(unbiased) == places(fed_back));
  for (const std::size_t i : places(unbiased)) {
    // the step is rounded up to 8 significant bits, and the value lies at most one below the
    // largest
    CHECK(unbiased[i] == Approx(2).epsilon(0.02));
    CHECK(fed_back[i] == Approx(0.5).epsilon(0.01));
  }
}

TEST_CASE("places that are out of order, repeated or outside are no code") {
  constexpr std::size_t kSize = 64;
  const auto compressor = make("top-k:0.03125", kSize);  // two places
  std::vector<float> values(kSize);
  values[62] = 1;
  values[63] = 1;
  auto bytes = copy_of(compressor->encode(values, kName));
  std::vector<float> out(kSize);
  REQUIRE(compressor->decode(bytes, kName, out).ok());
  // one byte of parameter, two of scale, two values; then gaps 62 and 0
  const auto parameter = std::to_integer<unsigned>(bytes[0]);
  CAPTURE(parameter);
  bytes[0] = std::byte{31};
  const auto large = compressor->decode(bytes, kName, out);
  REQUIRE_FALSE(large.ok());
  CHECK_THAT(large.error().message, Catch::Contains("Rice parameter"));
  bytes[0] = std::byte{5};  // gaps of 5 bits: 0000 0001 ... is 7 * 32 and more
  for (std::size_t i = 5; i < bytes.size(); ++i) bytes[i] = std::byte{1};
  const auto outside = compressor->decode(bytes, kName, out);
  REQUIRE_FALSE(outside.ok());
  CHECK_THAT(outside.error().message, Catch::Contains("position"));
}
