// Input: one byte that says in pieces of what size the rest arrives (0: as large as the reader
// takes); the rest is the stream of a connection. Reads it as a connection does: frames put
// together, split into header and payload, decoded. Checks on the way what bounds the reader's
// memory.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "codec_round_trip.hpp"
#include "frame_reader.hpp"

namespace {

constexpr std::uint32_t kMaxBodyBytes = 1 << 20;

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void check_frame(const covey::transport::FrameReader::Frame& frame) {
  covey::transport::FramePrefix prefix{
      .body_bytes = static_cast<std::uint32_t>(frame.header.size() + frame.payload.size()),
      .header_bytes = static_cast<std::uint32_t>(frame.header.size())};
  std::array<std::byte, covey::transport::kFramePrefixBytes> bytes{};
  covey::transport::write_prefix(prefix, bytes);
  const auto again = covey::transport::parse_prefix(bytes, kMaxBodyBytes);
  check(again.ok() && again->body_bytes == prefix.body_bytes &&
            again->header_bytes == prefix.header_bytes,
        "a frame that was read cannot be written");
  covey::fuzz::decode_as_both_ends(frame.header, frame.payload);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t piece = data[0] == 0 ? size : data[0];
  auto stream = std::as_bytes(std::span(data + 1, size - 1));
  covey::transport::FrameReader reader(kMaxBodyBytes);
  while (!stream.empty()) {
    const auto target = reader.target();
    check(!target.empty(), "nowhere to put the next byte");
    const std::size_t count = std::min({piece, target.size(), stream.size()});
    std::memcpy(target.data(), stream.data(), count);
    stream = stream.subspan(count);
    const auto complete = reader.advance(count);
    if (!complete.ok()) return 0;  // the connection is closed
    check(reader.allocated() <=
              2 * reader.body_received() + covey::transport::FrameReader::kAheadBytes,
          "more memory than twice what was sent");
    if (*complete) check_frame(reader.take());
  }
  return 0;
}
