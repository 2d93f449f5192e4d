#pragma once

#include <bit>
#include <cstdint>

/// bfloat16: the upper 16 bits of an IEEE-754 single, so 8 significant bits over the same range.
/// A NaN stays a (quiet) NaN and an infinity an infinity.
namespace covey {

inline float bf16_to_float(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

namespace detail {

/// `addend` below 2^16 is added to the magnitude's dropped half, whose carry rounds it up.
/// Branch-free apart from a select, so loops over it vectorise.
inline std::uint16_t round_to_bf16(float value, std::uint32_t addend) {
  constexpr std::uint32_t kMagnitude = 0x7fffffff, kInfinity = 0x7f800000, kQuiet = 0x00400000;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const bool nan = (bits & kMagnitude) > kInfinity;
  return static_cast<std::uint16_t>((nan ? bits | kQuiet : bits + addend) >> 16);
}

}  // namespace detail

/// Nearest, ties to even. Beyond the largest bfloat16 (3.39e38) it is infinite.
inline std::uint16_t float_to_bf16(float value) {
  const std::uint32_t odd = (std::bit_cast<std::uint32_t>(value) >> 16) & 1;
  return detail::round_to_bf16(value, 0x7fff + odd);
}

/// Away from zero with the chance of the dropped part over the distance of the two neighbours, so
/// that the expectation is `value`. random_bits: uniform.
inline std::uint16_t float_to_bf16(float value, std::uint16_t random_bits) {
  return detail::round_to_bf16(value, random_bits);
}

}  // namespace covey
