#include "accounting/privacy_loss.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/assert.hpp>

#include "accounting/fourier.hpp"
#include "accounting/loss_mixture.hpp"

namespace covey::privacy {
namespace {

// Shares of delta that are set aside: for losses beyond the grid, for sums of losses beyond the
// window, and for rounding (the tilted convolution is exact to about rounds * 2^-53 of its own
// total).
constexpr double kBeyondGrid = 1e-7;
constexpr double kBeyondWindow = 1e-6;
constexpr double kRounding = 1e-5;
// Below it e^loss may leave the doubles. A sample then hides next to nothing of such an epsilon
// (over a hundred in one round), so all devices stand for it: never less.
constexpr double kLeastSigma = 0.05;
// What may lie outside the window on either side, of the tilted distribution: it comes in again on
// the other side, which only adds to epsilon, and next to nothing.
constexpr double kWrapped = 1e-10;
// Standard deviations of all rounds' tilted loss by which epsilon may lie off its mean.
constexpr double kTypical = 3;
// How often the window may be moved.
constexpr int kMostWindows = 50;
// Points of the window at most: 16 MiB.
constexpr double kMostPoints = 1 << 20;
// Points of one round's grid, per unit of fineness: at least, since near-certain small losses may
// hide behind the rare large ones that make the standard deviation; at most, since they cost time.
constexpr double kLeastCells = 1 << 6, kMostCells = 1 << 11;

/// ln E[e^(tilt loss)] of one round, with the mean and variance of the loss tilted by e^(tilt
/// loss).
class LossMoments {
 public:
  struct At {
    double log_moment = 0, mean = 0, variance = 0;
  };

  void add(double loss, double mass) {
    if (mass <= 0) return;
    losses_.push_back(loss);
    log_masses_.push_back(std::log(mass));
  }
  void normalise() {
    const double total = at(0).log_moment;
    for (double& log_mass : log_masses_) log_mass -= total;
  }

  double range() const {
    const auto [least, most] = std::minmax_element(losses_.begin(), losses_.end());
    return *most - *least;
  }

  At at(double tilt) const {
    double largest = -kInfinity;
    for (std::size_t i = 0; i < losses_.size(); ++i) {
      largest = std::max(largest, tilt * losses_[i] + log_masses_[i]);
    }
    double total = 0, first = 0, second = 0;
    const double origin = losses_[losses_.size() / 2];
    for (std::size_t i = 0; i < losses_.size(); ++i) {
      const double weight = std::exp(tilt * losses_[i] + log_masses_[i] - largest);
      const double loss = losses_[i] - origin;
      total += weight;
      first += weight * loss;
      second += weight * loss * loss;
    }
    const double mean = first / total;
    return {largest + std::log(total), origin + mean, std::max(second / total - mean * mean, 0.0)};
  }

 private:
  std::vector<double> losses_, log_masses_;
};

LossMoments moments_of(const LossGrid& grid) {
  LossMoments moments;
  for (std::size_t i = 0; i < grid.weights.size(); ++i) {
    moments.add(grid.step * static_cast<double>(grid.first + static_cast<std::int64_t>(i)),
                grid.weights[i]);
  }
  return moments;
}

/// By the trapezoid rule over the outcomes, for choosing grid and window; nothing is claimed of it.
LossMoments rough_moments(const SampledGaussian& mechanism, double most_infinite) {
  using Direction = SampledGaussian::Direction;
  const LossMixture mixture = loss_mixture(mechanism);
  const auto [low, high] = mixture.outcomes_beyond(most_infinite);
  constexpr int kOutcomes = 1024;
  const double spacing = (high - low) / kOutcomes;
  LossMoments moments;
  for (int i = 0; i <= kOutcomes; ++i) {
    const double outcome = low + spacing * i;
    const double from = outcome - spacing / 2, to = outcome + spacing / 2;
    const double plain = mixture.mass(0, from, to);
    const double mixed = (1 - mixture.q) * plain + mixture.q * mixture.mass(1, from, to);
    const double loss = mixture.loss_at(outcome);
    if (mechanism.direction == Direction::kRemove ||
        (mechanism.direction == Direction::kReplace && loss > 0)) {
      moments.add(loss, mixed);
    }
    if (mechanism.direction == Direction::kAdd ||
        (mechanism.direction == Direction::kReplace && loss > 0)) {
      moments.add(-loss, plain);
    }
  }
  if (mechanism.direction == Direction::kReplace) {
    moments.add(0, (1 - mixture.q) * (1 - 2 * mixture.plain_above(0.5)));
  }
  moments.normalise();
  return moments;
}

/// Where to look: losses of all rounds in [low, high], tilted by e^(tilt loss) so that what makes
/// delta is their bulk.
struct Window {
  double tilt = 0;
  double low = 0, high = 0;
  double step = 0;
};

constexpr double kLowestTilt = -9, kHighestTilt = 18;  // logarithms; an epsilon of 1e-6 needs 1e7
constexpr int kSections = 24;  // of a width of 27: to 3e-4; any tilt gives a bound

/// The least e with P(loss of all rounds > e) <= exp(log_tail), by Chernoff's bound at `tilt`.
double chernoff(const LossMoments& moments, double rounds, double log_tail, double tilt) {
  return (rounds * moments.at(tilt).log_moment - log_tail) / tilt;
}

double best_tilt(const LossMoments& moments, double rounds, double log_tail) {
  return std::exp(minimise(
      [&](double log_tilt) { return chernoff(moments, rounds, log_tail, std::exp(log_tilt)); },
      kLowestTilt, kHighestTilt, kSections));
}

/// The window of a tilt: Chernoff's bounds of the tilted distribution on both sides, and at least
/// up to `highest`.
Window window_of(const LossMoments& moments, double rounds, double tilt, double highest,
                 double fineness) {
  const LossMoments::At tilted = moments.at(tilt);
  const auto bound = [&](double tilt_by) {
    const double difference = moments.at(tilt + tilt_by).log_moment - tilted.log_moment;
    return (rounds * difference - std::log(kWrapped)) / tilt_by;
  };
  const auto least = [&](double sign) {
    const auto at = [&](double log_by) { return sign * bound(sign * std::exp(log_by)); };
    return sign * at(minimise(at, kLowestTilt, kHighestTilt, kSections));
  };
  Window window;
  window.tilt = tilt;
  window.low = least(-1);
  window.high = std::max(least(1), highest);
  const double range = moments.range() / fineness;
  window.step =
      std::clamp(std::sqrt(tilted.variance) / fineness, range / kMostCells, range / kLeastCells);
  window.step = std::max(window.step, (window.high - window.low) / kMostPoints);
  return window;
}

/// The tilt under which all rounds lose `loss` on average.
double tilt_for_mean(const LossMoments& moments, double rounds, double loss, double most) {
  double low = kLowestTilt, high = std::log(most);
  for (int halving = 0; halving < kSections; ++halving) {
    const double middle = (low + high) / 2;
    (rounds * moments.at(std::exp(middle)).mean < loss ? low : high) = middle;
  }
  return std::exp(low);
}

/// The composed, tilted distribution: mass of loss step * (first + i) is
/// weights[i] * exp(log_total - tilt * loss).
struct Composed {
  double step = 0;
  std::int64_t first = 0;
  std::vector<double> weights;
  double log_total = 0;
  double tilt = 0;
};

Composed compose(const LossGrid& grid, const LossMoments& moments, const Window& window,
                 std::uint64_t rounds) {
  const auto count = static_cast<double>(rounds);
  const LossMoments::At tilted = moments.at(window.tilt);

  Composed composed;
  composed.step = grid.step;
  composed.tilt = window.tilt;
  composed.log_total = count * tilted.log_moment;
  composed.first = static_cast<std::int64_t>(std::floor(window.low / grid.step));
  const auto points = static_cast<std::uint64_t>(
      std::max(1.0, window.high / grid.step - static_cast<double>(composed.first) + 2));
  const auto size = static_cast<std::int64_t>(std::bit_ceil(points));

  // Centred on the mean, so that powers of the spectrum turn little.
  const auto centre = static_cast<std::int64_t>(std::llround(tilted.mean / grid.step));
  const auto place = [size](std::int64_t k) {
    return static_cast<std::size_t>(((k % size) + size) % size);
  };
  std::vector<double> weights(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < grid.weights.size(); ++i) {
    const std::int64_t k = grid.first + static_cast<std::int64_t>(i);
    if (grid.weights[i] <= 0) continue;
    const double loss = grid.step * static_cast<double>(k);
    weights[place(k - centre)] +=
        std::exp(window.tilt * loss + std::log(grid.weights[i]) - tilted.log_moment);
  }
  const std::vector<double> sums = convolve_with_itself(weights, rounds);
  const std::int64_t shift = composed.first - static_cast<std::int64_t>(rounds) * centre;
  composed.weights.resize(sums.size());
  for (std::int64_t i = 0; i < size; ++i) {
    composed.weights[static_cast<std::size_t>(i)] = sums[place(shift + i)];
  }
  return composed;
}

/// The least epsilon of the window with sum over losses above it of mass * (1 - exp(epsilon -
/// loss)) <= delta.
double solve(const Composed& composed, double delta) {
  const auto loss_of = [&](std::size_t i) {
    return composed.step * static_cast<double>(composed.first + static_cast<std::int64_t>(i));
  };
  const double one_step = std::exp(-composed.step);
  double above = 0;       // mass at loss and beyond
  double discounted = 0;  // the same times exp(this loss - its loss)
  for (std::size_t i = composed.weights.size(); i-- > 1;) {
    const double loss = loss_of(i);
    const double mass =
        std::max(composed.weights[i], 0.0) * std::exp(composed.log_total - composed.tilt * loss);
    above += mass;
    discounted = discounted * one_step + mass;
    if (above - one_step * discounted <= delta) continue;
    return std::clamp(loss + std::log((above - delta) / discounted), loss - composed.step, loss);
  }
  return loss_of(0);
}

}  // namespace

double epsilon_of_gaussian(double mu, double delta) {
  if (mu == 0) return 0;
  if (mu == kInfinity) return kInfinity;
  const auto delta_of = [mu](double epsilon) {
    const double first = normal_above(epsilon / mu - mu / 2);
    return first - std::exp(epsilon + log_normal_above(epsilon / mu + mu / 2));
  };
  if (delta_of(0) <= delta) return 0;
  // Mass of losses above epsilon alone is delta there: loss ~ N(mu^2 / 2, mu^2).
  double low = 0, high = mu * mu / 2 + mu * std::sqrt(2 * std::log(1 / delta));
  for (int halving = 0; halving < 100; ++halving) {
    const double middle = (low + high) / 2;
    (delta_of(middle) > delta ? low : high) = middle;
  }
  return high;
}

double epsilon_of_sampled_gaussian(const SampledGaussian& mechanism, std::uint64_t rounds,
                                   double delta, double fineness) {
  COVEY_ASSERT(delta > 0 && delta < 1 && fineness > 0);
  if (rounds == 0) return 0;
  const auto count = static_cast<double>(rounds);
  if (const double sigma = loss_mixture(mechanism).sigma; sigma < kLeastSigma) {
    return epsilon_of_gaussian(std::sqrt(count) / sigma, delta);
  }
  const double most_infinite = kBeyondGrid * delta / count;
  const LossMoments rough = rough_moments(mechanism, most_infinite);
  const double log_tail = std::log(delta * kBeyondWindow);
  const double tail_tilt = best_tilt(rough, count, log_tail);
  double tilt = best_tilt(rough, count, std::log(delta));
  double least = kInfinity;
  for (int attempt = 0; attempt < kMostWindows; ++attempt) {
    Window window =
        window_of(rough, count, tilt, chernoff(rough, count, log_tail, tail_tilt), fineness);
    const LossGrid grid = loss_grid(mechanism, window.step, most_infinite);
    const LossMoments moments = moments_of(grid);
    // The grid's own bound, which is above the rough one by little, is the one to rely on.
    window.high = std::max(window.high, chernoff(moments, count, log_tail, tail_tilt));
    const Composed composed = compose(grid, moments, window, rounds);
    const double available = delta * (1 - kBeyondWindow - kRounding) - count * grid.infinite;
    const double found = solve(composed, available);
    least = std::min(least, std::max(found, 0.0));
    // Every tilt gives a bound. It is tight where the tilted losses lie about epsilon, while
    // Chernoff's bound, where the search begins, may be far above.
    const LossMoments::At tilted = moments.at(tilt);
    const double off = count * tilted.mean - found;
    if (found <= 0 || off * off < kTypical * kTypical * count * tilted.variance) return least;
    tilt = tilt_for_mean(rough, count, found, tilt);
  }
  return least;
}

}  // namespace covey::privacy
