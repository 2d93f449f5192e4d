#pragma once

#include <covey/result.hpp>
#include <cstddef>
#include <span>
#include <string_view>

#include "random_halves.hpp"

namespace covey::compression {

/// Values as whole multiples -L .. L of their block's step, L = 2^(bits-1) - 1. For n values:
///   a step for each block of `block` values, 2 bytes: the upper half of a single, not negative, L
///   times it finite; multiple + L of each value in `bits` bits (2, 4 or 8), the lowest bits of a
///   byte first, the last byte filled with zeros.
struct BlockFormat {
  unsigned bits = 8;
  std::size_t block = 256;  ///< a power of two, at most 256

  int levels() const { return (1 << (bits - 1)) - 1; }
  std::size_t steps_bytes(std::size_t count) const { return (count + block - 1) / block * 2; }
  std::size_t bytes(std::size_t count) const { return steps_bytes(count) + (count * bits + 7) / 8; }
};

/// Appends nothing: writes format.bytes(values.size()) at `out`. With `random` the step is that
/// which the block's largest magnitude asks for, and rounding is stochastic: without bias, with
/// QSGD's bound (Alistarh et al. 2017, lemma 3.1) in every block, E|Q(x) - x|^2 <= min(n/L^2,
/// sqrt(n)/L) |x|^2. Without it both are chosen for a small error.
void encode_blocks(const BlockFormat& format, std::span<const float> values, RandomHalves* random,
                   std::byte* out);

/// Error unless `bytes` is what encode_blocks may write for `count` values.
Result<void> check_blocks(std::string_view name, const BlockFormat& format,
                          std::span<const std::byte> bytes, std::size_t count);
/// bytes: checked.
void decode_blocks(const BlockFormat& format, std::span<const std::byte> bytes,
                   std::span<float> out);

}  // namespace covey::compression
