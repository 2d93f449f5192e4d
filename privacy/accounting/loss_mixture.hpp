#pragma once

#include <cmath>
#include <utility>

#include "accounting/log_math.hpp"
#include "accounting/privacy_loss.hpp"

namespace covey::privacy {

/// N(0, sigma^2) and the mixture (1 - q) N(0, sigma^2) + q N(1, sigma^2) by loss ln(mixture /
/// plain), which grows with the outcome.
struct LossMixture {
  double sigma;
  double q;

  double loss_at(double outcome) const {
    const double shifted = (2 * outcome - 1) / (2 * sigma * sigma);  // ln of N(1)/N(0)
    if (shifted > 30) return shifted + std::log(q + (1 - q) * std::exp(-shifted));
    return q == 1 ? shifted : std::log1p(q * std::expm1(shifted));
  }
  /// The inverse; -infinity at or below the least loss ln(1 - q).
  double outcome_at(double loss) const {
    if (q == 1) return sigma * sigma * loss + 0.5;
    const double excess = std::expm1(std::min(loss, 30.0)) / q;
    if (excess <= -1) return -kInfinity;
    const double shifted = loss > 30 ? loss - std::log(q) + std::log1p(-(1 - q) * std::exp(-loss))
                                     : std::log1p(excess);
    return sigma * sigma * shifted + 0.5;
  }

  double plain_above(double outcome) const { return normal_above(outcome / sigma); }
  double plain_below(double outcome) const { return normal_below(outcome / sigma); }
  double mixture_above(double outcome) const {
    return (1 - q) * normal_above(outcome / sigma) + q * normal_above((outcome - 1) / sigma);
  }
  double mixture_below(double outcome) const {
    return (1 - q) * normal_below(outcome / sigma) + q * normal_below((outcome - 1) / sigma);
  }
  /// P(from < X <= to) under N(mean, sigma^2), by the tail that keeps the digits.
  double mass(double mean, double from, double to) const {
    const double a = (from - mean) / sigma, b = (to - mean) / sigma;
    return a > 0 ? normal_above(a) - normal_above(b) : normal_below(b) - normal_below(a);
  }
  /// [low, high] with at most `mass` of the plain part below and of the mixture above.
  std::pair<double, double> outcomes_beyond(double mass) const {
    const double reach = 40 * sigma;  // a double holds no smaller tail
    const auto falling_to_mass = [&](const auto& tail) {
      double inside = -1 - reach, outside = 1 + reach;
      for (int halving = 0; halving < 60; ++halving) {
        const double middle = (inside + outside) / 2;
        (tail(middle) > mass ? inside : outside) = middle;
      }
      return outside;
    };
    const double low = -falling_to_mass([&](double x) { return plain_below(-x); });
    return {low, falling_to_mass([&](double x) { return mixture_above(x); })};
  }
};

inline LossMixture loss_mixture(const SampledGaussian& mechanism) {
  const bool replace = mechanism.direction == SampledGaussian::Direction::kReplace;
  return {mechanism.noise_multiplier / (replace ? 2 : 1), mechanism.sampling_rate};
}

}  // namespace covey::privacy
