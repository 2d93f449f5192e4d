#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <covey/bytes.hpp>
#include <covey/result.hpp>

namespace covey::transport {

/// A frame: u32 body length, u32 header length (both big-endian), header, payload.
/// body length = header length + payload length, at most the configured maximum.
inline constexpr std::size_t kFramePrefixBytes = 8;

struct FramePrefix {
  std::uint32_t body_bytes = 0;
  std::uint32_t header_bytes = 0;
};

/// Reads the eight bytes in front of a frame. Error, naming both figures, when the body is empty or
/// larger than `max_body_bytes`, or the header is longer than the body.
Result<FramePrefix> parse_prefix(std::span<const std::byte, kFramePrefixBytes> bytes,
                                 std::uint32_t max_body_bytes);
void write_prefix(FramePrefix prefix, std::span<std::byte, kFramePrefixBytes> out);

}  // namespace covey::transport
