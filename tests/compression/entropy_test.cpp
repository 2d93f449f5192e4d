// rate-distortion and zstd: sizes that depend on the values.
#include <cstring>

#include "compression_support.hpp"

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

namespace {

double bits_per_value(const std::string& spec, const std::vector<float>& values) {
  const SharedBytes bytes = make(spec, values.size())->encode(values, kName);
  return 8.0 * static_cast<double>(bytes.size()) / static_cast<double>(values.size());
}

std::vector<std::byte> coded(float step, std::initializer_list<int> code) {
  std::vector<std::byte> bytes(5);
  std::memcpy(bytes.data() + 1, &step, sizeof step);
  for (const int byte : code) bytes.push_back(static_cast<std::byte>(byte));
  return bytes;
}

}  // namespace

TEST_CASE("a rate-distortion code is what Mitchell et al. write") {
  const auto compressor = make("rate-distortion", 8);
  std::vector<float> out(8);
  // 2 zeros: 011; -3: sign 1, 011; none: 1; +1: sign 0, 1; to the end 4 zeros: 4 + 1 as 00101
  const auto bytes = coded(0.5f, {0b01110111, 0b01001010});
  const auto result = compressor->decode(bytes, kName, out);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  CHECK(out == std::vector<float>{0, 0, -1.5f, 0.5f, 0, 0, 0, 0});
}

TEST_CASE("a rate-distortion code for more or fewer values is refused") {
  const auto compressor = make("rate-distortion", 8);
  std::vector<float> out(8);
  const auto refuse = [&](const std::vector<std::byte>& bytes) {
    const auto result = compressor->decode(bytes, kName, out);
    REQUIRE_FALSE(result.ok());
    return result.error().message;
  };
  CHECK_THAT(refuse(coded(1, {0b00010100})), Catch::Contains("zeros from value 0"));      // 9 zeros
  CHECK_THAT(refuse(coded(1, {0b01110111})), Catch::Contains("value 3 is no multiple"));  // ends
  CHECK_THAT(refuse(coded(1, {0b00010010, 0})), Catch::Contains("go on behind it"));
  CHECK_THAT(refuse(coded(-1, {0b00010010})), Catch::Contains("step is -1"));
  CHECK_THAT(refuse(coded(0x1p97f, {0b00010010})), Catch::Contains("2^96"));
}

TEST_CASE("rate-distortion's step is relative to the root mean square") {
  CAPTURE(kSeed);
  const double step = GENERATE(0.1, 0.5, 1.9);
  CAPTURE(step);
  const auto values = normal_vector(1 << 16);
  const std::string number = std::to_string(step);
  const double unbiased = normalised_error(values, round_trip("rate-distortion:" + number, values));
  const auto nearest = round_trip("rate-distortion:" + number + "+error-feedback", values);
  const double root_mean_square =
      std::sqrt(squared_norm(values) / static_cast<double>(values.size()));
  CHECK(unbiased <= step * step / 4);
  if (step < 1) CHECK(unbiased == Approx(step * step / 6).epsilon(0.03));  // uniform fractions
  double largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(values[i]) - nearest[i]));
  }
  CHECK(largest <= step * root_mean_square / 2 * (1 + 1e-5));
  // scaling the update scales what is decoded, and changes no bit of the code
  auto scaled = values;
  for (float& x : scaled) x *= 1024;
  CHECK(bits_per_value("rate-distortion:" + number, scaled) ==
        bits_per_value("rate-distortion:" + number, values));
}

TEST_CASE("rate-distortion spends fewer bits where there is less to say") {
  CAPTURE(kSeed);
  const auto normal = normal_vector(1 << 16);
  const auto heavy = heavy_vector(1 << 16);
  CHECK(bits_per_value("rate-distortion", normal) < 4);
  CHECK(bits_per_value("rate-distortion", heavy) < 2);
  CHECK(bits_per_value("rate-distortion:2", normal) < 2.2);
  CHECK(make("rate-distortion", 1 << 16)->encode(std::vector<float>(1 << 16), kName).size() == 10);
}

TEST_CASE("a step so small that the code would be long falls back to bf16") {
  CAPTURE(kSeed);
  const auto values = normal_vector(3000);
  for (const char* spec : {"rate-distortion:0.00001", "rate-distortion:1e-30"}) {
    const auto compressor = make(spec, values.size());
    const SharedBytes bytes = compressor->encode(values, kName);
    CHECK(bytes.size() == compressor->sizes().max);
    CHECK(bytes.size() == 1 + 2 * values.size());
    CHECK(normalised_error(values, decoded(*compressor, bytes, values.size())) < 0x1p-14);
  }
}

TEST_CASE("zstd is used where it saves bytes and costs one elsewhere") {
  CAPTURE(kSeed);
  const auto normal = normal_vector(1 << 14);
  CHECK(bits_per_value("int2+zstd", normal) < 0.8 * bits_per_value("int2", normal));
  const SharedBytes plain = make("drive", 1 << 14)->encode(normal, kName);
  const SharedBytes wrapped = make("drive+zstd", 1 << 14)->encode(normal, kName);
  CHECK(wrapped.size() == plain.size() + 1);
  CHECK(round_trip("int2+zstd", normal) == round_trip("int2", normal));
  CHECK(round_trip("drive+zstd", normal) == round_trip("drive", normal));
}
