#include <array>
#include <catch2/catch.hpp>
#include <covey/transport/frame.hpp>
#include <limits>

using namespace covey;
using transport::FramePrefix;

namespace {

using PrefixBytes = std::array<std::byte, transport::kFramePrefixBytes>;

PrefixBytes prefix_bytes(FramePrefix prefix) {
  PrefixBytes bytes{};
  transport::write_prefix(prefix, bytes);
  return bytes;
}

std::string refusal_of(FramePrefix prefix, std::uint32_t max_body_bytes) {
  const auto parsed = transport::parse_prefix(prefix_bytes(prefix), max_body_bytes);
  return parsed.ok() ? "accepted" : parsed.error().message;
}

}  // namespace

TEST_CASE("a frame's prefix is two big-endian lengths, body before header") {
  const auto bytes = prefix_bytes({.body_bytes = 0x01020304, .header_bytes = 0x00a0b0c0});
  const PrefixBytes expected{std::byte{1}, std::byte{2},    std::byte{3},    std::byte{4},
                             std::byte{0}, std::byte{0xa0}, std::byte{0xb0}, std::byte{0xc0}};
  CHECK(bytes == expected);
}

TEST_CASE("a written prefix is read back") {
  constexpr auto kMax = std::numeric_limits<std::uint32_t>::max();
  for (const FramePrefix prefix : {FramePrefix{1, 0}, FramePrefix{1, 1}, FramePrefix{300, 42},
                                   FramePrefix{kMax, kMax}, FramePrefix{kMax, 0x80000000}}) {
    const auto parsed = transport::parse_prefix(prefix_bytes(prefix), kMax);
    REQUIRE(parsed.ok());
    CHECK(parsed->body_bytes == prefix.body_bytes);
    CHECK(parsed->header_bytes == prefix.header_bytes);
  }
}

TEST_CASE("an empty body is refused") {
  CHECK(refusal_of({0, 0}, 1024) == "frame with an empty body (0 bytes, header 0 bytes)");
  CHECK(refusal_of({0, 7}, 1024) == "frame with an empty body (0 bytes, header 7 bytes)");
}

TEST_CASE("a body is accepted up to the limit and refused one byte above it") {
  CHECK(refusal_of({1024, 10}, 1024) == "accepted");
  CHECK(refusal_of({1025, 10}, 1024) ==
        "frame body of 1025 bytes is larger than the limit of 1024 bytes");
  CHECK(refusal_of({0xffffffff, 10}, 1024) ==
        "frame body of 4294967295 bytes is larger than the limit of 1024 bytes");
}

TEST_CASE("a header is accepted up to the body's length and refused one byte above it") {
  CHECK(refusal_of({100, 100}, 1024) == "accepted");
  CHECK(refusal_of({100, 101}, 1024) ==
        "frame header of 101 bytes is longer than its body of 100 bytes");
}

TEST_CASE("prefixes that are not acceptable are malformed input, not failures of ours") {
  CHECK(transport::parse_prefix(prefix_bytes({9, 10}), 1024).error().code == ErrorCode::kMalformed);
}
