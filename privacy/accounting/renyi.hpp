#pragma once

#include <covey/privacy/accountant.hpp>
#include <span>
#include <vector>

/// Renyi differential privacy (Mironov 2017): of one round, at many orders, and what it comes to in
/// (epsilon, delta). Sums over rounds.
namespace covey::privacy {

/// 1.1, 1.2, ..., 10.9; 11, 12, ..., 63; 128, 256, 512, 1024
const std::vector<double>& renyi_orders();

/// alpha / (2 z^2): the Gaussian mechanism, sensitivity 1 (Mironov 2017, Corollary 3).
double gaussian_rdp(double noise_multiplier, double order);

/// The Gaussian mechanism on a Poisson sample, one device more or less. Whole orders: the binomial
/// sum of Mironov, Talwar and Zhang 2019, section 3.3, in logarithms; others: its two series.
double poisson_gaussian_rdp(double noise_multiplier, double sampling_rate, double order);

/// The Gaussian mechanism on a sample of fixed size, one device's data replaced (so the sum moves
/// by up to 2 S): Wang, Balle and Kasiviswanathan 2019, Theorem 9. Between whole orders: (alpha -
/// 1) epsilon is convex in alpha (van Erven and Harremoes 2014), so the chord is an
/// upper bound.
double fixed_size_gaussian_rdp(double noise_multiplier, double sampling_rate, double order);

/// How far a device's contribution reaches on the lattice, after rounding, in units of the quantum.
struct LatticeSensitivity {
  double l1 = 0;
  double l2 = 0;
};
LatticeSensitivity lattice_sensitivity(const Lattice& lattice);

/// Sums of discrete Gaussians: Kairouz, Liu and Steinke 2021.
struct SummedDiscreteGaussian {
  double a1 = 0, a2 = 0;  ///< sensitivities over the standard deviation of the summed noise
  double tau = 0;         ///< how far, per coordinate, the sum is from one discrete Gaussian
  double dimension = 0;
  double rdp(double order) const;
  /// The part of the bound that is linear in the order: concentrated DP's rho.
  double rho() const;
};
SummedDiscreteGaussian summed_discrete_gaussian(const Lattice& lattice, double noise_multiplier);

/// Sums of Skellam noise: Agarwal, Kairouz and Liu 2021, whose bound is for whole orders;
/// between them the chord.
double skellam_rdp(const Lattice& lattice, double noise_multiplier, double order);

/// The least epsilon over the orders, r + ln(1 - 1/alpha) - ln(delta alpha) / (alpha - 1) (Canonne,
/// Kamath and Steinke 2020, Proposition 12), not below 0. `rdp`: one for each of `orders`.
double epsilon_from_rdp(std::span<const double> orders, std::span<const double> rdp, double delta);

/// The same for rho-zCDP (r = alpha rho) over all real orders.
double epsilon_from_zcdp(double rho, double delta);

}  // namespace covey::privacy
