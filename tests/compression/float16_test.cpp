#include <bit>
#include <cstring>

#include "compression_support.hpp"

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

namespace {

/// By the definition of IEEE 754: sign, 5 bits of exponent with bias 15, 10 bits.
float value_of(std::uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int significand = half & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(significand, -24) : std::ldexp(1024 + significand, exponent - 25);
  return static_cast<float>(half >> 15 != 0 ? -magnitude : magnitude);
}

std::vector<std::uint16_t> halves_of(const SharedBytes& bytes) {
  std::vector<std::uint16_t> halves(bytes.size() / 2);
  std::memcpy(halves.data(), bytes.data(), bytes.size());
  return halves;
}

std::vector<std::uint16_t> every_half() {
  std::vector<std::uint16_t> halves;
  for (std::uint32_t half = 0; half < 0x10000; ++half) {
    if ((half & 0x7c00) != 0x7c00) halves.push_back(static_cast<std::uint16_t>(half));
  }
  return halves;
}

}  // namespace

TEST_CASE("every half is decoded as IEEE 754 says and encoded as itself") {
  const std::string spec = GENERATE("fp16", "fp16+error-feedback");
  const auto halves = every_half();
  std::vector<float> values;
  for (const std::uint16_t half : halves) values.push_back(value_of(half));
  const auto compressor = make(spec, values.size());
  const SharedBytes bytes = compressor->encode(values, kName);
  CHECK(halves_of(bytes) == halves);
  const auto out = decoded(*compressor, bytes, values.size());
  CHECK(std::memcmp(out.data(), values.data(), 4 * out.size()) == 0);  // the sign of zero too
}

TEST_CASE("with error feedback halves are the nearest ones") {
  const auto compressor = make("fp16+error-feedback", 8);
  const std::vector<float> values = {
      1 + 0x1p-11f,           // half way from 1: to the even one below
      1 + 3 * 0x1p-11f,       // half way: to the even one above
      1 + 0x1.2p-11f,         // above the middle
      0x1p-14f - 0x1p-26f,    // the largest subnormals end here
      0x1.8p-24f + 0x1p-30f,  // a little above the middle of two subnormals
      65504 + 15,             // below the middle to 2^16
      1e30f,
      -70000};
  const auto out = decoded(*compressor, compressor->encode(values, kName), 8);
  CHECK(out ==
        std::vector<float>{1, 1 + 0x1p-9f, 1 + 0x1p-10f, 0x1p-14f, 0x1p-23f, 65504, 65504, -65504});
}

TEST_CASE("stochastic halves are neighbours of the value") {
  CAPTURE(kSeed);
  const auto values = heavy_vector(20000);
  const auto out = round_trip("fp16", values);
  std::size_t far = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float step = std::max(0x1p-24f, std::abs(values[i]) * 0x1p-10f);
    far += std::abs(out[i] - values[i]) < step ? 0 : 1;
  }
  CHECK(far == 0);
}

TEST_CASE("an infinite or undefined half is refused by its place") {
  const auto compressor = make("fp16", 3);
  for (const unsigned bits : {0x7c00u, 0xfc00u, 0x7e00u}) {
    const std::uint16_t halves[] = {0, 0x3c00, static_cast<std::uint16_t>(bits)};
    std::vector<float> out(3);
    const auto result = compressor->decode(std::as_bytes(std::span(halves)), kName, out);
    REQUIRE_FALSE(result.ok());
    CHECK_THAT(result.error().message, Catch::Contains("value 2 is not finite"));
  }
}
