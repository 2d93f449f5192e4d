#pragma once

/// One vector of floats for the instruction set this file is compiled for. COVEY_KERNELS is the
/// namespace of the including kernel file; no standard library here (one-definition rule).

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#endif

#define COVEY_INLINE inline __attribute__((always_inline))

namespace covey::models::COVEY_KERNELS {

#if defined(__AVX512F__)
inline constexpr int kWidth = 16;
#elif defined(__AVX2__)
inline constexpr int kWidth = 8;
#else
inline constexpr int kWidth = 4;
#endif

typedef float Vector __attribute__((vector_size(kWidth * 4)));
typedef std::int32_t IntVector __attribute__((vector_size(kWidth * 4)));

template <int I>
struct Constant {
  static constexpr int value = I;
  constexpr operator int() const { return I; }
};

template <int... I>
struct Sequence {};

template <int N, int... I>
struct MakeSequence : MakeSequence<N - 1, N - 1, I...> {};
template <int... I>
struct MakeSequence<0, I...> {
  using Type = Sequence<I...>;
};

template <int... I, typename F>
COVEY_INLINE void unrolled(Sequence<I...>, [[maybe_unused]] F f) {
  (f(Constant<I>{}), ...);
}

/// f(Constant<0>) ... f(Constant<N - 1>). Arrays of vectors indexed so stay in registers, which a
/// loop unrolled by pragma does not achieve with g++ 12.
template <int N, typename F>
COVEY_INLINE void unroll(F f) {
  unrolled(typename MakeSequence<N>::Type{}, f);
}

COVEY_INLINE Vector load(const float* p) {
  Vector v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
COVEY_INLINE void store(float* p, Vector v) { __builtin_memcpy(p, &v, sizeof v); }

COVEY_INLINE Vector broadcast(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX2__)
  return _mm256_set1_ps(x);
#else
  return Vector{x, x, x, x};
#endif
}

COVEY_INLINE Vector multiply_add(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

#if defined(__AVX512F__)

COVEY_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
/// The first n floats, 0 < n <= kWidth; the other lanes are zero.
COVEY_INLINE Vector load_first(const float* p, int n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
COVEY_INLINE void store_first(float* p, int n, Vector v) {
  _mm512_mask_storeu_ps(p, first_lanes(n), v);
}

#elif defined(__AVX2__)

COVEY_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
COVEY_INLINE Vector load_first(const float* p, int n) {
  return _mm256_maskload_ps(p, first_lanes(n));
}
COVEY_INLINE void store_first(float* p, int n, Vector v) {
  _mm256_maskstore_ps(p, first_lanes(n), v);
}

#else

COVEY_INLINE Vector load_first(const float* p, int n) {
  switch (n) {
    case 1:
      return Vector{p[0], 0, 0, 0};
    case 2:
      return Vector{p[0], p[1], 0, 0};
    case 3:
      return Vector{p[0], p[1], p[2], 0};
    default:
      return load(p);
  }
}
COVEY_INLINE void store_first(float* p, int n, Vector v) {
  switch (n) {
    case 3:
      p[2] = v[2];
      [[fallthrough]];
    case 2:
      p[1] = v[1];
      [[fallthrough]];
    case 1:
      p[0] = v[0];
      break;
    default:
      store(p, v);
  }
}

#endif

COVEY_INLINE IntVector lanes() {
#if defined(__AVX512F__)
  return IntVector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif defined(__AVX2__)
  return IntVector{0, 1, 2, 3, 4, 5, 6, 7};
#else
  return IntVector{0, 1, 2, 3};
#endif
}

/// load_first with `fill` in the other lanes.
COVEY_INLINE Vector load_first_or(const float* p, int n, float fill) {
  const IntVector limit = IntVector{} + n;
  return lanes() < limit ? load_first(p, n) : broadcast(fill);
}

/// max(x, 0) that keeps a NaN, so that a diverged model shows in its loss.
COVEY_INLINE Vector positive_part(Vector x) { return x < Vector{} ? Vector{} : x; }
COVEY_INLINE Vector larger(Vector a, Vector b) { return a > b ? a : b; }

/// Folds the lanes pairwise: halves against halves, in the same order always.
template <typename Fold>
COVEY_INLINE float fold_lanes(Vector v, Fold fold) {
  float x[kWidth];
  __builtin_memcpy(x, &v, sizeof v);
  typedef float Quad __attribute__((vector_size(16)));
  Quad total;
  __builtin_memcpy(&total, x, sizeof total);
  unroll<kWidth / 4 - 1>([&](auto i) __attribute__((always_inline)) {
    Quad part;
    __builtin_memcpy(&part, x + 4 * (i + 1), sizeof part);
    total = fold(total, part);
  });
  const Quad swapped = Quad{total[2], total[3], total[0], total[1]};
  const Quad folded = fold(total, swapped);
  const Quad other = Quad{folded[1], folded[0], folded[3], folded[2]};
  return fold(folded, other)[0];
}

COVEY_INLINE float sum_lanes(Vector v) {
  return fold_lanes(
      v, [](auto a, auto b) __attribute__((always_inline)) { return a + b; });
}
COVEY_INLINE float max_lanes(Vector v) {
  return fold_lanes(
      v, [](auto a, auto b) __attribute__((always_inline)) { return a > b ? a : b; });
}

/// exp(x) for x <= 0, relative error below 2e-7: Cephes' expf (Moshier 1992), range reduction by ln
/// 2 in two parts and a polynomial of degree 5. Below -87 the result is about 1e-38.
COVEY_INLINE Vector exponential(Vector x) {
  const Vector lowest = broadcast(-87.0f);
  x = x < lowest ? lowest : x;
  const Vector rounder = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vector shifted = multiply_add(x, broadcast(1.44269504088896341f), rounder);
  const Vector n = shifted - rounder;
  Vector r = multiply_add(n, broadcast(-0.693359375f), x);
  r = multiply_add(n, broadcast(2.12194440e-4f), r);
  Vector p = broadcast(1.9875691500e-4f);
  p = multiply_add(p, r, broadcast(1.3981999507e-3f));
  p = multiply_add(p, r, broadcast(8.3334519073e-3f));
  p = multiply_add(p, r, broadcast(4.1665795894e-2f));
  p = multiply_add(p, r, broadcast(1.6666665459e-1f));
  p = multiply_add(p, r, broadcast(5.0000001201e-1f));
  const Vector y = multiply_add(p, r * r, r) + broadcast(1.0f);
  IntVector bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  const IntVector exponent = (bits + 127) << 23;  // the integer sits in the low mantissa bits
  Vector power;
  __builtin_memcpy(&power, &exponent, sizeof power);
  return y * power;
}

/// 1 / (1 + exp(-x)), relative error below 4e-7 where the result is a normal number; a NaN stays.
COVEY_INLINE Vector sigmoid(Vector x) {
  const Vector one = broadcast(1.0f);
  const Vector e = exponential(x < Vector{} ? x : -x);
  return (x < Vector{} ? e : one) / (one + e);
}

/// tanh(x), relative error below 4e-7: Cephes' tanhf (Moshier 1992), an odd polynomial of degree 11
/// below 0.625 and (1 - e) / (1 + e), e = exp(-2 |x|), above; a NaN stays.
COVEY_INLINE Vector tanh(Vector x) {
  const Vector one = broadcast(1.0f);
  const Vector negated = x < Vector{} ? x : -x;
  const Vector e = exponential(negated + negated);
  const Vector size = (one - e) / (one + e);
  const Vector z = x * x;
  Vector p = broadcast(-5.70498872745e-3f);
  p = multiply_add(p, z, broadcast(2.06390887954e-2f));
  p = multiply_add(p, z, broadcast(-5.37397155531e-2f));
  p = multiply_add(p, z, broadcast(1.33314422036e-1f));
  p = multiply_add(p, z, broadcast(-3.33332819422e-1f));
  const Vector near_zero = multiply_add(p * z, x, x);
  const Vector far = x < Vector{} ? -size : size;
  return negated > broadcast(-0.625f) ? near_zero : far;
}

}  // namespace covey::models::COVEY_KERNELS
