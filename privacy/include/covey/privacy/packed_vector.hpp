#pragma once

#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace covey::privacy {

/// Vectors of integers, packed so that adding two packed vectors adds their coordinates, at exactly
/// m bits a coordinate and without unpacking.
///
/// A block holds 512 coordinates in m rows of 8 lanes of 64 bits (64 * m bytes, little-endian, rows
/// in order). Each lane of a block is one integer of 64 * m bits, its rows from the lowest word up,
/// and holds 64 coordinates: coordinate 8 * j + lane of the block stands at bit j * m. Packing x is
/// the linear map lane = sum_j x_j * 2^(j * m) mod 2^(64 m), also for negative x_j; so sums of
/// packed vectors (lane by lane, carries running up the rows) are packed sums, and unpacking is
/// exact while every sum lies in [0, 2^m). A lane of uniform bits is a one-time pad for it.
struct PackedFormat {
  static constexpr std::size_t kLanes = 8;
  static constexpr std::size_t kBlockCoordinates = 512;
  static constexpr std::uint32_t kMinSumBits = 2;
  static constexpr std::uint32_t kMaxSumBits = 56;

  std::uint32_t sum_bits = 0;   ///< m
  std::size_t coordinates = 0;  ///< >= 1; the last block is filled up with zeros

  std::size_t blocks() const { return (coordinates + kBlockCoordinates - 1) / kBlockCoordinates; }
  std::size_t block_words() const { return kLanes * sum_bits; }
  std::size_t words() const { return blocks() * block_words(); }
  std::size_t bytes() const { return 8 * words(); }
  bool operator==(const PackedFormat&) const = default;
};

/// `values`: format.coordinates of them, of any sign, below 2^62 in magnitude; `words`:
/// format.words() of them, overwritten.
void pack(const PackedFormat& format, std::span<const std::int64_t> values,
          std::span<std::uint64_t> words);
/// The inverse, for coordinates in [0, 2^m).
void unpack(const PackedFormat& format, std::span<const std::uint64_t> words,
            std::span<std::int64_t> values);

/// sum += packed. `packed`: format.bytes() of them, of any alignment.
void add_packed(const PackedFormat& format, std::span<const std::byte> packed,
                std::span<std::uint64_t> sum);

}  // namespace covey::privacy
