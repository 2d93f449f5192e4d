#pragma once

#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>
#include <cstdint>

namespace covey {

/// What no unmasking on this machine can be faster than: making the masks and agreeing on their
/// keys.
struct MaskingFloor {
  double keystream_gb_per_s = 0;  ///< made and added to a sum in the cache, all threads together
  double x25519_us = 0;           ///< one agreement on one thread, while all threads do the same

  double seconds(std::uint64_t keystream_bytes, std::uint64_t agreements, unsigned threads) const {
    return static_cast<double>(keystream_bytes) / (1e9 * keystream_gb_per_s) +
           1e-6 * x25519_us * static_cast<double>(agreements) / threads;
  }
};

/// GB/s of keystream through apply_masks, packed at `sum_bits`, on a sum that stays in the cache:
/// the best of pieces of a few ms. `seconds` is how long to measure. So are the others.
Result<double> measure_keystream(MaskCipher cipher, std::uint32_t sum_bits, unsigned threads,
                                 double seconds);
/// GB/s of OpenSSL's AES-128-CTR on one core, in pieces of 16 KiB, added to nothing.
Result<double> measure_openssl_aes(double seconds);
/// Microseconds of OpenSSL's X25519 derivation alone, on each of `threads` threads at once.
Result<double> measure_x25519(unsigned threads, double seconds);

Result<MaskingFloor> measure_floor(MaskCipher cipher, std::uint32_t sum_bits, unsigned threads,
                                   double seconds);

}  // namespace covey
