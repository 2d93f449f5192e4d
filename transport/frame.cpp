#include <fmt/format.h>

#include <covey/transport/frame.hpp>

namespace covey::transport {
namespace {

std::uint32_t read_u32(std::span<const std::byte, 4> bytes) {
  return std::to_integer<std::uint32_t>(bytes[0]) << 24 |
         std::to_integer<std::uint32_t>(bytes[1]) << 16 |
         std::to_integer<std::uint32_t>(bytes[2]) << 8 | std::to_integer<std::uint32_t>(bytes[3]);
}

void write_u32(std::uint32_t value, std::span<std::byte, 4> out) {
  for (std::size_t i = 0; i < 4; ++i) {
    out[i] = static_cast<std::byte>((value >> (24 - 8 * i)) & 0xff);
  }
}

}  // namespace

Result<FramePrefix> parse_prefix(std::span<const std::byte, kFramePrefixBytes> bytes,
                                 std::uint32_t max_body_bytes) {
  const FramePrefix prefix{.body_bytes = read_u32(bytes.first<4>()),
                           .header_bytes = read_u32(bytes.last<4>())};
  if (prefix.body_bytes == 0) {
    return malformed(
        fmt::format("frame with an empty body (0 bytes, header {} bytes)", prefix.header_bytes));
  }
  if (prefix.body_bytes > max_body_bytes) {
    return malformed(fmt::format("frame body of {} bytes is larger than the limit of {} bytes",
                                 prefix.body_bytes, max_body_bytes));
  }
  if (prefix.header_bytes > prefix.body_bytes) {
    return malformed(fmt::format("frame header of {} bytes is longer than its body of {} bytes",
                                 prefix.header_bytes, prefix.body_bytes));
  }
  return prefix;
}

void write_prefix(FramePrefix prefix, std::span<std::byte, kFramePrefixBytes> out) {
  write_u32(prefix.body_bytes, out.first<4>());
  write_u32(prefix.header_bytes, out.last<4>());
}

}  // namespace covey::transport
