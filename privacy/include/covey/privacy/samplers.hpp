#pragma once

#include <covey/privacy/secret.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <memory>
#include <span>

namespace covey::privacy {

/// Samples of integer-valued noise from secret random bits. One thread at a time. A source that
/// fails makes every later draw fail: look at status() before using what was drawn. The time that a
/// draw takes depends on it, as in any rejection sampler; from outside only the sum over a vector's
/// d draws is seen.
class NoiseSampler {
 public:
  explicit NoiseSampler(SecretSource& secrets);
  ~NoiseSampler();

  /// P(x) proportional to exp(-x^2 / (2 sigma^2)), by the exact sampler of Canonne, Kamath and
  /// Steinke 2020 (arXiv:2004.00010, Algorithms 1-3): only integer comparisons with random bits, no
  /// floating-point logarithm. sigma^2 is taken as the nearest rational with denominator 2^20 (from
  /// 2^-20 to 2^80).
  std::int64_t discrete_gaussian(double sigma);
  /// The difference of two Poisson(mu / 2) draws, so variance mu (Agarwal, Kairouz and Liu 2021);
  /// mu from 2^-20 to 2^40. Its probabilities are irrational and decided with 113 bits: a draw's
  /// distribution is within 2^-90 of the exact one.
  std::int64_t skellam(double mu);
  void discrete_gaussian(double sigma, std::span<std::int64_t> out);
  void skellam(double mu, std::span<std::int64_t> out);

  /// Real-valued Gaussian noise, safe against Mironov 2012's attack on floating point: a discrete
  /// Gaussian on a lattice 2^-k with sigma / 2^-k in [2^20, 2^21), times 2^-k, exactly.
  double gaussian(double sigma);
  /// value + gaussian(sigma), with the value first rounded to the noise's lattice. Without that the
  /// sum's place between lattice points would still tell the value. It moves a value by at most
  /// 2^-21 sigma: a vector's norm by at most sqrt(d) times that.
  double add_gaussian(double value, double sigma);

  Result<void> status() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace covey::privacy
