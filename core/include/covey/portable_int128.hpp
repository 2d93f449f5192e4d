#pragma once

#include <bit>
#include <cmath>
#include <compare>
#include <concepts>
#include <cstdint>
#include <limits>

/// Integers of 128 bits in two words, for processors whose compilers have none; covey/int128.hpp
/// chooses. They convert, wrap and round as the compiler's own do, so that results are the same
/// everywhere. Only division and the choice of words in a shift depend on values: the rest takes
/// the same time for all.
namespace covey {

/// Modulo 2^128.
class PortableUint128 {
 public:
  constexpr PortableUint128() = default;
  template <std::integral T>
  constexpr PortableUint128(T value)  // NOLINT(google-explicit-constructor): as integers do
      : high_(std::signed_integral<T> && value < T{0} ? ~std::uint64_t{0} : 0),
        low_(static_cast<std::uint64_t>(value)) {}
  /// Truncated; 0 <= value < 2^128.
  constexpr explicit PortableUint128(double value)
      : high_(static_cast<std::uint64_t>(value * 0x1p-64)),
        low_(static_cast<std::uint64_t>(value - static_cast<double>(high_) * 0x1p64)) {}

  template <std::integral T>
  constexpr explicit operator T() const {
    if constexpr (std::same_as<T, bool>) {
      return (high_ | low_) != 0;
    } else {
      return static_cast<T>(low_);
    }
  }
  /// To nearest, ties to even.
  explicit operator double() const {
    if (high_ == 0) return static_cast<double>(low_);
    // 64 bits from the highest one that is set; what is below them only breaks ties.
    const int shift = static_cast<int>(std::bit_width(high_));
    const PortableUint128 top = *this >> shift;
    const std::uint64_t rest = shift == 64 ? low_ : low_ << (64 - shift);
    return std::ldexp(static_cast<double>(top.low_ | static_cast<std::uint64_t>(rest != 0)), shift);
  }

  friend constexpr PortableUint128 operator+(PortableUint128 a, PortableUint128 b) {
    const std::uint64_t low = a.low_ + b.low_;
    return of_words(a.high_ + b.high_ + static_cast<std::uint64_t>(low < a.low_), low);
  }
  friend constexpr PortableUint128 operator-(PortableUint128 a, PortableUint128 b) {
    const std::uint64_t borrow = a.low_ < b.low_ ? 1 : 0;
    return of_words(a.high_ - b.high_ - borrow, a.low_ - b.low_);
  }
  friend constexpr PortableUint128 operator*(PortableUint128 a, PortableUint128 b) {
    PortableUint128 product = of_product(a.low_, b.low_);
    product.high_ += a.high_ * b.low_ + a.low_ * b.high_;
    return product;
  }
  /// b > 0.
  friend constexpr PortableUint128 operator/(PortableUint128 a, PortableUint128 b) {
    return divide(a, b);
  }
  friend constexpr PortableUint128 operator%(PortableUint128 a, PortableUint128 b) {
    divide(a, b);
    return a;
  }
  friend constexpr PortableUint128 operator|(PortableUint128 a, PortableUint128 b) {
    return of_words(a.high_ | b.high_, a.low_ | b.low_);
  }
  friend constexpr PortableUint128 operator&(PortableUint128 a, PortableUint128 b) {
    return of_words(a.high_ & b.high_, a.low_ & b.low_);
  }
  /// 0 <= count < 128.
  template <std::integral T>
  friend constexpr PortableUint128 operator<<(PortableUint128 a, T count) {
    if (count == 0) return a;
    if (count >= 64) return of_words(a.low_ << (count - 64), 0);
    return of_words((a.high_ << count) | (a.low_ >> (64 - count)), a.low_ << count);
  }
  template <std::integral T>
  friend constexpr PortableUint128 operator>>(PortableUint128 a, T count) {
    if (count == 0) return a;
    if (count >= 64) return of_words(0, a.high_ >> (count - 64));
    return of_words(a.high_ >> count, (a.low_ >> count) | (a.high_ << (64 - count)));
  }
  friend constexpr bool operator==(const PortableUint128&, const PortableUint128&) = default;
  friend constexpr auto operator<=>(const PortableUint128&, const PortableUint128&) = default;

  constexpr PortableUint128 operator-() const { return PortableUint128{} - *this; }
  constexpr PortableUint128& operator+=(PortableUint128 other) { return *this = *this + other; }
  constexpr PortableUint128& operator-=(PortableUint128 other) { return *this = *this - other; }
  constexpr PortableUint128& operator*=(PortableUint128 other) { return *this = *this * other; }
  constexpr PortableUint128& operator/=(PortableUint128 other) { return *this = *this / other; }
  template <std::integral T>
  constexpr PortableUint128& operator<<=(T count) {
    return *this = *this << count;
  }
  template <std::integral T>
  constexpr PortableUint128& operator>>=(T count) {
    return *this = *this >> count;
  }

 private:
  static constexpr PortableUint128 of_words(std::uint64_t high, std::uint64_t low) {
    PortableUint128 result;
    result.high_ = high;
    result.low_ = low;
    return result;
  }
  static constexpr PortableUint128 of_product(std::uint64_t a, std::uint64_t b) {
    constexpr std::uint64_t kHalf = 0xffffffff;
    const std::uint64_t low = (a & kHalf) * (b & kHalf);
    const std::uint64_t cross = (a >> 32) * (b & kHalf), other = (a & kHalf) * (b >> 32);
    const std::uint64_t middle = (low >> 32) + (cross & kHalf) + (other & kHalf);
    return of_words((a >> 32) * (b >> 32) + (cross >> 32) + (other >> 32) + (middle >> 32),
                    (middle << 32) | (low & kHalf));
  }
  /// a = a mod b, by shifting and subtracting. Returns the quotient.
  static constexpr PortableUint128 divide(PortableUint128& a, PortableUint128 b) {
    PortableUint128 quotient;
    for (int shift = width(a) - width(b); shift >= 0; --shift) {
      const PortableUint128 part = b << shift;
      quotient <<= 1;
      if (a < part) continue;
      a -= part;
      quotient += 1;
    }
    return quotient;
  }
  static constexpr int width(PortableUint128 a) {
    return static_cast<int>(a.high_ != 0 ? 64 + std::bit_width(a.high_) : std::bit_width(a.low_));
  }

  std::uint64_t high_ = 0;  // before low_: they are compared in this order
  std::uint64_t low_ = 0;
};

/// In two's complement.
class PortableInt128 {
 public:
  constexpr PortableInt128() = default;
  template <std::integral T>
  constexpr PortableInt128(T value) : bits_(value) {}  // NOLINT(google-explicit-constructor)
  constexpr explicit PortableInt128(PortableUint128 bits) : bits_(bits) {}
  /// Truncated; |value| < 2^127.
  constexpr explicit PortableInt128(double value)
      : bits_(value < 0 ? -PortableUint128(-value) : PortableUint128(value)) {}

  constexpr explicit operator PortableUint128() const { return bits_; }
  template <std::integral T>
  constexpr explicit operator T() const {
    return static_cast<T>(bits_);
  }
  /// To nearest, ties to even.
  explicit operator double() const {
    return negative() ? -static_cast<double>(-bits_) : static_cast<double>(bits_);
  }

  friend constexpr PortableInt128 operator+(PortableInt128 a, PortableInt128 b) {
    return PortableInt128(a.bits_ + b.bits_);
  }
  friend constexpr PortableInt128 operator-(PortableInt128 a, PortableInt128 b) {
    return PortableInt128(a.bits_ - b.bits_);
  }
  friend constexpr PortableInt128 operator*(PortableInt128 a, PortableInt128 b) {
    return PortableInt128(a.bits_ * b.bits_);
  }
  template <std::integral T>
  friend constexpr PortableInt128 operator<<(PortableInt128 a, T count) {
    return PortableInt128(a.bits_ << count);
  }
  friend constexpr bool operator==(const PortableInt128&, const PortableInt128&) = default;
  friend constexpr std::strong_ordering operator<=>(PortableInt128 a, PortableInt128 b) {
    return (a.bits_ + kOffset) <=> (b.bits_ + kOffset);
  }

  constexpr PortableInt128 operator-() const { return PortableInt128(-bits_); }
  constexpr PortableInt128& operator+=(PortableInt128 other) { return *this = *this + other; }
  constexpr PortableInt128& operator-=(PortableInt128 other) { return *this = *this - other; }

 private:
  static constexpr PortableUint128 kOffset = PortableUint128{1} << 127;
  constexpr bool negative() const { return bits_ >= kOffset; }

  PortableUint128 bits_;
};

}  // namespace covey
