#pragma once

#include "kernels/elementwise.hpp"
#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// Activations beside relu, and dropout.
namespace covey::models::COVEY_KERNELS {

/// gelu's two factors at x.
struct Gaussian {
  Vector distribution;  ///< Phi(x)
  Vector density;       ///< phi(x)
};

/// Phi by the error function, absolute error below 2e-7: Abramowitz and Stegun 1964, 7.1.26. A NaN
/// stays.
COVEY_INLINE Gaussian gaussian(Vector x) {
  const Vector one = broadcast(1.0f);
  const Vector size = x < Vector{} ? -x : x;
  const Vector z = size * broadcast(0.70710678118654752f);
  const Vector e = exponential(-z * z);  // below -87 flat: phi(13) = 1e-38, 0 in all sums
  const Vector t = one / multiply_add(z, broadcast(0.3275911f), one);
  Vector p = broadcast(1.061405429f);
  p = multiply_add(p, t, broadcast(-1.453152027f));
  p = multiply_add(p, t, broadcast(1.421413741f));
  p = multiply_add(p, t, broadcast(-0.284496736f));
  p = multiply_add(p, t, broadcast(0.254829592f));
  const Vector tail = broadcast(0.5f) * p * t * e;  // 1 - Phi(|x|)
  return {x < Vector{} ? tail : one - tail, e * broadcast(0.39894228040143268f)};
}

static void gelu(const float* x, std::size_t n, float* y) {
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector value = load_lanes(x + i, lanes_used);
        store_lanes(y + i, lanes_used, value * gaussian(value).distribution);
      });
}

static void gelu_backward(const float* x, std::size_t n, float* gradient) {
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector value = load_lanes(x + i, lanes_used);
        const Gaussian at = gaussian(value);
        const Vector slope = multiply_add(value, at.density, at.distribution);
        store_lanes(gradient + i, lanes_used, load_lanes(gradient + i, lanes_used) * slope);
      });
}

static void tanh(const float* x, std::size_t n, float* y) {
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        store_lanes(y + i, lanes_used, tanh(load_lanes(x + i, lanes_used)));
      });
}

static void tanh_backward(const float* y, std::size_t n, float* gradient) {
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector value = load_lanes(y + i, lanes_used);
        const Vector slope = multiply_add(-value, value, broadcast(1.0f));
        store_lanes(gradient + i, lanes_used, load_lanes(gradient + i, lanes_used) * slope);
      });
}

static void sigmoid(const float* x, std::size_t n, float* y) {
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        store_lanes(y + i, lanes_used, sigmoid(load_lanes(x + i, lanes_used)));
      });
}

static void sigmoid_backward(const float* y, std::size_t n, float* gradient) {
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector value = load_lanes(y + i, lanes_used);
        const Vector slope = multiply_add(-value, value, value);
        store_lanes(gradient + i, lanes_used, load_lanes(gradient + i, lanes_used) * slope);
      });
}

typedef std::uint32_t UnsignedVector __attribute__((vector_size(kWidth * 4)));

/// A bijection of 32-bit words with low bias (Wellons 2018, "Prospecting for hash functions",
/// lowbias32).
COVEY_INLINE UnsignedVector mix(UnsignedVector x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

static void dropout(const float* x, std::size_t n, std::uint64_t key, float rate, float* y) {
  constexpr float kResolution = 16777216.0f;  // 2^24: what a float holds of a rate
  const auto dropped_below = static_cast<std::int32_t>(rate * kResolution);
  const Vector factor = broadcast(1.0f / (1.0f - rate));
  const auto low = static_cast<std::uint32_t>(key);
  const auto high = static_cast<std::uint32_t>(key >> 32);
  const auto first = (UnsignedVector)lanes();
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const UnsignedVector counter = first + static_cast<std::uint32_t>(i);
        const auto draw = (IntVector)(mix(mix(counter ^ low) + high) >> 8);
        const Vector kept = load_lanes(x + i, lanes_used) * factor;
        store_lanes(y + i, lanes_used, draw < IntVector{} + dropped_below ? Vector{} : kept);
      });
}

}  // namespace covey::models::COVEY_KERNELS
