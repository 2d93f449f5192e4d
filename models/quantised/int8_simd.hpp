#pragma once

/// Vectors of 32-bit lanes for the instruction set this file is compiled for, and sums of four
/// int8 products per lane. COVEY_INT8_KERNELS is the namespace of the including kernel file; no
/// standard library here (one-definition rule).

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define COVEY_INLINE inline __attribute__((always_inline))

namespace covey::models::COVEY_INT8_KERNELS {

#if defined(__AVX512VNNI__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

// Sums are formed modulo 2^32, so lanes that are added up are unsigned.
typedef std::uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef std::uint8_t Bytes __attribute__((vector_size(kLanes * 4)));
typedef std::int8_t SignedBytes __attribute__((vector_size(kLanes * 4)));

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
/// f(Constant<0>) ... f(Constant<N - 1>): arrays of vectors indexed so stay in registers.
template <int N, typename F>
COVEY_INLINE void unroll(F f) {
  unrolled(typename MakeSequence<N>::Type{}, f);
}

template <typename V>
COVEY_INLINE V load_as(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <typename V>
COVEY_INLINE void store(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}
COVEY_INLINE Words words(Ints v) { return reinterpret_cast<Words>(v); }
COVEY_INLINE Ints ints(Words v) { return reinterpret_cast<Ints>(v); }
COVEY_INLINE Words broadcast(std::uint32_t x) { return Words{} + x; }
COVEY_INLINE Floats broadcast(float x) { return Floats{} + x; }
COVEY_INLINE Words lane_numbers() {
  Words v{};
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<std::uint32_t>(i);
  return v;
}
COVEY_INLINE Floats to_floats(Words sums) { return __builtin_convertvector(ints(sums), Floats); }

/// To nearest, ties to even; |v| < 2^31.
COVEY_INLINE Ints round_to_ints(Floats v) {
#if defined(__AVX512VNNI__)
  return reinterpret_cast<Ints>(_mm512_cvtps_epi32(reinterpret_cast<__m512>(v)));
#elif defined(__AVX2__)
  return reinterpret_cast<Ints>(_mm256_cvtps_epi32(reinterpret_cast<__m256>(v)));
#elif defined(__SSE2__)
  return reinterpret_cast<Ints>(_mm_cvtps_epi32(reinterpret_cast<__m128>(v)));
#elif defined(__aarch64__)
  return reinterpret_cast<Ints>(vcvtnq_s32_f32(reinterpret_cast<float32x4_t>(v)));
#else
  Ints out{};
  for (int i = 0; i < kLanes; ++i) out[i] = static_cast<std::int32_t>(__builtin_rintf(v[i]));
  return out;
#endif
}

/// The low bytes of lanes within [-128, 127], kLanes bytes.
COVEY_INLINE void store_bytes(std::int8_t* p, Ints v) {
#if defined(__AVX512VNNI__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(v)));
#elif defined(__AVX2__)
  const __m256i x = reinterpret_cast<__m256i>(v);
  const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(half, half));
#elif defined(__SSE2__)
  const __m128i half = _mm_packs_epi32(reinterpret_cast<__m128i>(v), reinterpret_cast<__m128i>(v));
  const int four = _mm_cvtsi128_si32(_mm_packs_epi16(half, half));
  __builtin_memcpy(p, &four, sizeof four);
#else
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<std::int8_t>(v[i]);
#endif
}

COVEY_INLINE Ints load_bytes(const std::int8_t* p) {
#if defined(__AVX512VNNI__)
  return reinterpret_cast<Ints>(_mm512_cvtepi8_epi32(load_as<__m128i>(p)));
#elif defined(__AVX2__)
  return reinterpret_cast<Ints>(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  Ints out{};
  for (int i = 0; i < kLanes; ++i) out[i] = p[i];
  return out;
#endif
}

// ---- four products per lane. Lane i of `weights` holds four int8; the other factor is a quad of
// operand values, the same for all lanes (Quad) or one per lane (spread in memory).

#if defined(__AVX512VNNI__)

// vpdpbusd multiplies unsigned by signed: operands are stored with their sign bit flipped, that is
// with 128 added, and 128 * (sum of the signed side) is taken off through the initial sums.
typedef std::uint8_t Operand;
inline constexpr std::uint8_t kFlip = 0x80;
inline constexpr unsigned char kZeroByte = 0x80;
inline constexpr std::int32_t kOperandOffset = 128;
typedef __m512i Weights;
typedef __m512i Quad;
COVEY_INLINE Weights load_weights(const std::int8_t* p) { return load_as<__m512i>(p); }
COVEY_INLINE Quad load_quad(const Operand* p) {
  int word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}
COVEY_INLINE Words multiply_add(Words sums, Quad x, Weights w) {
  return reinterpret_cast<Words>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), x, w));
}
/// The weights as the unsigned side, times signed quads spread in memory.
COVEY_INLINE Weights flipped(Weights w) { return _mm512_xor_si512(w, _mm512_set1_epi8(-128)); }
COVEY_INLINE Words multiply_add_spread(Words sums, Weights w, const Operand* spread) {
  return reinterpret_cast<Words>(
      _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), w, load_as<__m512i>(spread)));
}

#elif defined(__SSE2__)

// pmaddwd multiplies pairs of 16 bits: operands are stored widened, weights are widened on loading,
// into the lanes' first two and last two bytes.
typedef std::int16_t Operand;
inline constexpr unsigned char kZeroByte = 0;
inline constexpr std::int32_t kOperandOffset = 0;
#if defined(__AVX2__)
typedef __m256i Register;
COVEY_INLINE Register madd(Register a, Register b) { return _mm256_madd_epi16(a, b); }
COVEY_INLINE Register set_words(int x) { return _mm256_set1_epi32(x); }
#else
typedef __m128i Register;
COVEY_INLINE Register madd(Register a, Register b) { return _mm_madd_epi16(a, b); }
COVEY_INLINE Register set_words(int x) { return _mm_set1_epi32(x); }
#endif
struct Weights {
  Register first, last;
};
typedef Weights Quad;
COVEY_INLINE Weights widened(Register bytes) {
#if defined(__AVX2__)
  const __m256i first =
      _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(_mm_setr_epi8(
                                     -1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13)));
  const __m256i last =
      _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(_mm_setr_epi8(
                                     -1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15)));
  return {_mm256_srai_epi16(first, 8), _mm256_srai_epi16(last, 8)};
#else
  // low: lanes 0 and 1 as eight values of 16 bits, high: lanes 2 and 3
  const __m128i low = _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
  const __m128i high = _mm_srai_epi16(_mm_unpackhi_epi8(bytes, bytes), 8);
  const auto a = reinterpret_cast<__m128>(low);
  const auto b = reinterpret_cast<__m128>(high);
  return {reinterpret_cast<__m128i>(_mm_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0))),
          reinterpret_cast<__m128i>(_mm_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)))};
#endif
}
COVEY_INLINE Weights load_weights(const std::int8_t* p) { return widened(load_as<Register>(p)); }
COVEY_INLINE Quad load_quad(const Operand* p) {
  int pair[2];
  __builtin_memcpy(pair, p, sizeof pair);
  return {set_words(pair[0]), set_words(pair[1])};
}
COVEY_INLINE Words multiply_add(Words sums, Quad x, Weights w) {
  return sums + (reinterpret_cast<Words>(madd(x.first, w.first)) +
                 reinterpret_cast<Words>(madd(x.last, w.last)));
}
COVEY_INLINE Weights flipped(Weights w) { return w; }
COVEY_INLINE Words multiply_add_spread(Words sums, Weights w, const Operand* spread) {
  const Quad x{load_as<Register>(spread), load_as<Register>(spread + 2 * kLanes)};
  return multiply_add(sums, x, w);
}

#else

typedef std::int8_t Operand;
inline constexpr std::uint8_t kFlip = 0;
inline constexpr unsigned char kZeroByte = 0;
inline constexpr std::int32_t kOperandOffset = 0;
typedef SignedBytes Weights;
typedef SignedBytes Quad;
COVEY_INLINE Weights load_weights(const std::int8_t* p) { return load_as<Weights>(p); }
COVEY_INLINE Quad load_quad(const Operand* p) {
  std::uint32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return reinterpret_cast<Quad>(broadcast(word));
}
COVEY_INLINE Words multiply_add(Words sums, Quad x, Weights w) {
#if defined(__ARM_FEATURE_DOTPROD)
  return reinterpret_cast<Words>(vdotq_s32(reinterpret_cast<int32x4_t>(sums),
                                           reinterpret_cast<int8x16_t>(x),
                                           reinterpret_cast<int8x16_t>(w)));
#elif defined(__ARM_NEON)
  const auto a = reinterpret_cast<int8x16_t>(x);
  const auto b = reinterpret_cast<int8x16_t>(w);
  // |x|, |w| <= 127: a pair of products fits 16 bits
  const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
  const int16x8_t high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
  const int32x4_t low_pairs = vpaddlq_s16(low);
  const int32x4_t high_pairs = vpaddlq_s16(high);
  const int32x4_t four =
      vcombine_s32(vpadd_s32(vget_low_s32(low_pairs), vget_high_s32(low_pairs)),
                   vpadd_s32(vget_low_s32(high_pairs), vget_high_s32(high_pairs)));
  return sums + reinterpret_cast<Words>(four);
#else
  Words out = sums;
  for (int i = 0; i < kLanes; ++i) {
    std::int32_t four = 0;
    for (int k = 0; k < 4; ++k) four += int{x[4 * i + k]} * int{w[4 * i + k]};
    out[i] += static_cast<std::uint32_t>(four);
  }
  return out;
#endif
}
COVEY_INLINE Weights flipped(Weights w) { return w; }
COVEY_INLINE Words multiply_add_spread(Words sums, Weights w, const Operand* spread) {
  return multiply_add(sums, load_as<Quad>(spread), w);
}

#endif

/// In every 16 bytes: four words of four bytes, transposed.
COVEY_INLINE Bytes transposed(Bytes v) {
#if defined(__AVX512VNNI__)
  const __m512i order =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return reinterpret_cast<Bytes>(_mm512_shuffle_epi8(reinterpret_cast<__m512i>(v), order));
#elif defined(__AVX2__)
  const __m256i order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return reinterpret_cast<Bytes>(_mm256_shuffle_epi8(reinterpret_cast<__m256i>(v), order));
#elif defined(__SSE2__)
  __m128i x = reinterpret_cast<__m128i>(v);
  x = _mm_unpacklo_epi8(x, _mm_srli_si128(x, 8));  // a0 b.. : words 0 and 2, 1 and 3 mixed
  x = _mm_unpacklo_epi8(x, _mm_srli_si128(x, 8));
  return reinterpret_cast<Bytes>(x);
#else
  return __builtin_shufflevector(v, v, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
#endif
}

/// bytes[lane][k] = lane of steps[k] shifted right by 16 and saturated to int8.
COVEY_INLINE SignedBytes high_halves_as_bytes(const Ints (&steps)[4]) {
#if defined(__AVX512VNNI__)
  const auto pair = [](Ints a, Ints b) __attribute__((always_inline)) {
    return _mm512_mask_blend_epi16(0xAAAAAAAA, reinterpret_cast<__m512i>(a >> 16),
                                   reinterpret_cast<__m512i>(b));
  };
  const __m512i p01 = pair(steps[0], steps[1]);
  const __m512i p23 = pair(steps[2], steps[3]);
  return reinterpret_cast<SignedBytes>(
      _mm512_packs_epi16(_mm512_unpacklo_epi32(p01, p23), _mm512_unpackhi_epi32(p01, p23)));
#elif defined(__AVX2__)
  const auto pair = [](Ints a, Ints b) __attribute__((always_inline)) {
    return _mm256_blend_epi16(reinterpret_cast<__m256i>(a >> 16), reinterpret_cast<__m256i>(b),
                              0xAA);
  };
  const __m256i p01 = pair(steps[0], steps[1]);
  const __m256i p23 = pair(steps[2], steps[3]);
  return reinterpret_cast<SignedBytes>(
      _mm256_packs_epi16(_mm256_unpacklo_epi32(p01, p23), _mm256_unpackhi_epi32(p01, p23)));
#elif defined(__SSE2__)
  const auto pair = [](Ints a, Ints b) __attribute__((always_inline)) {
    return reinterpret_cast<__m128i>((words(a) >> 16) | (words(b) & 0xFFFF0000u));
  };
  const __m128i p01 = pair(steps[0], steps[1]);
  const __m128i p23 = pair(steps[2], steps[3]);
  return reinterpret_cast<SignedBytes>(
      _mm_packs_epi16(_mm_unpacklo_epi32(p01, p23), _mm_unpackhi_epi32(p01, p23)));
#else
  SignedBytes out{};
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int k = 0; k < 4; ++k) {
      const std::int32_t step = steps[k][lane] >> 16;
      out[4 * lane + k] = static_cast<std::int8_t>(step > 127 ? 127 : (step < -128 ? -128 : step));
    }
  }
  return out;
#endif
}

/// clip(w - step, +-127)
COVEY_INLINE SignedBytes subtract_clipped(SignedBytes w, SignedBytes step) {
#if defined(__AVX512VNNI__)
  const __m512i d = _mm512_subs_epi8(reinterpret_cast<__m512i>(w), reinterpret_cast<__m512i>(step));
  return reinterpret_cast<SignedBytes>(_mm512_max_epi8(d, _mm512_set1_epi8(-127)));
#elif defined(__AVX2__)
  const __m256i d = _mm256_subs_epi8(reinterpret_cast<__m256i>(w), reinterpret_cast<__m256i>(step));
  return reinterpret_cast<SignedBytes>(_mm256_max_epi8(d, _mm256_set1_epi8(-127)));
#elif defined(__SSE2__)
  const __m128i d = _mm_subs_epi8(reinterpret_cast<__m128i>(w), reinterpret_cast<__m128i>(step));
  // a lane of -128 compares equal, that is -1, and becomes -127
  return reinterpret_cast<SignedBytes>(_mm_sub_epi8(d, _mm_cmpeq_epi8(d, _mm_set1_epi8(-128))));
#else
  SignedBytes out{};
  for (int i = 0; i < 4 * kLanes; ++i) {
    const int d = w[i] - step[i];
    out[i] = static_cast<std::int8_t>(d > 127 ? 127 : (d < -127 ? -127 : d));
  }
  return out;
#endif
}

}  // namespace covey::models::COVEY_INT8_KERNELS
