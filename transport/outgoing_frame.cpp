#include "outgoing_frame.hpp"

#include <array>
#include <covey/assert.hpp>
#include <covey/transport/frame.hpp>
#include <cstdint>
#include <limits>
#include <utility>

namespace covey::transport {

OutgoingFrame::OutgoingFrame(proto::Encoded frame)
    : head_(std::move(frame.header)), payload_(std::move(frame.payload)) {
  const std::size_t body = size();
  COVEY_ASSERT(body > 0 && body <= std::numeric_limits<std::uint32_t>::max());
  std::array<std::byte, kFramePrefixBytes> prefix{};
  write_prefix({static_cast<std::uint32_t>(body), static_cast<std::uint32_t>(head_.size())},
               prefix);
  head_.insert(head_.begin(), prefix.begin(), prefix.end());
}

std::span<const std::byte> OutgoingFrame::rest() const {
  if (sent_ < head_.size()) return std::span(head_).subspan(sent_);
  return payload_.span().subspan(sent_ - head_.size());
}

}  // namespace covey::transport
