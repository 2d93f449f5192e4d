#pragma once

#include <covey/privacy/mask.hpp>
#include <cstdint>
#include <span>
#include <string_view>

namespace covey::privacy::masking {

/// What can make a keystream. OpenSSL runs everywhere and makes both ciphers; the others make
/// AES-128-CTR and fuse the addition. The later, the faster. (ChaCha20 fused in the same way, 16
/// blocks at a time, was 13% faster than through OpenSSL with AVX-512, and slower with AVX2: not
/// worth a kernel.)
enum class KeystreamKernel : std::uint8_t {
  kOpenSsl,
  kAesNi,
  kArmv8Aes,
  kVaesAvx2,
  kVaesAvx512,
};

inline constexpr KeystreamKernel kAllKeystreamKernels[] = {
    KeystreamKernel::kOpenSsl, KeystreamKernel::kAesNi, KeystreamKernel::kArmv8Aes,
    KeystreamKernel::kVaesAvx2, KeystreamKernel::kVaesAvx512};

std::string_view to_string(KeystreamKernel kernel);
/// Compiled in, can make `cipher`, and this processor runs it (whatever COVEY_ISA says).
bool available(KeystreamKernel kernel, MaskCipher cipher);
/// What apply_masks takes here and now.
KeystreamKernel selected_kernel(MaskCipher cipher);

/// apply_masks on a given kernel, which must be available.
Result<void> apply_masks_on(KeystreamKernel kernel, MaskCipher cipher, const PackedFormat& format,
                            std::span<const MaskKey> masks, std::span<std::uint64_t> sum,
                            unsigned threads);

}  // namespace covey::privacy::masking
