#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace covey {

/// A shared, immutable run of bytes: a slice of a buffer that somebody keeps alive. Copying it copies
/// a pointer, so one model serves any number of receivers. Any thread may read.
class SharedBytes {
 public:
  SharedBytes() = default;
  explicit SharedBytes(std::vector<std::byte> bytes) {
    auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
    view_ = *owner;
    owner_ = std::move(owner);
  }
  /// `owner` keeps `view` alive (a mapped file, a larger buffer).
  SharedBytes(std::shared_ptr<const void> owner, std::span<const std::byte> view)
      : owner_(std::move(owner)), view_(view) {}

  std::span<const std::byte> span() const { return view_; }
  const std::byte* data() const { return view_.data(); }
  std::size_t size() const { return view_.size(); }
  bool empty() const { return view_.empty(); }

  /// Bytes [offset, offset + length); the caller keeps the range inside.
  SharedBytes slice(std::size_t offset, std::size_t length) const {
    return SharedBytes(owner_, view_.subspan(offset, length));
  }

 private:
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> view_;
};

}  // namespace covey
