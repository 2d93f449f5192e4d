#pragma once

#include <array>
#include <covey/int128.hpp>
#include <cstdint>

#include "mechanisms/samplers_bits.hpp"

/// The samplers of Canonne, Kamath and Steinke 2020 (arXiv:2004.00010), exact: a uniform real
/// number, whose binary digits are drawn as they are needed, is compared with a rational number.
/// The first 64 digits nearly always decide, against bounds of the rational number's; where they do
/// not, long division gives further digits without end. No floating point.
namespace covey::privacy {

/// Unsigned integers below 2^256, lowest word first: as much of them as exact decisions take.
struct Uint256 {
  using Half = Uint128;
  std::array<std::uint64_t, 4> words{};

  static Uint256 of(Half value);
  static Uint256 square(Half value);
  int bit_width() const;
  bool bit(int index) const {
    return ((words[static_cast<unsigned>(index) / 64] >> (index % 64)) & 1) != 0;
  }
  /// *this * factor, below 2^256.
  Uint256 times(std::uint64_t factor) const;
  bool at_least(const Uint256& other) const;
  void subtract(const Uint256& other);
  /// *this = 2 * *this + low_bit.
  void shift_in(bool low_bit);
  /// The 64 bits from the highest set one on, and how far they were shifted down. Not zero.
  std::uint64_t top(int& shift) const;
};

/// A fraction, in [0, 1) where it is a probability. denominator < 2^254.
struct Fraction {
  Uint256 numerator;
  Uint256 denominator;
};
/// Whether the real number with the 64 binary digits `first` and then random ones is below
/// `fraction`.
bool exactly_below(std::uint64_t first, Fraction fraction, SecretBits& bits);

/// P(x) = (e^(1/t) - 1) / (e^(1/t) + 1) * e^(-|x| / t). Algorithm 2 with s = 1.
class DiscreteLaplace {
 public:
  explicit DiscreteLaplace(std::uint64_t scale) : scale_(scale) {}
  std::uint64_t scale() const { return scale_; }
  std::int64_t draw(SecretBits& bits) const;

 private:
  std::uint64_t scale_;  ///< t >= 1, < 2^41
};

/// Algorithm 3.
class DiscreteGaussian {
 public:
  /// sigma^2 in [2^-20, 2^80] (asserted), taken as the nearest multiple of 2^-20. `always_exact`:
  /// decide by long division always, which gives the same draws.
  explicit DiscreteGaussian(double sigma, bool always_exact = false);
  std::int64_t draw(SecretBits& bits) const;

 private:
  /// gamma in [whole + low 2^-64, whole + (high + 1) 2^-64).
  struct Exponent {
    std::uint64_t whole = 0;
    std::uint64_t low = 0;
    std::uint64_t high = 0;
  };
  bool accept(std::uint64_t magnitude, SecretBits& bits) const;
  Exponent bounds(Uint128 difference) const;
  Exponent exact(Uint128 difference, Fraction& rest) const;

  Uint128 variance_;  ///< sigma^2 * 2^20
  DiscreteLaplace laplace_;
  Uint256 denominator_;               ///< t^2 2^21 variance_
  std::uint64_t reciprocal_low_ = 0;  ///< 2^126 / (the denominator's top 64 bits), bounds of it
  std::uint64_t reciprocal_high_ = 0;
  int shift_ = 0;  ///< how far those were shifted down
  bool always_exact_ = false;
};

}  // namespace covey::privacy
