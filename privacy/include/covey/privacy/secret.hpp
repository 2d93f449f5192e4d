#pragma once

#include <array>
#include <covey/ids.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace covey::privacy {

/// Overwrites memory in a way that no compiler removes.
void wipe(std::span<std::byte> bytes) noexcept;

/// Bytes that are wiped when they go. Comparing is constant-time.
template <std::size_t N>
class Secret {
 public:
  Secret() = default;
  explicit Secret(const std::array<std::uint8_t, N>& bytes) : bytes_(bytes) {}
  Secret(const Secret&) = default;
  Secret& operator=(const Secret&) = default;
  Secret(Secret&& other) noexcept : bytes_(other.bytes_) { other.clear(); }
  Secret& operator=(Secret&& other) noexcept {
    if (this != &other) {
      bytes_ = other.bytes_;
      other.clear();
    }
    return *this;
  }
  ~Secret() { clear(); }

  std::span<std::byte, N> span() { return std::as_writable_bytes(std::span(bytes_)); }
  std::span<const std::byte, N> span() const { return std::as_bytes(std::span(bytes_)); }
  std::uint8_t* data() { return bytes_.data(); }
  const std::uint8_t* data() const { return bytes_.data(); }
  void clear() noexcept { wipe(span()); }

  friend bool operator==(const Secret& a, const Secret& b) {
    unsigned difference = 0;
    for (std::size_t i = 0; i < N; ++i) difference |= unsigned{a.bytes_[i]} ^ b.bytes_[i];
    return difference == 0;
  }

 private:
  std::array<std::uint8_t, N> bytes_{};
};

/// Where keys, seeds, polynomial coefficients and privacy's noise come from. A deployment has only
/// the system's generator; the simulator replaces it by a seeded one and nothing else. One thread
/// at a time.
class SecretSource {
 public:
  virtual ~SecretSource() = default;
  /// Error: the generator failed; then nothing may be made of the bytes.
  virtual Result<void> fill(std::span<std::byte> bytes) = 0;
};

/// OpenSSL's generator for private values (RAND_priv_bytes), in large draws.
std::unique_ptr<SecretSource> system_secrets();

/// The ChaCha20 stream of a key made from these: for simulations and tests, where runs repeat.
std::unique_ptr<SecretSource> seeded_secrets(std::uint64_t seed, RoundNumber round, ClientId client,
                                             std::uint64_t stream = 0);

}  // namespace covey::privacy
