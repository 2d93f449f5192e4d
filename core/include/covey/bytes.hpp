#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include <covey/digest.hpp>

namespace covey {

/// A shared, immutable run of bytes: a slice of a buffer that somebody keeps alive. Copying it copies
/// a pointer, so one model serves any number of receivers. Any thread may read.
class SharedBytes {
 public:
  SharedBytes() = default;
  explicit SharedBytes(std::vector<std::byte> bytes)
      : SharedBytes(std::make_shared<const Buffer>(std::move(bytes))) {}
  /// `owner` keeps `view` alive (a mapped file, a larger buffer).
  SharedBytes(std::shared_ptr<const void> owner, std::span<const std::byte> view)
      : owner_(std::move(owner)), view_(view) {}

  std::span<const std::byte> span() const { return view_; }
  const std::byte* data() const { return view_.data(); }
  std::size_t size() const { return view_.size(); }
  bool empty() const { return view_.empty(); }
  /// All of what `owner` owns: unlike of a part of it, the digest is computed once.
  static SharedBytes whole(std::shared_ptr<const void> owner, std::span<const std::byte> all) {
    return SharedBytes(std::make_shared<const Buffer>(std::move(owner), all));
  }

  /// What keeps the bytes alive: to watch whether anybody still does.
  const std::shared_ptr<const void>& owner() const { return owner_; }

  /// Bytes [offset, offset + length); the caller keeps the range inside.
  SharedBytes slice(std::size_t offset, std::size_t length) const {
    SharedBytes part(owner_, view_.subspan(offset, length));
    part.buffer_ = buffer_;
    return part;
  }

  /// SHA-256 of these bytes. Of a whole buffer it is computed once for all who share it: a simulated
  /// fleet hashes a model once, while bytes that crossed a network are a buffer of their own.
  Digest digest() const;

 private:
  struct Buffer {
    explicit Buffer(std::vector<std::byte> b) : bytes(std::move(b)), all(bytes) {}
    Buffer(std::shared_ptr<const void> o, std::span<const std::byte> a)
        : owner(std::move(o)), all(a) {}
    std::vector<std::byte> bytes;       ///< what `all` is of, or
    std::shared_ptr<const void> owner;  ///< who keeps it alive
    std::span<const std::byte> all;
    mutable std::once_flag hashed;
    mutable Digest digest;
  };
  explicit SharedBytes(std::shared_ptr<const Buffer> buffer)
      : buffer_(buffer.get()), owner_(buffer), view_(buffer->all) {}
  const Buffer* buffer_ = nullptr;  ///< what owner_ owns, when it is a Buffer
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> view_;
};

}  // namespace covey
