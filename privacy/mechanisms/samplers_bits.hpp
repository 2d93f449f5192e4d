#pragma once

#include <array>
#include <covey/int128.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <span>

namespace covey::privacy {

/// Secret random words, drawn in pieces of 4 KiB and wiped. One thread at a time.
class SecretBits {
 public:
  explicit SecretBits(SecretSource& source) : source_(source) {}
  ~SecretBits() { wipe(std::as_writable_bytes(std::span(words_))); }
  SecretBits(const SecretBits&) = delete;
  SecretBits& operator=(const SecretBits&) = delete;

  std::uint64_t word() {
    if (next_ == kWords) refill();
    return words_[next_++];
  }
  bool bit() {
    if (bits_left_ == 0) {
      bits_ = word();
      bits_left_ = 64;
    }
    const bool result = (bits_ & 1) != 0;
    bits_ >>= 1;
    --bits_left_;
    return result;
  }
  /// Uniform in [0, bound), exactly (Lemire 2019). bound >= 1.
  std::uint64_t below(std::uint64_t bound) {
    Product product = static_cast<Product>(word()) * bound;
    if (static_cast<std::uint64_t>(product) < bound) {
      const std::uint64_t threshold = (0 - bound) % bound;
      while (static_cast<std::uint64_t>(product) < threshold) {
        product = static_cast<Product>(word()) * bound;
      }
    }
    return static_cast<std::uint64_t>(product >> 64);
  }
  /// Error: the source failed at some time; what was drawn since is worthless.
  const Result<void>& status() const { return status_; }

 private:
  using Product = Uint128;
  static constexpr std::size_t kWords = 512;

  void refill();

  SecretSource& source_;
  std::array<std::uint64_t, kWords> words_{};
  std::size_t next_ = kWords;
  std::uint64_t bits_ = 0;
  unsigned bits_left_ = 0;
  std::uint64_t worthless_ = 0;  ///< counts on where the source failed
  Result<void> status_;
};

}  // namespace covey::privacy
