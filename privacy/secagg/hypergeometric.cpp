#include "secagg/hypergeometric.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace covey::privacy {
namespace {

/// ln n!: std::lgamma writes a global sign, so threads must not share it.
double log_factorial(double n) {
  if (n < 20) {
    double product = 1;  // 19! < 2^57
    for (double i = 2; i <= n; ++i) product *= i;
    return std::log(product);
  }
  // Stirling's series; the first term left out is below 1 / (1680 * 20^7) = 5e-13.
  const double n2 = n * n;
  return n * std::log(n) - n + 0.5 * std::log(2 * std::numbers::pi * n) +
         (1.0 / 12 - (1.0 / 360 - 1.0 / (1260 * n2)) / n2) / n;
}

double log_choose(double n, double k) {
  return log_factorial(n) - log_factorial(k) - log_factorial(n - k);
}

/// Terms that add less than this share of the sum are left out.
constexpr double kNegligible = 1e-17;

/// P(X >= x) for x above the mean, whence the terms fall.
double upper_tail(const Hypergeometric& of, double x) {
  const double n = of.population;
  const double marks = of.marked;
  const double draws = of.drawn;
  const double highest = std::min(marks, draws);
  if (x > highest) return 0;
  double term =
      std::exp(log_choose(marks, x) + log_choose(n - marks, draws - x) - log_choose(n, draws));
  double sum = term;
  for (; x < highest; x += 1) {
    // P(X = x + 1) / P(X = x), which falls in x, so that the rest is less than a geometric series.
    const double ratio = (marks - x) * (draws - x) / ((x + 1) * (n - marks - draws + x + 1));
    term *= ratio;
    sum += term;
    if (ratio < 1 && term < kNegligible * sum * (1 - ratio)) break;
  }
  return std::min(sum, 1.0);
}

}  // namespace

double Hypergeometric::at_least(std::uint32_t count) const {
  if (count == 0) return 1;
  const double mean = static_cast<double>(marked) * drawn / population;
  if (count > mean) return upper_tail(*this, count);
  // From below the mean the first term may be too small for a double although the sum is nearly 1.
  const Hypergeometric others{population, population - marked, drawn};
  return 1 - upper_tail(others, drawn - count + 1);
}

double Hypergeometric::less_than(std::uint32_t count) const {
  if (count > drawn) return 1;
  // Fewer than `count` marked ones: more than drawn - count of the others.
  return Hypergeometric{population, population - marked, drawn}.at_least(drawn - count + 1);
}

}  // namespace covey::privacy
