#pragma once

#include <immintrin.h>

#include <cstdint>

/// What the x86 kernels share; a copy in each (see aes_ctr_kernel.hpp).
namespace covey::privacy::masking {
namespace {

/// FIPS 197's key expansion. AESENCLAST on four equal columns is SubWord and the addition of the
/// round constant: ShiftRows changes nothing there.
inline void expand_key_aesni(const std::uint8_t* key, std::uint8_t (*round_keys)[16]) {
  static constexpr std::int32_t kRoundConstants[10] = {1, 2, 4, 8, 16, 32, 64, 128, 0x1b, 0x36};
  const __m128i rotate_last_word = _mm_set1_epi32(0x0c0f0e0d);
  __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(key));
  _mm_store_si128(reinterpret_cast<__m128i*>(round_keys[0]), words);
  for (int i = 0; i < 10; ++i) {
    const __m128i word = _mm_aesenclast_si128(_mm_shuffle_epi8(words, rotate_last_word),
                                              _mm_set1_epi32(kRoundConstants[i]));
    words = _mm_xor_si128(words, _mm_slli_si128(words, 4));
    words = _mm_xor_si128(words, _mm_slli_si128(words, 8));
    words = _mm_xor_si128(words, word);
    _mm_store_si128(reinterpret_cast<__m128i*>(round_keys[i + 1]), words);
  }
}

}  // namespace
}  // namespace covey::privacy::masking
