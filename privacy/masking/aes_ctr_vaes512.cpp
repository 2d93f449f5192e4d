#include "masking/aes_ctr_kernel.hpp"

#if defined(__VAES__) && defined(__AVX512F__)
#include "masking/aes_x86.hpp"
#include "masking/vectors_x86.hpp"

namespace covey::privacy::masking {
namespace {

struct FourBlocks : Vector512 {
  static void expand_key(const std::uint8_t* key, std::uint8_t (*round_keys)[16]) {
    expand_key_aesni(key, round_keys);
  }
  static Type broadcast_block(const void* from) {
    return _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128(static_cast<const __m128i*>(from)));
  }
  static Type broadcast_block_of(std::uint64_t low, std::uint64_t high) {
    return _mm512_maskz_broadcast_i32x4(
        0xffff, _mm_set_epi64x(static_cast<long long>(high), static_cast<long long>(low)));
  }
  /// Counters 0 to 3 in byte 15 of their blocks.
  static Type low_counters() {
    return _mm512_set_epi64(3ll << 56, 0, 2ll << 56, 0, 1ll << 56, 0, 0, 0);
  }
  static Type start(Type counters, const Type* keys) { return exclusive_or(counters, keys[0]); }
  static Type round(Type state, const Type* keys, int index) {
    return _mm512_aesenc_epi128(state, keys[index]);
  }
  static Type last_round(Type state, const Type* keys) {
    return _mm512_aesenclast_epi128(state, keys[10]);
  }
};

}  // namespace

AddKeystream aes_ctr_vaes512() { return add_aes_ctr<FourBlocks>; }

}  // namespace covey::privacy::masking
#else
namespace covey::privacy::masking {
AddKeystream aes_ctr_vaes512() { return nullptr; }
}  // namespace covey::privacy::masking
#endif
