#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/int8_encoding.hpp>
#include <cstring>
#include <limits>
#include <vector>

namespace {

using namespace covey;

ModelLayout two_layers() {
  ModelLayout layout;
  layout.append("conv1.weight", {3, 3, 2, 5});
  layout.append("conv1.bias", {5});
  layout.append("dense1.weight", {7, 4});
  layout.append("dense1.bias", {4});
  return layout;
}

/// Offsets in a blob over two_layers(): 5 scales, 90 values, 5 floats, 4 scales, 28 values, 4
/// floats.
constexpr std::size_t kConvValues = 5 * 4;
constexpr std::size_t kConvBias = kConvValues + 90;
constexpr std::size_t kDenseScales = kConvBias + 5 * 4;
constexpr std::size_t kDenseValues = kDenseScales + 4 * 4;
constexpr std::size_t kSize = kDenseValues + 28 + 4 * 4;

std::vector<float> random_values(std::size_t n, std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kModelInitialisation);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(random.normal(0, 0.1));
  return values;
}

std::vector<std::byte> bytes_of(const SharedBytes& blob) {
  return {blob.span().begin(), blob.span().end()};
}

std::string refusal(std::span<const std::byte> bytes) {
  std::vector<float> out(two_layers().size(), 42.0f);
  const auto result = decode_int8(bytes, two_layers(), out);
  REQUIRE_FALSE(result.ok());
  CHECK(std::all_of(out.begin(), out.end(), [](float v) { return v == 42.0f; }));
  CHECK_FALSE(check_int8(bytes, two_layers()).ok());
  return result.error().message;
}

void put(std::vector<std::byte>& bytes, std::size_t offset, float value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

}  // namespace

TEST_CASE("an int8 blob's size is that of its layout") {
  CHECK(int8_encoded_size(two_layers()) == kSize);
  CHECK(int8_encoded_size(ModelLayout{}) == 0);
  const auto values = random_values(two_layers().size(), 1);
  CHECK(encode_int8(values, two_layers()).size() == kSize);
}

TEST_CASE("int8 decoding is within half a step of the channel, and biases are exact") {
  constexpr std::uint64_t kSeed = 7;
  CAPTURE(kSeed);
  const ModelLayout layout = two_layers();
  const auto values = random_values(layout.size(), kSeed);
  for (const float headroom : {1.0f, 1.25f, 2.0f}) {
    const auto blob = encode_int8(values, layout, {.headroom = headroom});
    std::vector<float> out(layout.size());
    REQUIRE(decode_int8(blob.span(), layout, out).ok());
    for (const TensorLayout& tensor : layout.tensors()) {
      const std::size_t channels = tensor.shape.back();
      for (std::size_t i = 0; i < tensor.size(); ++i) {
        const std::size_t at = tensor.offset + i;
        if (tensor.shape.size() == 1) {
          CHECK(out[at] == values[at]);
          continue;
        }
        float largest = 0;
        for (std::size_t k = i % channels; k < tensor.size(); k += channels) {
          largest = std::max(largest, std::abs(values[tensor.offset + k]));
        }
        // 16 significant bits make the scale at most 2^-15 too large
        CHECK(std::abs(out[at] - values[at]) <= largest * headroom / 127 * 0.50002f);
      }
    }
  }
}

TEST_CASE("scale times int8 value is exact in single precision") {
  constexpr std::uint64_t kSeed = 8;
  CAPTURE(kSeed);
  RandomStream random(kSeed, RandomPurpose::kModelInitialisation);
  for (int i = 0; i < 2000; ++i) {
    const auto value = static_cast<float>(std::exp(random.uniform(-80, 80)));
    const float scale = round_up_to_int8_scale(value);
    REQUIRE(is_int8_scale(scale));
    REQUIRE(scale >= value);
    REQUIRE(scale <= value * 1.00004f);
    for (const int q : {1, 77, 126, 127}) {
      REQUIRE(static_cast<double>(scale * static_cast<float>(q)) == static_cast<double>(scale) * q);
    }
  }
  CHECK(is_int8_scale(round_up_to_int8_scale(0)));
  CHECK(is_int8_scale(round_up_to_int8_scale(std::numeric_limits<float>::max())));
  CHECK(round_up_to_int8_scale(0.5f) == 0.5f);
}

TEST_CASE("stochastic int8 encoding is unbiased") {
  // Each of n decoded values is off by at most a step s, variance at most s^2 / 4: the mean of n is
  // within 5 s / (2 sqrt(n)).
  constexpr std::uint64_t kSeed = 9;
  constexpr int kDraws = 2000;
  CAPTURE(kSeed);
  ModelLayout layout;
  layout.append("w", {3, 1});
  const std::vector<float> values{1.0f, 0.1234f, -0.4321f};
  const double step = 1.25 / 127;
  RandomStream random(kSeed, RandomPurpose::kTraining);
  std::vector<double> mean(3);
  for (int draw = 0; draw < kDraws; ++draw) {
    std::vector<float> out(3);
    const auto blob = encode_int8(values, layout, random);
    REQUIRE(decode_int8(blob.span(), layout, out).ok());
    for (std::size_t i = 0; i < 3; ++i) {
      REQUIRE(std::abs(static_cast<double>(out[i]) - static_cast<double>(values[i])) <=
              step * 1.001);
      mean[i] += static_cast<double>(out[i]) / kDraws;
    }
  }
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(std::abs(mean[i] - static_cast<double>(values[i])) < 5 * step / 2 / std::sqrt(kDraws));
  }
}

TEST_CASE("channels of zeros get a scale that training can use") {
  ModelLayout layout;
  layout.append("w", {2, 2});
  std::vector<float> out(4);
  const auto half_zero = encode_int8(std::vector<float>{0, 3, 0, 1}, layout, {.headroom = 1});
  REQUIRE(decode_int8(half_zero.span(), layout, out).ok());
  CHECK(out[0] == 0);
  CHECK(std::memcmp(half_zero.data(), half_zero.data() + sizeof(float), sizeof(float)) == 0);
  const auto zero = encode_int8(std::vector<float>(4), layout);
  float scale = 0;
  std::memcpy(&scale, zero.data(), sizeof scale);
  CHECK(scale == 0x1p-10f);
}

TEST_CASE("an int8 blob that no encoder writes is refused with the tensor's name") {
  const auto good = bytes_of(encode_int8(random_values(two_layers().size(), 3), two_layers()));
  CHECK(refusal(std::span(good).first(kSize - 1)) ==
        "int8 blob: 189 bytes where this model's 127 parameters take 190");
  for (const float scale : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(), 1e-40f, 3e38f, 0x1.00002p0f}) {
    CAPTURE(scale);
    auto bad = good;
    put(bad, kDenseScales + 2 * 4, scale);
    CHECK_THAT(refusal(bad),
               Catch::StartsWith("int8 blob: the scale of channel 2 of dense1.weight"));
  }
  auto bad = good;
  bad[kConvValues + 13] = std::byte{0x80};
  CHECK(refusal(bad) == "int8 blob: value 13 of conv1.weight is -128; values are -127 to 127");
  bad = good;
  put(bad, kConvBias + 4, std::numeric_limits<float>::infinity());
  CHECK(refusal(bad) == "int8 blob: conv1.bias[1] is inf");
}

TEST_CASE("values that are not finite make a blob that is refused") {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    auto values = random_values(two_layers().size(), 4);
    values[7] = bad;  // channel 2 of five
    CHECK_THAT(refusal(encode_int8(values, two_layers()).span()),
               Catch::StartsWith("int8 blob: the scale of channel 2 of conv1.weight is nan"));
  }
}
