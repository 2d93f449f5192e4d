#include "accounting/renyi.hpp"

#include <cmath>
#include <covey/assert.hpp>

#include "accounting/log_math.hpp"

namespace covey::privacy {
namespace {

std::vector<double> make_orders() {
  std::vector<double> orders;
  for (int tenths = 11; tenths <= 109; ++tenths) orders.push_back(tenths / 10.0);
  for (int order = 11; order <= 63; ++order) orders.push_back(order);
  for (const int order : {128, 256, 512, 1024}) orders.push_back(order);
  return orders;
}

/// The chord of (alpha - 1) f(alpha) between the whole orders around `order`; 0 at alpha = 1.
template <typename Function>
double chord(const Function& at_whole_order, double order) {
  const double below = std::floor(order);
  if (below == order) return at_whole_order(order);
  const double low = below < 2 ? 0 : (below - 1) * at_whole_order(below);
  const double high = below * at_whole_order(below + 1);
  return (low + (order - below) * (high - low)) / (order - 1);
}

/// log A, where with the binomial weights' sum, 1, taken out every term is positive:
/// A - 1 = sum_{k >= 2} C(alpha, k) (1-q)^(alpha-k) q^k (exp((k^2-k) / 2 z^2) - 1).
double whole_order_log_moment(double z, double q, double order) {
  double excess = -kInfinity;
  double log_choose = std::log(order);  // C(order, 1)
  for (double k = 2; k <= order; ++k) {
    log_choose += std::log((order - k + 1) / k);
    const double log_weight = log_choose + (order - k) * std::log1p(-q) + k * std::log(q);
    excess = log_add(excess, log_weight + log_expm1((k * k - k) / (2 * z * z)));
  }
  return log_add(0, excess);
}

/// The two series of Mironov et al. 2019, section 3.3, one for each side of the point z0 where both
/// parts of the mixture weigh the same. Behind i = alpha the terms alternate in sign and shrink
/// like i^-(alpha + 2), so that half of the first one left out takes their place.
double fractional_log_moment(double z, double q, double order) {
  const double log_q = std::log(q), log_rest = std::log1p(-q);
  const double middle = z * z * (log_rest - log_q) + 0.5;
  constexpr double kSmallest =
      -30;  // e^-30 = 1e-13; halved and alternating, the rest is far smaller
  constexpr int kMostTerms = 1 << 18;
  double sum = 0;
  double log_coefficient = 0, sign = 1;  // of C(order, i)
  double largest = 0;                    // sums are kept relative to e^largest
  for (int i = 0; i < kMostTerms; ++i) {
    const double j = order - i;
    const double left = log_coefficient + i * log_q + j * log_rest + (i * (i - 1.0)) / (2 * z * z) +
                        log_normal_above((i - middle) / z);
    const double right = log_coefficient + j * log_q + i * log_rest + (j * (j - 1)) / (2 * z * z) +
                         log_normal_above((middle - j) / z);
    const double term = log_add(left, right);
    if (term > largest) {
      sum *= std::exp(largest - term);
      largest = term;
    }
    if (i > order && term < largest + kSmallest) {
      sum += sign * std::exp(term - largest) / 2;
      break;
    }
    sum += sign * std::exp(term - largest);
    if (j < 0) sign = -sign;
    log_coefficient += std::log(std::abs(j)) - std::log(i + 1.0);
  }
  return largest + std::log(sum);
}

}  // namespace

const std::vector<double>& renyi_orders() {
  static const std::vector<double> orders = make_orders();
  return orders;
}

double gaussian_rdp(double noise_multiplier, double order) {
  return order / (2 * noise_multiplier * noise_multiplier);
}

double poisson_gaussian_rdp(double noise_multiplier, double sampling_rate, double order) {
  COVEY_ASSERT(order > 1 && sampling_rate > 0 && sampling_rate <= 1);
  if (sampling_rate == 1) return gaussian_rdp(noise_multiplier, order);
  const double log_moment = order == std::floor(order)
                                ? whole_order_log_moment(noise_multiplier, sampling_rate, order)
                                : fractional_log_moment(noise_multiplier, sampling_rate, order);
  // A sample never tells more than all of it; where rounding has eaten the moment, that bound
  // stays.
  const double whole = gaussian_rdp(noise_multiplier, order);
  return std::isfinite(log_moment) ? std::clamp(log_moment / (order - 1), 0.0, whole) : whole;
}

double fixed_size_gaussian_rdp(double noise_multiplier, double sampling_rate, double order) {
  const double z = noise_multiplier / 2;  // replacing a device's data moves the sum by up to 2 S
  const double log_q = std::log(sampling_rate);
  const auto at_whole_order = [&](double alpha) {
    const double at_two = gaussian_rdp(z, 2);
    // Theorem 9 with epsilon(infinity) = infinity, as the Gaussian has.
    const double second = std::min(std::log(4.0) + log_expm1(at_two), at_two + std::log(2.0));
    double log_choose = std::log(alpha * (alpha - 1) / 2);
    double excess = 2 * log_q + log_choose + second;
    for (double j = 3; j <= alpha; ++j) {
      log_choose += std::log((alpha - j + 1) / j);
      excess =
          log_add(excess, j * log_q + log_choose + std::log(2.0) + (j - 1) * gaussian_rdp(z, j));
    }
    return log_add(0, excess) / (alpha - 1);
  };
  return std::min(gaussian_rdp(z, order), chord(at_whole_order, order));
}

LatticeSensitivity lattice_sensitivity(const Lattice& lattice) {
  const double norm = lattice.clip_norm / lattice.quantum;
  const auto dimension = static_cast<double>(lattice.dimension);
  // Rounding moves each coordinate by less than one quantum; conditional rounding (Kairouz, Liu and
  // Steinke 2021, with beta = e^-1/2, so sqrt(2 ln(1 / beta)) = 1) keeps the norm
  // below the second.
  const double anyhow = norm + std::sqrt(dimension);
  const double conditional =
      std::sqrt(norm * norm + dimension / 4 + norm + std::sqrt(dimension) / 2);
  LatticeSensitivity sensitivity;
  sensitivity.l2 = std::min(anyhow, conditional);
  // Whole numbers: |x| <= x^2.
  sensitivity.l1 = std::min(std::sqrt(dimension) * sensitivity.l2, sensitivity.l2 * sensitivity.l2);
  return sensitivity;
}

SummedDiscreteGaussian summed_discrete_gaussian(const Lattice& lattice, double noise_multiplier) {
  const LatticeSensitivity sensitivity = lattice_sensitivity(lattice);
  const double sum_stddev = noise_multiplier * lattice.clip_norm / lattice.quantum;
  SummedDiscreteGaussian bound;
  bound.a1 = sensitivity.l1 / sum_stddev;
  bound.a2 = sensitivity.l2 / sum_stddev;
  bound.dimension = static_cast<double>(lattice.dimension);
  constexpr double kPi = std::numbers::pi;
  const double variance = sum_stddev * sum_stddev / lattice.devices;  // one device's
  for (std::uint32_t k = 1; k < lattice.devices; ++k) {
    const double ratio = static_cast<double>(k) / (k + 1.0);
    const double term = 10 * std::exp(-2 * kPi * kPi * variance * ratio);
    bound.tau += term;
    if (term == 0) break;  // and the later ones are smaller
  }
  return bound;
}

double SummedDiscreteGaussian::rdp(double order) const {
  return std::min(order / 2 * a2 * a2 + tau * dimension, order * rho());
}

double SummedDiscreteGaussian::rho() const {
  const double by_l1 = a2 * a2 + 2 * a1 * tau + tau * tau * dimension;
  const double by_l2 = a2 + std::sqrt(dimension) * tau;
  return std::min(by_l1, by_l2 * by_l2) / 2;
}

double skellam_rdp(const Lattice& lattice, double noise_multiplier, double order) {
  const LatticeSensitivity sensitivity = lattice_sensitivity(lattice);
  const double sum_stddev = noise_multiplier * lattice.clip_norm / lattice.quantum;
  const double mu = sum_stddev * sum_stddev;
  const double l2_squared = sensitivity.l2 * sensitivity.l2;
  const auto at_whole_order = [&](double alpha) {
    const double correction =
        std::min(((2 * alpha - 1) * l2_squared + 6 * sensitivity.l1) / (4 * mu * mu),
                 3 * sensitivity.l1 / (2 * mu));
    return alpha * l2_squared / (2 * mu) + correction;
  };
  return chord(at_whole_order, order);
}

double epsilon_from_rdp(std::span<const double> orders, std::span<const double> rdp, double delta) {
  COVEY_ASSERT(orders.size() == rdp.size());
  double epsilon = kInfinity;
  for (std::size_t i = 0; i < orders.size(); ++i) {
    const double order = orders[i];
    epsilon = std::min(epsilon, rdp[i] + std::log1p(-1 / order) -
                                    (std::log(delta) + std::log(order)) / (order - 1));
  }
  return std::max(epsilon, 0.0);
}

double epsilon_from_zcdp(double rho, double delta) {
  if (rho == 0) return 0;
  if (rho == kInfinity) return kInfinity;
  const auto epsilon_at = [&](double log_excess) {
    const double excess = std::exp(log_excess);  // alpha - 1
    const double order = 1 + excess;
    return order * rho + std::log(excess / order) - (std::log(delta) + std::log(order)) / excess;
  };
  // Any order gives a bound. The best is near 1 + sqrt(ln(1 / delta) / rho), between these.
  const double best = minimise(epsilon_at, std::log(1e-6), std::log(1e12), 120);
  return std::max(epsilon_at(best), 0.0);
}

}  // namespace covey::privacy
