#pragma once

#include "kernels/elementwise.hpp"
#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// Optimisers' steps, and the sums over a whole vector that go with them.
namespace covey::models::COVEY_KERNELS {

/// Half a vector, in double precision.
typedef float HalfVector __attribute__((vector_size(kWidth * 2)));
typedef double DoubleVector __attribute__((vector_size(kWidth * 4)));

COVEY_INLINE Vector square_root(Vector x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(x);
#else
  for (int i = 0; i < kWidth; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

/// The squares of a vector's lanes, added pairwise, in double precision: exact but for the sum.
COVEY_INLINE DoubleVector squares(Vector x) {
  HalfVector halves[2];
  __builtin_memcpy(halves, &x, sizeof halves);
  const DoubleVector low = __builtin_convertvector(halves[0], DoubleVector);
  const DoubleVector high = __builtin_convertvector(halves[1], DoubleVector);
  return low * low + high * high;
}

COVEY_INLINE double sum_doubles(DoubleVector v) {
  double total = 0;
  for (int i = 0; i < kWidth / 2; ++i) total += v[i];
  return total;
}

static double squared_norm(const float* x, std::size_t n) {
  // Four sums at a time hide the latency of an addition.
  DoubleVector sums[4]{};
  std::size_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth) {
    unroll<4>([&](auto v)
                  __attribute__((always_inline)) { sums[v] += squares(load(x + i + v * kWidth)); });
  }
  for_each_vector(
      n - i, [&](std::size_t j, auto lanes_used) __attribute__((always_inline)) {
        sums[0] += squares(load_lanes(x + i + j, lanes_used));
      });
  return sum_doubles((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

static double squared_error(const float* y, const float* target, std::size_t n, float factor,
                            float* gradient) {
  DoubleVector sum{};
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector away = load_lanes(y + i, lanes_used) - load_lanes(target + i, lanes_used);
        sum += squares(away);
        if (gradient != nullptr) store_lanes(gradient + i, lanes_used, away * broadcast(factor));
      });
  return sum_doubles(sum);
}

static void momentum_step(const float* g, std::size_t n, float momentum, float rate, bool nesterov,
                          float* m, float* w) {
  const Vector keep = broadcast(momentum);
  const Vector step = broadcast(-rate);
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector gradient = load_lanes(g + i, lanes_used);
        const Vector velocity = multiply_add(keep, load_lanes(m + i, lanes_used), gradient);
        store_lanes(m + i, lanes_used, velocity);
        const Vector direction = nesterov ? multiply_add(keep, velocity, gradient) : velocity;
        store_lanes(w + i, lanes_used,
                    multiply_add(step, direction, load_lanes(w + i, lanes_used)));
      });
}

static void adam_step(const AdamStep& step, const float* g, std::size_t n, float* m, float* v,
                      float* w) {
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector gradient = load_lanes(g + i, lanes_used);
        const Vector first = multiply_add(broadcast(step.beta1), load_lanes(m + i, lanes_used),
                                          broadcast(1.0f - step.beta1) * gradient);
        const Vector second = multiply_add(broadcast(step.beta2), load_lanes(v + i, lanes_used),
                                           broadcast(1.0f - step.beta2) * gradient * gradient);
        store_lanes(m + i, lanes_used, first);
        store_lanes(v + i, lanes_used, second);
        const Vector size =
            multiply_add(square_root(second), broadcast(step.root), broadcast(step.epsilon));
        store_lanes(w + i, lanes_used,
                    load_lanes(w + i, lanes_used) - broadcast(step.rate) * first / size);
      });
}

}  // namespace covey::models::COVEY_KERNELS
