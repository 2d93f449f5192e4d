#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <covey/compression/compressor.hpp>
#include <covey/random.hpp>
#include <cstddef>

namespace covey::compression {

/// A part of an update that is rotated by itself.
struct RotatedBlock {
  std::size_t start = 0;
  std::size_t count = 0;  ///< values of the update
  std::size_t size = 0;   ///< with zeros behind them up to a power of two, a multiple of 8
};

/// 64 KiB, so that a rotation stays in the second-level cache, while the 4 bytes of a block's scale
/// are 0.002 bits a value. A share of the error falls to each block as of the whole, so nothing is
/// lost.
inline constexpr std::size_t kLargestBlock = std::size_t{1} << 14;
/// Below this the rest is filled up instead of being cut further: at most 31 values.
inline constexpr std::size_t kSmallestBlock = 64;

/// The blocks of R^size: as many of 2^14 as fit, then the binary digits of the rest.
inline RotatedBlock rotated_block_at(std::size_t start, std::size_t size) {
  const std::size_t left = size - start;
  if (left < kSmallestBlock) return {start, left, std::max<std::size_t>(8, std::bit_ceil(left))};
  const std::size_t block = std::min(kLargestBlock, std::bit_floor(left));
  return {start, block, block};
}
inline std::size_t num_rotated_blocks(std::size_t size) {
  std::size_t blocks = 0;
  for (std::size_t at = 0; at < size; ++blocks) at += rotated_block_at(at, size).count;
  return blocks;
}
/// Values of all blocks, with the zeros.
inline std::size_t rotated_size(std::size_t size) {
  std::size_t total = 0;
  for (std::size_t at = 0; at < size;) {
    const RotatedBlock block = rotated_block_at(at, size);
    total += block.size;
    at += block.count;
  }
  return total;
}

/// The rotations of one update, block after block: random signs from (seed, kRotation, round,
/// client), then the Walsh-Hadamard transform over sqrt(size). Every device has its own, so that
/// errors of several do not add up. Not thread-safe.
class Rotation {
 public:
  explicit Rotation(const UpdateName& name)
      : random_(name.seed, RandomPurpose::kRotation, name.round, name.client) {}

  /// Of the next block, in place.
  void rotate(float* values, std::size_t size);
  void rotate_back(float* values, std::size_t size);

 private:
  const std::uint32_t* next_signs(std::size_t size);

  RandomStream random_;
  std::array<std::uint32_t, kLargestBlock / 32> signs_{};
};

/// Scales of blocks, as they are sent: from 0 to 2^100, so that what is rotated back is finite.
float held_scale(double scale);
bool is_scale(float scale);
/// Error naming the first of the `count` scales at the start of `bytes` that is none.
Result<void> check_scales(std::string_view name, std::span<const std::byte> bytes,
                          std::size_t count);

}  // namespace covey::compression
