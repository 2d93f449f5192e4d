#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <covey/parameter_vector.hpp>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace covey {

TEST_CASE("a layout places tensors one behind the other without gaps") {
  ModelLayout layout;
  CHECK(layout.append("dense1.weight", {200, 784}) == 0);
  CHECK(layout.append("dense1.bias", {200}) == 156800);
  CHECK(layout.append("scale", {}) == 157000);  // a scalar takes one float
  CHECK(layout.size() == 157001);
  REQUIRE(layout.tensors().size() == 3);
  CHECK(layout.tensors()[1].name == "dense1.bias");
  CHECK(layout.tensors()[1].offset == 156800);
}

TEST_CASE("a parameter vector begins as zeros on a 64-byte boundary") {
  for (const std::size_t size : {1u, 15u, 16u, 1000u}) {
    const ParameterVector vector(size);
    CHECK(reinterpret_cast<std::uintptr_t>(vector.data()) % 64 == 0);
    CHECK(std::ranges::all_of(vector.span(), [](float x) { return x == 0; }));
    CHECK(vector.size() == size);
  }
}

TEST_CASE("a clone does not share its floats, a moved vector keeps them") {
  ParameterVector vector(3);
  vector[1] = 2;
  ParameterVector copy = vector.clone();
  copy[1] = 5;
  CHECK(vector[1] == 2);
  const float* place = vector.data();
  const ParameterVector moved = std::move(vector);
  CHECK(moved.data() == place);
}

TEST_CASE("empty vectors can be cloned and encoded") {
  const ParameterVector none;
  CHECK(none.clone().size() == 0);
  CHECK(encode_fp32(none.span()).empty());
  ParameterVector out;
  CHECK(decode_fp32({}, out.span()).ok());
}

TEST_CASE("fp32 bytes are little-endian IEEE-754") {
  const std::vector<float> values{1.0f};  // 0x3f800000
  const SharedBytes bytes = encode_fp32(values);
  const std::vector<std::byte> expected{std::byte{0}, std::byte{0}, std::byte{0x80},
                                        std::byte{0x3f}};
  CHECK(std::ranges::equal(bytes.span(), expected));
}

TEST_CASE("fp32 keeps every bit, of infinities, NaN and negative zero as well") {
  const std::vector<float> values{-0.0f, std::numeric_limits<float>::infinity(),
                                  std::numeric_limits<float>::quiet_NaN(),
                                  std::numeric_limits<float>::denorm_min(), 3.14159f};
  std::vector<float> back(values.size());
  REQUIRE(decode_fp32(encode_fp32(values).span(), back).ok());
  for (std::size_t i = 0; i < values.size(); ++i) {
    CHECK(std::bit_cast<std::uint32_t>(back[i]) == std::bit_cast<std::uint32_t>(values[i]));
  }
}

TEST_CASE("bytes of another length are refused with both lengths") {
  const SharedBytes bytes = encode_fp32(std::vector<float>{1, 2});
  std::vector<float> out(3, 7.0f);
  const auto result = decode_fp32(bytes.span(), out);
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().code == ErrorCode::kMalformed);
  CHECK_THAT(result.error().message, Catch::Contains("8 bytes") && Catch::Contains("12"));
  CHECK(out == std::vector<float>(3, 7.0f));
  CHECK_FALSE(decode_fp32(bytes.span().first(7), std::span(out).first(2)).ok());
}

}  // namespace covey
