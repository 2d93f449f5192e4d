#pragma once

#include <array>
#include <covey/compression/compressor.hpp>
#include <covey/random.hpp>
#include <cstdint>
#include <span>

namespace covey::compression {

/// The random bits that one update is rounded with, 16 a value: the stream (seed, kUpdateRounding,
/// round, client), drawn many blocks at a time. Not thread-safe.
class RandomHalves {
 public:
  static constexpr std::size_t kChunk = 2048;  ///< values a call serves

  explicit RandomHalves(const UpdateName& name);
  /// The next chunk's; they stay until the next call.
  std::span<const std::uint16_t, kChunk> next();

 private:
  RandomStream::Blocks stream_;
  std::uint32_t next_block_ = 0;
  alignas(64) std::array<std::uint16_t, kChunk> halves_{};
};

}  // namespace covey::compression
