#pragma once

#include <immintrin.h>

#include <cstdint>

/// Vectors of 64-bit lanes as RowAdder takes them, as wide as the including file is compiled for; a
/// copy in each (see row_adder.hpp).
namespace covey::privacy::masking {
namespace {

struct Vector128 {
  using Type = __m128i;
  static constexpr int kBytes = 16;

  static Type load(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
  static void store(void* to, Type value) { _mm_storeu_si128(static_cast<__m128i*>(to), value); }
  static Type broadcast_word(std::uint64_t word) {
    return _mm_set1_epi64x(static_cast<long long>(word));
  }
  static Type exclusive_or(Type a, Type b) { return _mm_xor_si128(a, b); }
  static Type add(Type a, Type b) { return _mm_add_epi64(a, b); }
  static Type carry_out(Type a, Type b, Type sum) {
    const Type majority =
        _mm_or_si128(_mm_and_si128(a, b), _mm_andnot_si128(sum, _mm_or_si128(a, b)));
    return _mm_srli_epi64(majority, 63);
  }
};

#if defined(__AVX2__)
struct Vector256 {
  using Type = __m256i;
  static constexpr int kBytes = 32;

  static Type load(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static void store(void* to, Type value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
  static Type broadcast_word(std::uint64_t word) {
    return _mm256_set1_epi64x(static_cast<long long>(word));
  }
  static Type exclusive_or(Type a, Type b) { return _mm256_xor_si256(a, b); }
  static Type add(Type a, Type b) { return _mm256_add_epi64(a, b); }
  static Type carry_out(Type a, Type b, Type sum) {
    const Type majority =
        _mm256_or_si256(_mm256_and_si256(a, b), _mm256_andnot_si256(sum, _mm256_or_si256(a, b)));
    return _mm256_srli_epi64(majority, 63);
  }
};
#endif

#if defined(__AVX512F__)
/// Masked with all ones where g++ 12's unmasked forms warn of their own undefined operand.
struct Vector512 {
  using Type = __m512i;
  static constexpr int kBytes = 64;

  static Type load(const void* from) { return _mm512_loadu_si512(from); }
  static void store(void* to, Type value) { _mm512_storeu_si512(to, value); }
  static Type broadcast_word(std::uint64_t word) {
    return _mm512_set1_epi64(static_cast<long long>(word));
  }
  static Type exclusive_or(Type a, Type b) { return _mm512_xor_si512(a, b); }
  static Type add(Type a, Type b) { return _mm512_add_epi64(a, b); }
  static Type carry_out(Type a, Type b, Type sum) {
    return _mm512_maskz_srli_epi64(0xff, _mm512_ternarylogic_epi64(a, b, sum, 0xd4), 63);
  }
};
#endif

}  // namespace
}  // namespace covey::privacy::masking
