#pragma once

#include <array>
#include <covey/digest.hpp>
#include <covey/privacy/secret.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace covey::privacy {

/// The ChaCha20 keystream (RFC 8439, nonce and counter from zero) of one 256-bit key, as an endless
/// run of bytes: how it is cut into calls does not change it. One thread at a time.
class ChaChaStream {
 public:
  explicit ChaChaStream(std::span<const std::byte, 32> key);
  ~ChaChaStream();
  ChaChaStream(const ChaChaStream&) = delete;
  ChaChaStream& operator=(const ChaChaStream&) = delete;

  void fill(std::span<std::byte> bytes);
  std::uint64_t next_u64();
  /// Uniform in [0, bound), unbiased by rejection: only for values that are public. bound >= 1.
  std::uint64_t below(std::uint64_t bound);

 private:
  void generate(std::span<std::byte> bytes);

  struct Cipher;
  std::unique_ptr<Cipher> cipher_;
  Secret<512> ahead_;  ///< made in one go: a call of the cipher costs as much as some 300 bytes
  std::size_t used_ = 512;  ///< of ahead_
};

}  // namespace covey::privacy
