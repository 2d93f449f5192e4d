#include <algorithm>
#include <covey/random.hpp>
#include <covey/transport/frame.hpp>
#include <cstring>

#include "../../transport/frame_reader.hpp"
#include "connection_test_support.hpp"

namespace covey::transport::testing {
namespace {

std::vector<std::byte> wire_bytes(const proto::Encoded& frame) {
  std::vector<std::byte> bytes(kFramePrefixBytes);
  write_prefix(
      {static_cast<std::uint32_t>(frame.size()), static_cast<std::uint32_t>(frame.header.size())},
      std::span<std::byte, kFramePrefixBytes>(bytes));
  bytes.insert(bytes.end(), frame.header.begin(), frame.header.end());
  bytes.insert(bytes.end(), frame.payload.span().begin(), frame.payload.span().end());
  return bytes;
}

}  // namespace

TEST_CASE("frames are put together whatever the pieces they come in") {
  constexpr std::uint64_t kSeed = 20;
  INFO("seed " << kSeed);
  RandomStream random(kSeed, RandomPurpose::kLoadTest);
  std::vector<proto::Encoded> sent;
  std::vector<std::byte> stream;
  for (std::uint64_t i = 0; i < 60; ++i) {
    const std::size_t header = static_cast<std::size_t>(random.below(200));
    const std::size_t payload = static_cast<std::size_t>(random.below(200000));
    sent.push_back(frame_of(header, header == 0 ? payload + 1 : payload, i));
    const std::vector<std::byte> bytes = wire_bytes(sent.back());
    stream.insert(stream.end(), bytes.begin(), bytes.end());
  }
  FrameReader reader(1 << 20);
  std::size_t at = 0;
  std::size_t complete = 0;
  while (at < stream.size()) {
    const std::span<std::byte> target = reader.target();
    REQUIRE_FALSE(target.empty());
    const std::size_t piece = std::min<std::size_t>(
        {target.size(), stream.size() - at, static_cast<std::size_t>(random.below(40000) + 1)});
    std::memcpy(target.data(), stream.data() + at, piece);
    at += piece;
    const Result<bool> whole = reader.advance(piece);
    REQUIRE(whole.ok());
    if (!*whole) continue;
    const FrameReader::Frame frame = reader.take();
    REQUIRE(std::equal(frame.header.begin(), frame.header.end(), sent[complete].header.begin(),
                       sent[complete].header.end()));
    const auto expected = sent[complete].payload.span();
    REQUIRE(std::equal(frame.payload.span().begin(), frame.payload.span().end(), expected.begin(),
                       expected.end()));
    ++complete;
  }
  CHECK(complete == sent.size());
  CHECK(reader.between_frames());
}

TEST_CASE("a claimed size costs no memory before bytes come") {
  FrameReader reader(1U << 30);
  std::vector<std::byte> prefix(kFramePrefixBytes);
  write_prefix({1U << 30, 8}, std::span<std::byte, kFramePrefixBytes>(prefix));
  std::memcpy(reader.target().data(), prefix.data(), prefix.size());
  REQUIRE(reader.advance(prefix.size()).ok());
  CHECK(reader.allocated() == 0);
  std::size_t received = 0;
  while (received < (8U << 20)) {
    const std::size_t room = reader.target().size();
    // Never more ahead than 64 KiB or what has come already.
    REQUIRE(reader.allocated() - received <= std::max(FrameReader::kAheadBytes, received));
    const std::size_t piece = std::min<std::size_t>(room, 10000);
    REQUIRE(reader.advance(piece).ok());
    received += piece;
  }
  CHECK(reader.body_received() == received);
  CHECK(reader.body_expected() == 1U << 30);
}

TEST_CASE("a prefix that is not acceptable is an error") {
  for (const FramePrefix bad : {FramePrefix{0, 0}, FramePrefix{101, 1}, FramePrefix{10, 11}}) {
    FrameReader reader(100);
    std::vector<std::byte> prefix(kFramePrefixBytes);
    write_prefix(bad, std::span<std::byte, kFramePrefixBytes>(prefix));
    std::memcpy(reader.target().data(), prefix.data(), prefix.size());
    CHECK_FALSE(reader.advance(prefix.size()).ok());
  }
}

}  // namespace covey::transport::testing
