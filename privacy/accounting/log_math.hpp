#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

/// Sums, differences and tails of probabilities that are kept as logarithms.
namespace covey::privacy {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// log(e^a + e^b)
inline double log_add(double a, double b) {
  const double high = std::max(a, b);
  const double low = std::min(a, b);
  return low == -kInfinity || high == kInfinity ? high : high + std::log1p(std::exp(low - high));
}

/// log(e^x - 1), x > 0
inline double log_expm1(double x) {
  return x > 30 ? x + std::log1p(-std::exp(-x)) : std::log(std::expm1(x));
}

/// P(X > x), P(X <= x), X standard normal
inline double normal_above(double x) { return 0.5 * std::erfc(x / std::numbers::sqrt2); }
inline double normal_below(double x) { return normal_above(-x); }

/// log P(X > x), X standard normal
inline double log_normal_above(double x) {
  if (x < -1) return std::log1p(-normal_above(-x));
  if (x < 30) return std::log(normal_above(x));
  // Abramowitz and Stegun 26.2.12; the first term left out is below 945 / 30^10 < 2^-39.
  const double y = 1 / (x * x);
  const double series = -y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y)));
  return -x * x / 2 - std::log(x * std::sqrt(2 * std::numbers::pi)) + std::log1p(series);
}

/// The x in [low, high] where f, which has one minimum there, is smallest, within `steps` golden
/// sections.
template <typename Function>
double minimise(const Function& f, double low, double high, int steps) {
  constexpr double kSection = 0.6180339887498949;
  double left = high - kSection * (high - low), right = low + kSection * (high - low);
  double at_left = f(left), at_right = f(right);
  for (int step = 0; step < steps; ++step) {
    if (at_left <= at_right) {
      high = right;
      right = left;
      at_right = at_left;
      left = high - kSection * (high - low);
      at_left = f(left);
    } else {
      low = left;
      left = right;
      at_left = at_right;
      right = low + kSection * (high - low);
      at_right = f(right);
    }
  }
  return at_left <= at_right ? left : right;
}

}  // namespace covey::privacy
