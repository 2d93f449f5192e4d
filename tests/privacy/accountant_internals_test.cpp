#include <catch2/catch.hpp>
#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include "accounting/fourier.hpp"
#include "accounting/log_math.hpp"
#include "accounting/privacy_loss.hpp"
#include "accounting/renyi.hpp"

namespace covey::privacy {
namespace {

using Direction = SampledGaussian::Direction;

double density(double x, double mean, double sigma) {
  const double y = (x - mean) / sigma;
  return std::exp(-y * y / 2) / (sigma * std::sqrt(2 * std::numbers::pi));
}

/// delta(epsilon) of two rounds by the definition: the integral of (P P' - e^epsilon Q Q')_+ over
/// the plane, on a square grid.
double delta_of_two_rounds(const SampledGaussian& mechanism, double epsilon) {
  const double sigma = mechanism.noise_multiplier, q = mechanism.sampling_rate;
  constexpr int kPoints = 1500;
  const double low = -8 * sigma, spacing = (16 * sigma + 1) / kPoints;
  std::vector<double> upper, lower;
  for (int i = 0; i < kPoints; ++i) {
    const double x = low + spacing * (i + 0.5);
    const double plain = density(x, 0, sigma) * spacing;
    const double mixed = (1 - q) * plain + q * density(x, 1, sigma) * spacing;
    upper.push_back(mechanism.direction == Direction::kRemove ? mixed : plain);
    lower.push_back(mechanism.direction == Direction::kRemove ? plain : mixed);
  }
  const double factor = std::exp(epsilon);
  double delta = 0;
  for (int i = 0; i < kPoints; ++i) {
    for (int j = 0; j < kPoints; ++j) {
      const auto a = static_cast<std::size_t>(i), b = static_cast<std::size_t>(j);
      delta += std::max(upper[a] * upper[b] - factor * lower[a] * lower[b], 0.0);
    }
  }
  return delta;
}

/// delta at `epsilon` of one round as the grid has it.
double delta_of_grid(const LossGrid& grid, double epsilon) {
  double delta = grid.infinite;
  for (std::size_t i = 0; i < grid.weights.size(); ++i) {
    const double loss = grid.step * static_cast<double>(grid.first + static_cast<std::int64_t>(i));
    if (loss > epsilon) delta += grid.weights[i] * -std::expm1(epsilon - loss);
  }
  return delta;
}

/// Epsilon of some rounds by adding up the losses one by one, without transform, tilt or window.
double epsilon_by_addition(const SampledGaussian& mechanism, int rounds, double delta,
                           double step) {
  const LossGrid round = loss_grid(mechanism, step, 1e-13);
  LossGrid all = round;
  for (int t = 1; t < rounds; ++t) {
    std::vector<double> sums(all.weights.size() + round.weights.size() - 1);
    for (std::size_t i = 0; i < all.weights.size(); ++i) {
      for (std::size_t j = 0; j < round.weights.size(); ++j) {
        sums[i + j] += all.weights[i] * round.weights[j];
      }
    }
    all.weights = std::move(sums);
    all.first += round.first;
    all.infinite += round.infinite;
  }
  double low = 0, high = 50;
  for (int halving = 0; halving < 50; ++halving) {
    const double middle = (low + high) / 2;
    (delta_of_grid(all, middle) > delta ? low : high) = middle;
  }
  return high;
}

}  // namespace

TEST_CASE("whole and fractional Renyi orders meet") {
  // (alpha - 1) epsilon(alpha) is continuous: just beside a whole order the series must give what
  // the binomial sum gives at it.
  for (const double order : {2.0, 3.0, 7.0, 20.0}) {
    for (const double q : {0.001, 0.1, 0.6}) {
      for (const double z : {0.6, 1.5, 8.0}) {
        CAPTURE(order, q, z);
        const double whole = poisson_gaussian_rdp(z, q, order);
        CHECK(poisson_gaussian_rdp(z, q, order + 1e-9) == Approx(whole).epsilon(1e-6));
        CHECK(poisson_gaussian_rdp(z, q, order - 1e-9) == Approx(whole).epsilon(1e-6));
      }
    }
  }
}

TEST_CASE("a fractional Renyi order is the integral it stands for") {
  // E_{x ~ N(0, z^2)}[(1 - q + q exp((2x - 1) / 2 z^2))^alpha] by the trapezoid rule, which
  // converges faster than any power of the spacing.
  for (const double order : {1.1, 1.5, 4.3, 10.9}) {
    const double z = 1.1, q = 0.05;
    double moment = 0;
    constexpr double kSpacing = 1e-3;
    for (double x = -15; x < 30; x += kSpacing) {
      const double ratio = 1 - q + q * std::exp((2 * x - 1) / (2 * z * z));
      moment += density(x, 0, z) * std::pow(ratio, order) * kSpacing;
    }
    CAPTURE(order);
    CHECK(poisson_gaussian_rdp(z, q, order) ==
          Approx(std::log(moment) / (order - 1)).epsilon(1e-9));
  }
}

TEST_CASE("the lattice's vectors over the published orders") {
  // gamma = .01, sigma = .1 a device, n = 100, c = 1, d = 4096, so z = sigma sqrt(n) / c = 1.
  const Lattice lattice{.quantum = 0.01, .dimension = 4096, .devices = 100, .clip_norm = 1};
  std::vector<double> orders{256};
  for (int order = 2; order <= 128; ++order) orders.push_back(order);
  std::vector<double> discrete, skellam;
  for (const double order : orders) {
    discrete.push_back(summed_discrete_gaussian(lattice, 1).rdp(order));
    skellam.push_back(skellam_rdp(lattice, 1, order));
  }
  CHECK(epsilon_from_rdp(orders, discrete, 1e-5) == Approx(5.041728).margin(1e-6).epsilon(0));
  CHECK(epsilon_from_rdp(orders, skellam, 1e-5) == Approx(5.042081).margin(1e-6).epsilon(0));
}

TEST_CASE("little noise on a coarse lattice costs more than the Gaussian of the same size") {
  // One device alone needs no bound on sums: tau = 0. With many whose noise is below a quantum, tau
  // takes over.
  Lattice lattice{.quantum = 1, .dimension = 1, .devices = 1, .clip_norm = 100};
  CHECK(summed_discrete_gaussian(lattice, 0.01).tau == 0);
  lattice.devices = 1000;
  CHECK(summed_discrete_gaussian(lattice, 0.01).tau > 10);
}

TEST_CASE("fixed-size sampling is Theorem 9 at order 2 and convex between orders") {
  // alpha = 2: ln(1 + gamma^2 min(4 (e^e - 1), 2 e^e)), e = 2 / (2 (z / 2)^2) = 4 / z^2.
  const double z = 4, gamma = 0.05, e = 4 / (z * z);
  const double expected = std::log1p(gamma * gamma * std::min(4 * std::expm1(e), 2 * std::exp(e)));
  CHECK(fixed_size_gaussian_rdp(z, gamma, 2) == Approx(expected).epsilon(1e-12));
  // alpha = 3 adds gamma^3 * 2 e^{2 e(3)}, e(3) = 6 / z^2; halved: the exponent 1 / (alpha - 1).
  const double third = 3 * gamma * gamma * std::min(4 * std::expm1(e), 2 * std::exp(e)) +
                       gamma * gamma * gamma * 2 * std::exp(2 * 6 / (z * z));
  CHECK(fixed_size_gaussian_rdp(z, gamma, 3) == Approx(std::log1p(third) / 2).epsilon(1e-12));
  const auto moment = [&](double order) {
    return (order - 1) * fixed_size_gaussian_rdp(z, gamma, order);
  };
  CHECK(moment(2.5) == Approx((moment(2) + moment(3)) / 2));
}

TEST_CASE("a round's loss grid is exact on its points and above the truth between them") {
  const SampledGaussian mechanism{1.2, 0.1, Direction::kRemove};
  const LossGrid grid = loss_grid(mechanism, 0.05, 1e-12);
  // delta(epsilon) = P(loss > epsilon) - e^epsilon Q(loss > epsilon), at the outcome of that loss.
  const auto truth = [&](double epsilon) {
    const double z = mechanism.noise_multiplier, q = mechanism.sampling_rate;
    const double x = z * z * std::log1p(std::expm1(epsilon) / q) + 0.5;
    const double plain = normal_above(x / z);
    return (1 - q) * plain + q * normal_above((x - 1) / z) - std::exp(epsilon) * plain;
  };
  double mass = grid.infinite;
  for (const double weight : grid.weights) mass += weight;
  CHECK(mass == Approx(1).epsilon(1e-12));
  for (const int k : {-1, 0, 1, 5, 20}) {
    CAPTURE(k);
    CHECK(delta_of_grid(grid, 0.05 * k) == Approx(truth(0.05 * k)).margin(2e-12).epsilon(0));
    CHECK(delta_of_grid(grid, 0.05 * (k + 0.5)) > truth(0.05 * (k + 0.5)));
  }
}

TEST_CASE("a fixed-size sample's grid is the amplified curve of the whole and its mirror image") {
  const double gamma = 0.2, z = 3;
  const LossGrid grid = loss_grid({z, gamma, Direction::kReplace}, 0.01, 1e-12);
  double mass = grid.infinite;
  for (const double weight : grid.weights) mass += weight;
  CHECK(mass == Approx(1).epsilon(1e-12));
  // Balle, Barthe and Gaboardi 2018, Theorem 9, on N(0, z^2) against N(2, z^2).
  const auto base = [&](double epsilon) {
    const double mu = 2 / z;
    return normal_above(epsilon / mu - mu / 2) -
           std::exp(epsilon) * normal_above(epsilon / mu + mu / 2);
  };
  const auto amplified = [&](double epsilon) {
    return gamma * base(std::log1p(std::expm1(epsilon) / gamma));
  };
  for (const double epsilon : {0.0, 0.1, 0.5}) {
    CAPTURE(epsilon);
    CHECK(delta_of_grid(grid, epsilon) == Approx(amplified(epsilon)).margin(2e-12).epsilon(0));
    // Below zero by exchanging the two: delta(-e) = 1 - e^-e + e^-e delta(e).
    const double mirrored = -std::expm1(-epsilon) + std::exp(-epsilon) * amplified(epsilon);
    CHECK(delta_of_grid(grid, -epsilon) == Approx(mirrored).margin(2e-12).epsilon(0));
  }
}

TEST_CASE("two rounds composed are what the definition gives") {
  for (const auto direction : {Direction::kRemove, Direction::kAdd}) {
    const SampledGaussian mechanism{0.8, 0.3, direction};
    for (const double epsilon : {0.2, 0.4}) {
      const double delta = delta_of_two_rounds(mechanism, epsilon);
      REQUIRE(delta > 1e-5);
      const double found = epsilon_of_sampled_gaussian(mechanism, 2, delta);
      CAPTURE(epsilon, delta, found);
      CHECK(found == Approx(epsilon).margin(5e-4).epsilon(0));
      CHECK(found > epsilon - 1e-5);  // the integral's own error, in epsilon
    }
  }
}

TEST_CASE("rare large losses do not make the bound loose") {
  // q = .01 and few rounds: what makes delta is one large loss or another, far from any bell curve,
  // and Chernoff's bound, where the search begins, is far above.
  for (const auto direction : {Direction::kRemove, Direction::kAdd, Direction::kReplace}) {
    const SampledGaussian mechanism{1, 0.01, direction};
    for (const int rounds : {1, 3, 8}) {
      const double step = direction == Direction::kReplace ? 8e-3 : 2e-3;
      const double added = epsilon_by_addition(mechanism, rounds, 1e-5, step);
      const double found =
          epsilon_of_sampled_gaussian(mechanism, static_cast<std::uint64_t>(rounds), 1e-5);
      CAPTURE(static_cast<int>(direction), rounds, added, found);
      // Both are bounds from above, the finer grid's less; the coarse one is off by less than half
      // a step.
      CHECK(found < added + 1e-5);
      CHECK(found > added - step / 2);
    }
  }
}

TEST_CASE(
    "composing numerically meets the exact Gaussian from above, the nearer the finer the grid") {
  for (const double delta : {1e-2, 1e-5, 1e-9, 1e-14}) {
    for (const std::uint64_t rounds : {1u, 100u, 10000u}) {
      const double z = std::sqrt(static_cast<double>(rounds)) / 1.5;
      const double exact = epsilon_of_gaussian(1.5, delta);
      const SampledGaussian mechanism{z, 1, Direction::kRemove};
      double before = kInfinity;
      for (const double fineness : {4.0, 16.0, 64.0}) {
        const double found = epsilon_of_sampled_gaussian(mechanism, rounds, delta, fineness);
        CAPTURE(delta, rounds, fineness, exact);
        CHECK(found >= exact);
        CHECK(found < before);
        before = found;
      }
      CHECK(before == Approx(exact).epsilon(1e-4));
    }
  }
}

TEST_CASE("finer grids come down towards the same epsilon under sampling") {
  for (const auto direction : {Direction::kRemove, Direction::kAdd, Direction::kReplace}) {
    const SampledGaussian mechanism{1.5, 0.04, direction};
    double before = kInfinity, last_gap = kInfinity;
    for (const double fineness : {4.0, 8.0, 16.0, 32.0, 64.0}) {
      const double found = epsilon_of_sampled_gaussian(mechanism, 2250, 1e-5, fineness);
      CAPTURE(fineness, found);
      CHECK(found < before);
      if (std::isfinite(before)) {
        CHECK(before - found < last_gap / 2);
        last_gap = before - found;
      }
      before = found;
    }
  }
}

TEST_CASE("huge losses and vanishing ones neither overflow nor go below zero") {
  for (const double z : {0.01, 0.06, 0.2}) {
    const double found = epsilon_of_sampled_gaussian({z, 0.5, Direction::kRemove}, 100, 1e-5);
    CAPTURE(z, found);
    CHECK(std::isfinite(found));
    CHECK(found > 1 / (2 * z * z));  // half of the rounds lose about that much
    CHECK(found <= epsilon_of_gaussian(10 / z, 1e-5) * 1.001);
  }
  CHECK(epsilon_of_sampled_gaussian({1, 1e-6, Direction::kRemove}, 1, 1e-5) == 0);
  CHECK(epsilon_of_gaussian(1e-7, 1e-5) == 0);
}

TEST_CASE("convolution with itself is the sum over all ways") {
  // (1/2, 1/4, 1/4) three times, on a circle of 8: coefficients of (2 + x + x^2)^3 / 64.
  const std::vector<double> composed = convolve_with_itself({.5, .25, .25, 0, 0, 0, 0, 0}, 3);
  const std::vector<double> expected{8, 12, 18, 13, 9, 3, 1, 0};
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK(composed[i] == Approx(expected[i] / 64).margin(1e-15));
  }
  // On a circle of 4 what runs over comes in again.
  const std::vector<double> wrapped = convolve_with_itself({.5, .25, .25, 0}, 3);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(wrapped[i] == Approx((expected[i] + expected[i + 4]) / 64).margin(1e-15));
  }
}

TEST_CASE("the Fourier transform is the sum it stands for, and its inverse takes it back") {
  std::vector<std::complex<double>> values;
  for (int i = 0; i < 16; ++i) values.emplace_back(std::sin(i * i), std::cos(3 * i));
  std::vector<std::complex<double>> transformed = values;
  fourier_transform(transformed, false);
  for (std::size_t k = 0; k < values.size(); ++k) {
    std::complex<double> sum = 0;
    for (std::size_t j = 0; j < values.size(); ++j) {
      sum += values[j] * std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(j * k) / 16);
    }
    CHECK(std::abs(transformed[k] - sum) < 1e-13);
  }
  fourier_transform(transformed, true);
  for (std::size_t j = 0; j < values.size(); ++j)
    CHECK(std::abs(transformed[j] - values[j]) < 1e-14);
}

TEST_CASE("tails of the normal distribution keep their digits") {
  // log Q(x) of Abramowitz and Stegun's Table 26.2: -log10 Q(10) = 23.11805, Q(50) = 544.96634.
  CHECK(log_normal_above(10) / std::log(10) == Approx(-23.11805).epsilon(1e-6));
  CHECK(log_normal_above(50) / std::log(10) == Approx(-544.96634).epsilon(1e-6));
  CHECK(log_normal_above(30 - 1e-9) == Approx(log_normal_above(30 + 1e-9)).epsilon(1e-8));
  CHECK(log_normal_above(-9) == Approx(-normal_above(9)).epsilon(1e-12));
}

}  // namespace covey::privacy
