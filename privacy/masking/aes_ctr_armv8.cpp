#include "masking/aes_ctr_kernel.hpp"

#if defined(__aarch64__) && (defined(__ARM_FEATURE_AES) || defined(__ARM_FEATURE_CRYPTO))
#include <arm_neon.h>

namespace covey::privacy::masking {
namespace {

/// AESE adds the round key before it substitutes, x86's AESENC adds its own after it mixes: a state
/// here is one that the last round's key has not been added to yet.
struct NeonBlock {
  using Type = uint8x16_t;
  static constexpr int kBytes = 16;

  /// As in aes_x86.hpp.
  static void expand_key(const std::uint8_t* key, std::uint8_t (*round_keys)[16]) {
    static constexpr std::uint32_t kRoundConstants[10] = {1, 2, 4, 8, 16, 32, 64, 128, 0x1b, 0x36};
    const Type rotate_last_word = vreinterpretq_u8_u32(vdupq_n_u32(0x0c0f0e0d));
    const Type zero = vdupq_n_u8(0);
    Type words = vld1q_u8(key);
    vst1q_u8(round_keys[0], words);
    for (int i = 0; i < 10; ++i) {
      const Type word = veorq_u8(vaeseq_u8(vqtbl1q_u8(words, rotate_last_word), zero),
                                 vreinterpretq_u8_u32(vdupq_n_u32(kRoundConstants[i])));
      words = veorq_u8(words, vextq_u8(zero, words, 12));
      words = veorq_u8(words, vextq_u8(zero, words, 8));
      words = veorq_u8(words, word);
      vst1q_u8(round_keys[i + 1], words);
    }
  }
  static Type load(const void* from) { return vld1q_u8(static_cast<const std::uint8_t*>(from)); }
  static void store(void* to, Type value) { vst1q_u8(static_cast<std::uint8_t*>(to), value); }
  static Type broadcast_block(const void* from) { return load(from); }
  static Type broadcast_word(std::uint64_t word) { return vreinterpretq_u8_u64(vdupq_n_u64(word)); }
  static Type broadcast_block_of(std::uint64_t low, std::uint64_t high) {
    return vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high)));
  }
  static Type low_counters() { return vdupq_n_u8(0); }
  static Type exclusive_or(Type a, Type b) { return veorq_u8(a, b); }
  static Type add(Type a, Type b) {
    return vreinterpretq_u8_u64(vaddq_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
  }
  static Type carry_out(Type a, Type b, Type sum) {
    const Type majority = vorrq_u8(vandq_u8(a, b), vbicq_u8(vorrq_u8(a, b), sum));
    return vreinterpretq_u8_u64(vshrq_n_u64(vreinterpretq_u64_u8(majority), 63));
  }
  static Type start(Type counters, const Type*) { return counters; }
  static Type round(Type state, const Type* keys, int index) {
    return vaesmcq_u8(vaeseq_u8(state, keys[index - 1]));
  }
  static Type last_round(Type state, const Type* keys) {
    return veorq_u8(vaeseq_u8(state, keys[9]), keys[10]);
  }
};

}  // namespace

AddKeystream aes_ctr_armv8() { return add_aes_ctr<NeonBlock>; }

}  // namespace covey::privacy::masking
#else
namespace covey::privacy::masking {
AddKeystream aes_ctr_armv8() { return nullptr; }
}  // namespace covey::privacy::masking
#endif
