#pragma once

#include <covey/bytes.hpp>
#include <covey/proto/codec.hpp>
#include <cstddef>
#include <span>
#include <vector>

namespace covey::transport {

/// A frame on its way out. The payload is written from where it lies.
class OutgoingFrame {
 public:
  explicit OutgoingFrame(proto::Encoded frame);
  /// What can be written in one go; never empty before `done`.
  std::span<const std::byte> rest() const;
  void advance(std::size_t count) { sent_ += count; }
  bool done() const { return sent_ == size(); }
  std::size_t size() const { return head_.size() + payload_.size(); }

 private:
  std::vector<std::byte> head_;  ///< prefix and header
  SharedBytes payload_;
  std::size_t sent_ = 0;
};

}  // namespace covey::transport
