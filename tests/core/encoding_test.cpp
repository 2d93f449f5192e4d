#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/bfloat16.hpp>
#include <covey/encoding.hpp>
#include <covey/int8_encoding.hpp>
#include <limits>
#include <vector>

using namespace covey;

namespace {

constexpr std::uint64_t kSeed = 20260114;
constexpr Encoding kAll[] = {Encoding::kFp32, Encoding::kBf16, Encoding::kInt8};

ModelLayout small_layout() {
  ModelLayout layout;
  layout.append("dense1.weight", {13, 7});
  layout.append("dense1.bias", {7});
  layout.append("conv1.weight", {3, 3, 2, 4});
  layout.append("conv1.bias", {4});
  return layout;
}

std::vector<float> random_values(std::size_t size, RandomPurpose purpose = RandomPurpose::kFault) {
  RandomStream random(kSeed, purpose);
  std::vector<float> values(size);
  for (float& value : values) value = static_cast<float>(random.normal(0, 0.1));
  return values;
}

std::vector<float> round_trip(Encoding encoding, const ModelLayout& layout,
                              const SharedBytes& bytes) {
  std::vector<float> values(layout.size());
  REQUIRE(decode(encoding, layout, bytes.span(), values).ok());
  return values;
}

bool same_bytes(const SharedBytes& a, const SharedBytes& b) {
  return std::ranges::equal(a.span(), b.span());
}

}  // namespace

TEST_CASE("encodings have names, and precisions say how their model travels") {
  for (const Encoding encoding : kAll) CHECK(encoding_named(to_string(encoding)) == encoding);
  CHECK_FALSE(encoding_named("fp16"));
  CHECK(*model_encoding("fp32") == Encoding::kFp32);
  CHECK(*model_encoding("qat-int8") == Encoding::kFp32);
  CHECK(*model_encoding("bf16") == Encoding::kBf16);
  CHECK(*model_encoding("int8") == Encoding::kInt8);
  const auto unknown = model_encoding("fp8");
  REQUIRE_FALSE(unknown.ok());
  CHECK_THAT(unknown.error().message, Catch::Contains("fp8") && Catch::Contains("qat-int8"));
}

TEST_CASE("an encoding's size is what encode writes, and any other is refused with both numbers") {
  const ModelLayout layout = small_layout();
  const auto values = random_values(layout.size());
  std::vector<float> out(layout.size());
  for (const Encoding encoding : kAll) {
    CAPTURE(to_string(encoding));
    const SharedBytes bytes = encode(encoding, layout, values);
    const std::size_t size = encoded_size(encoding, layout);
    REQUIRE(bytes.size() == size);
    const auto shorter = decode(encoding, layout, bytes.span().first(size - 1), out);
    REQUIRE_FALSE(shorter.ok());
    CHECK_THAT(shorter.error().message,
               Catch::Contains(std::to_string(size - 1)) && Catch::Contains(std::to_string(size)));
    std::vector<std::byte> longer(bytes.span().begin(), bytes.span().end());
    longer.emplace_back();
    CHECK_FALSE(decode(encoding, layout, longer, out).ok());
    CHECK_FALSE(decode(encoding, layout, {}, out).ok());
  }
  CHECK(encoded_size(Encoding::kFp32, layout) == 4 * (91 + 7 + 72 + 4));
  CHECK(encoded_size(Encoding::kBf16, layout) == 2 * (91 + 7 + 72 + 4));
  // Scales of 7 and 4 channels, a byte a weight, biases as they are.
  CHECK(encoded_size(Encoding::kInt8, layout) == 4 * 7 + 91 + 4 * 7 + 4 * 4 + 72 + 4 * 4);
}

TEST_CASE("fp32 keeps every bit, bf16 half a unit of 8 significant bits, int8 half a step") {
  CAPTURE(kSeed);
  const ModelLayout layout = small_layout();
  const auto values = random_values(layout.size());
  CHECK(round_trip(Encoding::kFp32, layout, encode(Encoding::kFp32, layout, values)) == values);
  const auto bf16 = round_trip(Encoding::kBf16, layout, encode(Encoding::kBf16, layout, values));
  const auto int8 = round_trip(Encoding::kInt8, layout, encode(Encoding::kInt8, layout, values));
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < values.size(); ++i) {
    CHECK(std::abs(bf16[i] - values[i]) <= std::abs(values[i]) * 0x1p-8f);
    CHECK(std::abs(int8[i] - values[i]) <= 0.51f * Int8Encoding().headroom * largest / 127);
  }
}

TEST_CASE("bf16 rounds to nearest, ties to even, and keeps what is not finite") {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto bits = [](std::uint32_t word) { return std::bit_cast<float>(word); };
  CHECK(float_to_bf16(1.0f) == 0x3f80);
  CHECK(float_to_bf16(-2.5f) == 0xc020);
  CHECK(float_to_bf16(bits(0x3f808000)) == 0x3f80);  // half way, to the even one below
  CHECK(float_to_bf16(bits(0x3f818000)) == 0x3f82);  // half way, to the even one above
  CHECK(float_to_bf16(bits(0x3f808001)) == 0x3f81);
  CHECK(float_to_bf16(bits(0x3f807fff)) == 0x3f80);
  CHECK(float_to_bf16(-0.0f) == 0x8000);
  CHECK(float_to_bf16(infinity) == 0x7f80);
  CHECK(float_to_bf16(-infinity) == 0xff80);
  CHECK(bf16_to_float(float_to_bf16(std::numeric_limits<float>::max())) == infinity);
  for (const std::uint32_t nan : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0x7fc00000u}) {
    for (const std::uint16_t random : {std::uint16_t{0}, std::uint16_t{0xffff}}) {
      CHECK(std::isnan(bf16_to_float(float_to_bf16(bits(nan)))));
      CHECK(std::isnan(bf16_to_float(float_to_bf16(bits(nan), random))));
    }
  }
  CHECK(float_to_bf16(infinity, 0xffff) == 0x7f80);
  CHECK(float_to_bf16(-infinity, 0xffff) == 0xff80);
  // Every bf16 is its own nearest.
  for (std::uint32_t word = 0; word < 0x10000; ++word) {
    const float value = bf16_to_float(static_cast<std::uint16_t>(word));
    if (!std::isnan(value)) REQUIRE(float_to_bf16(value) == word);
  }
}

TEST_CASE("stochastic rounding lands on a neighbour and is unbiased") {
  CAPTURE(kSeed);
  const auto encoding = GENERATE(Encoding::kBf16, Encoding::kInt8);
  CAPTURE(to_string(encoding));
  ModelLayout layout;
  constexpr std::uint32_t kCopies = 40000;
  layout.append("weight", {kCopies + 1, 1});
  constexpr float kValue = 1.0f + 0.3f / 128;  // three tenths of the way between two bf16
  std::vector<float> values(kCopies + 1, kValue);
  values.back() = 127.0f / 64;  // int8's step is then 1/64
  RandomStream random(kSeed, RandomPurpose::kUpdateRounding);
  const auto decoded = round_trip(encoding, layout, encode(encoding, layout, values, &random));
  double sum = 0;
  const float step = encoding == Encoding::kBf16 ? 1.0f / 128 : 1.0f / 64;
  for (std::uint32_t i = 0; i < kCopies; ++i) {
    CHECK((decoded[i] == 1.0f || decoded[i] == 1.0f + step));
    sum += decoded[i];
  }
  // The mean's standard deviation is at most step / (2 sqrt(40,000)): six of them.
  CHECK(std::abs(sum / kCopies - kValue) < 6 * step / 400);
  RandomStream again(kSeed, RandomPurpose::kUpdateRounding);
  RandomStream other(kSeed + 1, RandomPurpose::kUpdateRounding);
  const SharedBytes first = encode(encoding, layout, decoded, &again);
  CHECK(same_bytes(first, encode(encoding, layout, decoded, &other)));  // what fits is not moved
}

TEST_CASE("a difference is encoded as if it had been formed first") {
  CAPTURE(kSeed);
  const ModelLayout layout = small_layout();
  const auto trained = random_values(layout.size());
  const auto initial = random_values(layout.size(), RandomPurpose::kLoadTest);
  std::vector<float> difference(layout.size());
  for (std::size_t i = 0; i < difference.size(); ++i) difference[i] = trained[i] - initial[i];
  for (const Encoding encoding : kAll) {
    CAPTURE(to_string(encoding));
    const SharedBytes formed_first = encoding == Encoding::kInt8
                                         ? encode_int8(difference, layout, {.headroom = 1})
                                         : encode(encoding, layout, difference);
    CHECK(same_bytes(encode_difference(encoding, layout, trained, initial), formed_first));
    RandomStream a(kSeed, RandomPurpose::kUpdateRounding), b = a, c(kSeed, RandomPurpose::kFault);
    const SharedBytes first = encode_difference(encoding, layout, trained, initial, &a);
    CHECK(same_bytes(first, encode_difference(encoding, layout, trained, initial, &b)));
    if (encoding != Encoding::kFp32) {
      CHECK_FALSE(same_bytes(first, encode_difference(encoding, layout, trained, initial, &c)));
    }
  }
}

TEST_CASE("an empty model has an empty encoding") {
  const ModelLayout layout;
  for (const Encoding encoding : kAll) {
    CHECK(encode(encoding, layout, {}).empty());
    CHECK(decode(encoding, layout, {}, {}).ok());
  }
}
