#pragma once

#include <covey/privacy/secret.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace covey::privacy {

/// Shamir's secret sharing (1979) of 32 bytes over the integers modulo 2^61 - 1, without a branch
/// or an address that depends on a secret. The secret is five numbers of 52 bits (the last of 48),
/// each shared by a polynomial of its own, because products of 61 bits fit the multiplier of every
/// 64-bit processor. A share is five elements of the field, little-endian.
inline constexpr std::size_t kShareBytes = 40;
using ShareBytes = Secret<kShareBytes>;

/// Shares at `points` (distinct, 1 .. 2^31): any `threshold` of them give the secret, fewer
/// nothing. Error: the source failed, or threshold > points or < 1.
Result<std::vector<ShareBytes>> split(const Secret<32>& secret, std::uint32_t threshold,
                                      std::span<const std::uint32_t> points, SecretSource& secrets);

/// The Lagrange coefficients of one set of points: computed once, used for every secret that is
/// reconstructed from shares at these points. Any thread.
class Reconstruction {
 public:
  /// `points`: those of exactly `threshold` shares, distinct and 1 .. 2^31 (asserted: the caller
  /// has checked them, since a threshold met by one share repeated would be none).
  explicit Reconstruction(std::span<const std::uint32_t> points);
  /// Shares in the order of the points, as many. Error: the bytes are no share, or make no 32-byte
  /// secret; wrong shares can also make a wrong secret, so it has to be checked against a
  /// commitment.
  Result<Secret<32>> combine(std::span<const ShareBytes* const> shares) const;

 private:
  std::vector<std::uint64_t> coefficients_;
};

}  // namespace covey::privacy
