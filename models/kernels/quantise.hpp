#pragma once

#include "kernels/elementwise.hpp"
#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// Rounding to the 255 values that int8 can hold and back to floats, for training that sees what an
/// exported model will compute (quantisation-aware training).
namespace covey::models::COVEY_KERNELS {

/// Largest magnitude of int8; -128 is not used, so that the values lie symmetrically.
inline constexpr float kMostSteps = 127.0f;
/// (0.5 - 2e-5)^2
inline constexpr float kNextToTie = 0.24998f;

COVEY_INLINE Vector magnitude(Vector x) {
  IntVector bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  bits &= 0x7fffffff;  // all but the sign
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

/// The nearest whole number, ties to even, of |x| < 2^22: adding 1.5 * 2^23 leaves no bits behind
/// the point.
COVEY_INLINE Vector nearest(Vector x) {
  const Vector rounder = broadcast(12582912.0f);
  return (x + rounder) - rounder;
}

static float max_magnitude(const float* x, std::size_t n) {
  Vector most{};
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        most = larger(magnitude(load_lanes(x + i, lanes_used)), most);
      });
  return max_lanes(most);
}

/// magnitudes[n] = the largest of itself and |x[m * columns + n]| for kRows rows m.
template <int kRows>
COVEY_INLINE void widen_magnitudes(const float* x, std::size_t columns, float* magnitudes) {
  for_each_vector(
      columns, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
        Vector most = load_lanes(magnitudes + n, lanes_used);
        unroll<kRows>([&](auto m) __attribute__((always_inline)) {
          most = larger(magnitude(load_lanes(x + m * columns + n, lanes_used)), most);
        });
        store_lanes(magnitudes + n, lanes_used, most);
      });
}

static void max_column_magnitudes(const float* x, std::size_t rows, std::size_t columns,
                                  float* magnitudes) {
  constexpr int kTogether = 4;  // one load and store of the magnitudes for so many rows
  for (std::size_t n = 0; n < columns; ++n) magnitudes[n] = 0;
  std::size_t m = 0;
  for (; m + kTogether <= rows; m += kTogether) {
    widen_magnitudes<kTogether>(x + m * columns, columns, magnitudes);
  }
  for (; m < rows; ++m) widen_magnitudes<1>(x + m * columns, columns, magnitudes);
}

/// The quotient in double, ties to even: what core's int8 encoding does.
static void quantise_row_exactly(const float* x, std::size_t columns, const float* scales,
                                 float* y) {
  constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  for (std::size_t n = 0; n < columns; ++n) {
    const double steps = static_cast<double>(x[n]) / static_cast<double>(scales[n]);
    y[n] = static_cast<float>((steps + kRounder) - kRounder) * scales[n];
  }
}

/// A product with the inverse is faster than a quotient and off by at most 2^-23 of itself, 1.6e-5
/// of up to 127 steps: it decides wrongly only nearer to a tie than that. Rows that come within
/// 2e-5 of one are done again.
static void fake_quantise_columns(const float* x, std::size_t rows, std::size_t columns,
                                  const float* scales, const float* inverses, float* y) {
  for (std::size_t m = 0; m < rows; ++m) {
    const float* from = x + m * columns;
    float* to = y + m * columns;
    Vector farthest{};  // from the whole number it was rounded to, squared
    for_each_vector(
        columns, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
          const Vector quotient =
              load_lanes(from + n, lanes_used) * load_lanes(inverses + n, lanes_used);
          const Vector steps = nearest(quotient);
          const Vector distance = quotient - steps;
          farthest = larger(distance * distance, farthest);
          store_lanes(to + n, lanes_used, steps * load_lanes(scales + n, lanes_used));
        });
    if (max_lanes(farthest) >= kNextToTie) quantise_row_exactly(from, columns, scales, to);
  }
}

static void fake_quantise(const float* x, std::size_t n, float scale, float* y) {
  const Vector step = broadcast(scale);
  const Vector inverse = broadcast(1 / scale);
  const Vector most = broadcast(kMostSteps);
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        Vector steps = load_lanes(x + i, lanes_used) * inverse;
        steps = steps > most ? most : steps;  // a NaN stays
        steps = steps < -most ? -most : steps;
        store_lanes(y + i, lanes_used, nearest(steps) * step);
      });
}

static void pass_within(const float* x, std::size_t n, float bound, const float* gradient_y,
                        float* gradient_x) {
  const Vector limit = broadcast(bound);
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector g = load_lanes(gradient_y + i, lanes_used);
        const Vector outside = magnitude(load_lanes(x + i, lanes_used));
        store_lanes(gradient_x + i, lanes_used, outside > limit ? Vector{} : g);
      });
}

}  // namespace covey::models::COVEY_KERNELS
