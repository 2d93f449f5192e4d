#include "masking/aes_ctr_kernel.hpp"

#if defined(__AES__) && defined(__SSSE3__)
#include "masking/aes_x86.hpp"
#include "masking/vectors_x86.hpp"

namespace covey::privacy::masking {
namespace {

struct OneBlock : Vector128 {
  static void expand_key(const std::uint8_t* key, std::uint8_t (*round_keys)[16]) {
    expand_key_aesni(key, round_keys);
  }
  static Type broadcast_block(const void* from) { return load(from); }
  static Type broadcast_block_of(std::uint64_t low, std::uint64_t high) {
    return _mm_set_epi64x(static_cast<long long>(high), static_cast<long long>(low));
  }
  static Type low_counters() { return _mm_setzero_si128(); }
  static Type start(Type counters, const Type* keys) { return exclusive_or(counters, keys[0]); }
  static Type round(Type state, const Type* keys, int index) {
    return _mm_aesenc_si128(state, keys[index]);
  }
  static Type last_round(Type state, const Type* keys) {
    return _mm_aesenclast_si128(state, keys[10]);
  }
};

}  // namespace

AddKeystream aes_ctr_aesni() { return add_aes_ctr<OneBlock>; }

}  // namespace covey::privacy::masking
#else
namespace covey::privacy::masking {
AddKeystream aes_ctr_aesni() { return nullptr; }
}  // namespace covey::privacy::masking
#endif
