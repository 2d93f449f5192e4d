#pragma once

#include <cstddef>
#include <cstdint>

/// Rounding to whole numbers that every instruction set does to the same result, and that compilers
/// turn into vectors: no branches, no calls.
namespace covey::compression {

/// Up if the fraction is above threshold / 65536. |value| < 2^31. The fraction is exact, since
/// floor and the difference to it are.
inline std::int32_t round_above(float value, float threshold) {
  const auto towards_zero = static_cast<std::int32_t>(value);
  const std::int32_t floor = towards_zero - (static_cast<float>(towards_zero) > value ? 1 : 0);
  const float fraction = value - static_cast<float>(floor);
  return floor + (fraction * 65536.0f > threshold ? 1 : 0);
}

/// To the nearest, a half down.
inline constexpr float kHalf = 32768.0f;
/// A threshold from 16 random bits: up with the chance of the fraction, off by at most 2^-17. Whole
/// numbers stay as they are.
inline float random_threshold(std::uint16_t random) { return static_cast<float>(random) + 0.5f; }

/// Sums in an order that does not depend on the instruction set: 16 lanes in single precision over
/// runs of 1,024 values, the runs' sums in double. Relative error of a sum of n terms of one sign:
/// below 64 * 2^-24 = 4e-6.
double sum_of_magnitudes(const float* values, std::size_t size);
double sum_of_squares(const float* values, std::size_t size);
double sum_of_products(const float* a, const float* b, std::size_t size);
/// max |x|, 0 of none.
float largest_magnitude(const float* values, std::size_t size);

}  // namespace covey::compression
