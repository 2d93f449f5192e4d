#include "mechanisms/samplers_skellam.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/assert.hpp>

#include "mechanisms/samplers_quad.hpp"

namespace covey::privacy {
namespace {

/// Probability, as a power of 2, that a draw is beyond the table.
constexpr double kTailBits = 140;

// floor(x * 2^128) for x in [0, 1), as two words.
std::uint64_t take_word(Quad& x) {
  x *= Quad{0x1p64};
  const auto word = static_cast<std::uint64_t>(x);
  x -= static_cast<Quad>(word);
  return word;
}

// h(k - m) = ln P(m) - ln P(k) for Poisson(lambda), by Stirling's formula for both factorials, in
// terms that do not cancel: with y = (k - lambda) / lambda, k ln(k / lambda) - (k - lambda) =
// lambda deviance(y).
template <typename T>
T negative_log_ratio(T lambda, T m, T k) {
  return lambda * (deviance<T>((k - lambda) / lambda) - deviance<T>((m - lambda) / lambda)) +
         log_ratio<T>(k, m) / 2 + stirling_rest<T>(k) - stirling_rest<T>(m);
}

}  // namespace

SkellamTable::SkellamTable(double mu) {
  COVEY_ASSERT(mu >= 0x1p-20 && mu <= kMaxVariance);
  // |X| > sqrt(2 mu s) + s / 3 has probability below 2 e^-s: X is sub-gamma with scale 1 / 3.
  const double s = (kTailBits + 1) * 0.693148;
  const auto size = static_cast<std::size_t>(std::ceil(std::sqrt(2 * mu * s) + s / 3)) + 2;
  std::vector<Quad> weights(size);
  const Quad two_over_mu = Quad{2} / Quad{mu};
  Quad above = 0;
  // Small enough to grow by the inverse of the tail and, for small mu, by (2 k / mu)^k: the
  // exponent of a Quad reaches 2^16383, and at mu = 2^-20, 40 steps make 2^1000.
  Quad here = 1;
  for (std::size_t k = size; k-- > 0;) {
    weights[k] = here;
    const Quad below = above + two_over_mu * static_cast<Quad>(k) * here;
    above = here;
    here = below;
  }
  Quad total = 0;
  for (std::size_t k = size; k-- > 1;) {
    weights[k] *= 2;
    total += weights[k];
  }
  total += weights[0];
  Quad cumulative = 0;
  for (std::size_t k = 0; k < size; ++k) {
    cumulative += weights[k];
    Quad probability = cumulative / total;
    if (k + 1 == size || probability >= 1) {
      high_.push_back(UINT64_MAX);
      low_.push_back(UINT64_MAX);
      if (k + 1 == size) break;
      continue;
    }
    high_.push_back(take_word(probability));
    low_.push_back(take_word(probability));
  }
  const auto guide_bits = std::max(1, static_cast<int>(std::bit_width(size)));
  guide_shift_ = 64 - guide_bits;
  std::uint32_t k = 0;
  for (std::uint64_t i = 0; i < std::uint64_t{1} << guide_bits; ++i) {
    while (high_[k] < i << guide_shift_) ++k;
    guide_.push_back(k);
  }
}

std::int64_t SkellamTable::draw(SecretBits& bits) const {
  const std::uint64_t first = bits.word();
  std::size_t k = guide_[static_cast<std::size_t>(first >> guide_shift_)];
  while (high_[k] < first) ++k;
  if (high_[k] == first) {
    const std::uint64_t second = bits.word();
    while (k + 1 < high_.size() && high_[k] == first && low_[k] <= second) ++k;
  }
  const auto magnitude = static_cast<std::int64_t>(k);
  return bits.bit() ? -magnitude : magnitude;
}

PoissonSampler::PoissonSampler(double lambda)
    : lambda_(lambda),
      mode_(static_cast<std::int64_t>(lambda)),
      laplace_(static_cast<std::uint64_t>(std::sqrt(lambda)) + 1),
      envelope_(0) {
  COVEY_ASSERT(lambda >= 0x1p18 && lambda <= 0x1p40);
  // h is convex with steps ln((m + x) / lambda), so |x| / t - h(x) is largest where a step crosses
  // 1 / t: next to m + x = lambda e^(+-1/t). 2^-20 more than the largest seen is above what
  // rounding hides.
  const auto scale = static_cast<double>(laplace_.scale());
  const auto mode = static_cast<double>(mode_);
  for (const double sign : {-1.0, 1.0}) {
    const double turn = std::floor(lambda * std::exp(sign / scale) - mode);
    for (double x = turn - 2; x <= turn + 2; ++x) {
      envelope_ = std::max(
          envelope_, std::abs(x) / scale - negative_log_ratio<double>(lambda, mode, mode + x));
    }
  }
  envelope_ += 0x1p-20;
}

std::int64_t PoissonSampler::draw(SecretBits& bits) const {
  for (;;) {
    const std::int64_t x = laplace_.draw(bits);
    const auto magnitude = static_cast<double>(x < 0 ? -x : x);
    // e^(-sqrt(lambda) / 4) <= e^-128 of all candidates: left out.
    if (magnitude > lambda_ / 4 - 1) continue;
    const auto mode = static_cast<double>(mode_);
    const auto k = static_cast<double>(mode_ + x);
    const auto scale = static_cast<double>(laplace_.scale());
    const double exponent =
        negative_log_ratio<double>(lambda_, mode, k) - magnitude / scale + envelope_;
    // Where the threshold is above 2^-52 no term of the exponent is above 64, so it is good to
    // 2^-44 and the threshold to that part of itself.
    const double threshold = std::exp(-exponent);
    const std::uint64_t first = bits.word();
    const double uniform = 0x1p-64 * static_cast<double>(first);
    if (uniform < threshold * (1 - 0x1p-36) - 0x1p-52) return x;
    if (uniform > threshold * (1 + 0x1p-36) + 0x1p-52) continue;
    if (closely_below(x, first, bits)) return x;
  }
}

// The same decision with 113 bits, and 128 of the uniform number.
bool PoissonSampler::closely_below(std::int64_t x, std::uint64_t first, SecretBits& bits) const {
  const auto mode = static_cast<Quad>(mode_);
  const auto magnitude = static_cast<Quad>(x < 0 ? -x : x);
  const Quad exponent = negative_log_ratio<Quad>(Quad{lambda_}, mode, mode + static_cast<Quad>(x)) -
                        magnitude / static_cast<Quad>(laplace_.scale()) + Quad{envelope_};
  Quad threshold = exp_minus(exponent);
  const std::uint64_t high = take_word(threshold);
  const std::uint64_t second = bits.word();
  return first != high ? first < high : second < take_word(threshold);
}

}  // namespace covey::privacy
