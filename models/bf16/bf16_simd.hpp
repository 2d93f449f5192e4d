#pragma once

#include "bf16/kernels_bf16.hpp"
#include "kernels/simd.hpp"

/// Vectors of bfloat16 and what turns them into floats and back. As kernels/simd.hpp: everything in
/// the including file's COVEY_KERNELS, no standard library.
namespace covey::models::COVEY_KERNELS {

typedef std::uint32_t Bits __attribute__((vector_size(kWidth * 4)));
typedef std::uint16_t Halves __attribute__((vector_size(kWidth * 2)));

inline constexpr std::uint32_t kUpper = 0xffff0000;

template <typename To, typename From>
COVEY_INLINE To reinterpret(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// kWidth 32-bit words: as bfloat16, neighbours two by two.
COVEY_INLINE Bits load_bits(const void* p) {
  Bits v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
/// kWidth bfloat16 values, each in the lower half of a word.
COVEY_INLINE Bits load_halves(const std::uint16_t* p) {
  Halves v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Bits);
}
/// Stores the first n values at p, all of them where n is as large.
template <typename V, typename T>
COVEY_INLINE void store_some(T* p, V v, int n) {
  if (n * static_cast<int>(sizeof(T)) >= static_cast<int>(sizeof v)) {
    __builtin_memcpy(p, &v, sizeof v);
    return;
  }
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  if constexpr (sizeof v == 32) {
    _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1u), reinterpret<__m256i>(v));
  } else if constexpr (sizeof(T) == 2) {
    _mm512_mask_storeu_epi16(p, static_cast<__mmask32>((1u << n) - 1u), reinterpret<__m512i>(v));
  } else {
    _mm512_mask_storeu_epi32(p, static_cast<__mmask16>((1u << n) - 1u), reinterpret<__m512i>(v));
  }
#else
  T values[sizeof v / sizeof(T)];
  __builtin_memcpy(values, &v, sizeof v);
  for (int i = 0; i < n; ++i) p[i] = values[i];
#endif
}

COVEY_INLINE Vector lower(Bits pairs) { return reinterpret<Vector>(pairs << 16); }
COVEY_INLINE Vector upper(Bits pairs) { return reinterpret<Vector>(pairs & kUpper); }

/// a0 b0 a1 b1 ... : the first kWidth of them, and the rest.
COVEY_INLINE Vector first_woven(Vector a, Vector b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
COVEY_INLINE Vector second_woven(Vector a, Vector b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

/// Two factors in each lane, for a dot product of two.
#if defined(__AVX512BF16__)

using Pair = __m512bh;
COVEY_INLINE Pair pair_of(Bits words) { return reinterpret<Pair>(words); }
/// sum + a.low * b.low + a.high * b.high; vdpbf16ps takes subnormal numbers for 0.
COVEY_INLINE Vector dot(Vector sum, Pair a, Pair b) { return _mm512_dpbf16_ps(sum, a, b); }

#else

struct Pair {
  Vector low, high;
};
COVEY_INLINE Pair pair_of(Bits words) { return {lower(words), upper(words)}; }
COVEY_INLINE Vector dot(Vector sum, Pair a, Pair b) {
  return multiply_add(a.low, b.low, multiply_add(a.high, b.high, sum));
}

#endif

COVEY_INLINE Pair broadcast_pair(std::uint32_t word) { return pair_of(Bits{} + word); }

/// The even and the odd columns of two rows, the first row in the lower halves.
struct ColumnPairs {
  Pair even, odd;
};
COVEY_INLINE ColumnPairs pair_rows(Bits first, Bits second) {
#if defined(__AVX512BF16__)
  constexpr __mmask32 kUpperHalves = 0xaaaaaaaa;  // a mask leaves the vector registers to the sums
  const auto blend = [](Bits low, Bits high) __attribute__((always_inline)) {
    return reinterpret<Pair>(_mm512_mask_blend_epi16(kUpperHalves, reinterpret<__m512i>(low),
                                                     reinterpret<__m512i>(high)));
  };
  return {blend(first, second << 16), blend(first >> 16, second)};
#else
  return {{lower(first), lower(second)}, {upper(first), upper(second)}};
#endif
}

/// SplitMix64's increment and finaliser (Steele et al. 2014): keys that follow each other share
/// nothing.
COVEY_INLINE std::uint64_t mixed(std::uint64_t key) {
  std::uint64_t z = key + 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

/// 32 well mixed bits per lane: lowbias32 (Wellons 2018), with the mixed key's halves before each
/// of its multiplications. Constants are vectors made once, ahead of the loops that hash.
class Hash {
 public:
  COVEY_INLINE explicit Hash(std::uint64_t key)
      : low_(Bits{} + static_cast<std::uint32_t>(mixed(key))),
        high_(Bits{} + static_cast<std::uint32_t>(mixed(key) >> 32)),
        first_(Bits{} + 0x21f0aaadU),
        second_(Bits{} + 0x735a2d97U) {}
  COVEY_INLINE Bits operator()(Bits index) const {
    Bits x = index ^ low_;
    x ^= x >> 16;
    x *= first_;
    x += high_;
    x ^= x >> 15;
    x *= second_;
    x ^= x >> 15;
    return x;
  }

 private:
  Bits low_, high_, first_, second_;
};

/// A NaN's bits plus random ones could carry out of it.
COVEY_INLINE Bits add_unless_nan(Vector v, Bits addend) {
  const Bits bits = reinterpret<Bits>(v);
  const Bits nan = reinterpret<Bits>(v != v);
  return (bits + (addend & ~nan)) | (nan & 0x00400000U);
}
/// Rounded to nearest, ties to even, in the upper half.
COVEY_INLINE Bits round_nearest(Vector v) {
  return add_unless_nan(v, ((reinterpret<Bits>(v) >> 16) & 1U) + 0x7fffU);
}

/// Random bits of kWidth neighbours, from one hash for every two of them so that vectors of other
/// lengths draw the same. index: of the first, where pairs start.
COVEY_INLINE Bits random_halves(std::uint32_t index, const Hash& hash) {
  const Bits lane = reinterpret<Bits>(lanes());
  const Bits words = hash((lane & ~1U) + index);
  return (words >> ((lane & 1U) << 4)) & ~kUpper;
}

}  // namespace covey::models::COVEY_KERNELS
