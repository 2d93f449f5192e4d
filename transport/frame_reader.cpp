#include "frame_reader.hpp"

#include <algorithm>
#include <covey/assert.hpp>
#include <utility>

namespace covey::transport {

std::span<std::byte> FrameReader::target() {
  if (!in_body_) return std::span(prefix_bytes_).subspan(filled_);
  if (filled_ == capacity_) grow();
  return {body_.get() + filled_, capacity_ - filled_};
}

Result<bool> FrameReader::advance(std::size_t count) {
  filled_ += count;
  if (in_body_) return filled_ == prefix_.body_bytes;
  if (filled_ < kFramePrefixBytes) return false;
  COVEY_ASSIGN(prefix_, parse_prefix(prefix_bytes_, max_body_bytes_));
  in_body_ = true;
  filled_ = 0;
  return false;  // parse_prefix refuses empty bodies
}

FrameReader::Frame FrameReader::take() {
  COVEY_ASSERT(in_body_ && filled_ == prefix_.body_bytes);
  Frame frame;
  frame.owner = std::shared_ptr<const void>(body_, body_.get());
  const std::span<const std::byte> body(body_.get(), filled_);
  frame.header = body.first(prefix_.header_bytes);
  if (prefix_.header_bytes < prefix_.body_bytes) {
    frame.payload = SharedBytes(frame.owner, body.subspan(prefix_.header_bytes));
  }
  body_.reset();
  capacity_ = 0;
  filled_ = 0;
  in_body_ = false;
  return frame;
}

void FrameReader::grow() {
  const std::size_t wanted = capacity_ + std::max(kAheadBytes, capacity_);
  const std::size_t capacity = std::min<std::size_t>(prefix_.body_bytes, wanted);
  auto larger = std::make_shared_for_overwrite<std::byte[]>(capacity);
  std::copy_n(body_.get(), filled_, larger.get());
  body_ = std::move(larger);
  capacity_ = capacity;
}

}  // namespace covey::transport
