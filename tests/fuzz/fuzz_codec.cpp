// Input: one byte, the payload's length; the payload; the rest is the header.
#include <algorithm>
#include <cstdint>

#include "codec_round_trip.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto input = std::as_bytes(std::span(data, size));
  const std::size_t payload_bytes = std::min<std::size_t>(data[0], size - 1);
  const auto payload = input.subspan(1, payload_bytes);
  covey::fuzz::decode_as_both_ends(
      input.subspan(1 + payload_bytes),
      covey::SharedBytes(std::vector<std::byte>(payload.begin(), payload.end())));
  return 0;
}
