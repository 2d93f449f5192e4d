#pragma once

#include <covey/privacy/packed_vector.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace covey::privacy {

/// The key of one mask: the keystream of AES-128-CTR (its first 16 bytes) or ChaCha20 (all 32),
/// counter and nonce from zero, read as a packed vector. A key makes one mask, ever.
struct MaskKey {
  Secret<32> key;
  bool subtract = false;  ///< the mask leaves the sum instead of entering it
};

/// sum += every mask (or -= where it says so), fused: no keystream ever lies in memory. Works
/// through the sum in blocks that stay in the cache, each with all masks. `threads` (>= 1, the
/// caller's included) share the blocks, so nothing is locked. The widest AES instructions of the
/// machine are chosen at run time; COVEY_ISA lowers them as in models/. Error: `sum` is not
/// format.words() long, one mask is more than its counter can make (ChaCha20: 256 GiB, AES: 16 TiB;
/// then nothing was added), or OpenSSL failed (then `sum` is of no use any more).
Result<void> apply_masks(MaskCipher cipher, const PackedFormat& format,
                         std::span<const MaskKey> masks, std::span<std::uint64_t> sum,
                         unsigned threads = 1);

/// What apply_masks runs on here: "vaes-avx512", "vaes-avx2", "aes-ni", "armv8-aes", "openssl".
std::string_view keystream_isa();

}  // namespace covey::privacy
