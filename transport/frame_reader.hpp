#pragma once

#include <array>
#include <covey/bytes.hpp>
#include <covey/result.hpp>
#include <covey/transport/frame.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace covey::transport {

/// Puts frames together from bytes as they come: the caller writes into `target` and says how much.
/// Bytes land in the body they belong to, and the payload is a slice of it: no copy afterwards. A
/// peer pays for memory with bytes: at most kAheadBytes, or as much as it has already sent of this
/// frame, is allocated beyond what arrived. No thread of its own.
class FrameReader {
 public:
  static constexpr std::size_t kAheadBytes = 64 * 1024;

  struct Frame {
    std::span<const std::byte> header;  ///< inside payload's buffer; valid while `owner` is held
    SharedBytes payload;
    std::shared_ptr<const void> owner;
  };

  explicit FrameReader(std::uint32_t max_body_bytes) : max_body_bytes_(max_body_bytes) {}

  /// Where the next bytes go; never empty.
  std::span<std::byte> target();
  /// The first `count` bytes of `target` were written. True when a frame is complete: take it
  /// before going on. Error when the frame's prefix is not acceptable; the stream is lost then.
  Result<bool> advance(std::size_t count);
  Frame take();

  bool between_frames() const { return !in_body_ && filled_ == 0; }
  /// Bytes received and expected of the frame under way, without its prefix.
  std::size_t body_received() const { return in_body_ ? filled_ : 0; }
  std::size_t body_expected() const { return in_body_ ? prefix_.body_bytes : 0; }
  std::size_t allocated() const { return capacity_; }

 private:
  void grow();

  std::uint32_t max_body_bytes_;
  bool in_body_ = false;
  std::array<std::byte, kFramePrefixBytes> prefix_bytes_{};
  FramePrefix prefix_;
  std::shared_ptr<std::byte[]> body_;
  std::size_t capacity_ = 0;
  std::size_t filled_ = 0;  ///< of the prefix, then of the body
};

}  // namespace covey::transport
