#pragma once

#include <cstdint>
#include <vector>

#include "mechanisms/samplers_gaussian.hpp"

/// Skellam noise: the difference of two Poisson(mu / 2) draws. Its probabilities are not rational,
/// so they are computed to 113 bits and compared with up to 128 random ones: the distribution of a
/// draw is within 2^-90 of the exact one in total variation, which adds less than 2^-40 to the
/// delta of 2^50 draws.
namespace covey::privacy {

/// For mu from 2^-20 to 2^20: inversion of the cumulative distribution of |X|, P(|X| = k) = (2 -)
/// e^-mu I_k(mu). The modified Bessel functions' ratios come from I_(k-1) = I_(k+1) + (2 k / mu)
/// I_k downwards (Miller's method), a sum of positive terms, and their scale from I_0 + 2 sum I_k =
/// e^mu.
class SkellamTable {
 public:
  static constexpr double kMaxVariance = 0x1p20;
  explicit SkellamTable(double mu);
  std::int64_t draw(SecretBits& bits) const;

 private:
  // P(|X| <= k), 128 bits as two words.
  std::vector<std::uint64_t> high_;
  std::vector<std::uint64_t> low_;
  std::vector<std::uint32_t> guide_;  ///< by the first bits of a draw: the smallest k it can be
  int guide_shift_ = 0;
};

/// For lambda >= 2^18: candidates m + x, x exactly discrete Laplace of scale t, accepted with
/// probability exp(-(h(x) - |x| / t + c)) <= 1, h(x) = ln P(m) - ln P(m + x). Decided in double,
/// unless the draw is within 2^-36 of its threshold: then in 113 bits.
class PoissonSampler {
 public:
  explicit PoissonSampler(double lambda);
  /// A draw, less floor(lambda).
  std::int64_t draw(SecretBits& bits) const;

 private:
  bool closely_below(std::int64_t x, std::uint64_t first, SecretBits& bits) const;

  double lambda_;
  std::int64_t mode_;  ///< m
  DiscreteLaplace laplace_;
  double envelope_;  ///< c >= max_x |x| / t - h(x)
};

}  // namespace covey::privacy
