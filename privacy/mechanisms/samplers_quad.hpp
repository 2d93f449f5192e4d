#pragma once

#include <cfloat>
#include <cstdint>

#if LDBL_MANT_DIG < 113 && !defined(__SIZEOF_FLOAT128__)
#include <boost/multiprecision/cpp_bin_float.hpp>
#endif

/// Arithmetic with a 113-bit significand, for what a double does not decide. Series only: no
/// library has these functions everywhere.
namespace covey::privacy {

#if LDBL_MANT_DIG >= 113
using Quad = long double;
#elif defined(__SIZEOF_FLOAT128__)
__extension__ typedef __float128 Quad;
#else  // 32-bit ARM
using Quad = boost::multiprecision::cpp_bin_float_quad;
#endif

/// 2^-113 for Quad.
template <typename T>
inline constexpr T kEpsilon = T{0x1p-53};
template <>
inline const Quad kEpsilon<Quad> = Quad{0x1p-60} * Quad{0x1p-53};

/// (1 + y) ln(1 + y) - y = sum over n >= 2 of (-y)^n / (n (n - 1)), for |y| <= 1/4.
template <typename T>
T deviance(T y) {
  T power = y * y;
  T sum = power / 2;
  for (int n = 3; n < 80; ++n) {
    power *= -y;
    const T term = power / (n * (n - 1));
    sum += term;
    if ((term < 0 ? -term : term) <= kEpsilon<T> * sum) break;
  }
  return sum;
}

/// ln(a / b) = 2 artanh((a - b) / (a + b)), for a and b within a factor of 2.
template <typename T>
T log_ratio(T a, T b) {
  const T z = (a - b) / (a + b);
  const T square = z * z;
  T power = z;
  T sum = z;
  for (int n = 3; n < 160; n += 2) {
    power *= square;
    const T term = power / n;
    sum += term;
    if ((term < 0 ? -term : term) <= kEpsilon<T> * (sum < 0 ? -sum : sum)) break;
  }
  return 2 * sum;
}

/// ln k! - ((k + 1/2) ln k - k + ln(2 pi) / 2) by Stirling's series, whose error is below its first
/// term left out, k^-9 / 1188: below 2^-150 for k >= 2^17.
template <typename T>
T stirling_rest(T k) {
  const T inverse = 1 / k;
  const T square = inverse * inverse;
  return inverse * (T{1} / 12 - square * (T{1} / 360 - square * (T{1} / 1260 - square / 1680)));
}

/// e^-x for x >= 0, to about 2^-104 of itself: a series at x / 256, squared eight times.
inline Quad exp_minus(Quad x) {
  if (x > 200) return 0;
  const Quad small = x / 256;
  Quad term = 1;
  Quad sum = 1;
  for (int n = 1; n < 60; ++n) {
    term *= -small / n;
    sum += term;
    if ((term < 0 ? -term : term) < kEpsilon<Quad> / 16) break;
  }
  for (int i = 0; i < 8; ++i) sum *= sum;
  return sum;
}

}  // namespace covey::privacy
