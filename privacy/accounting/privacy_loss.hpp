#pragma once

#include <covey/privacy/accountant.hpp>
#include <cstdint>
#include <vector>

/// Privacy loss distributions: the loss ln(P(x) / Q(x)) of an outcome x drawn from P, the
/// mechanism's output with a device's data, against Q, the one without. delta(epsilon) = E[(1 -
/// exp(epsilon - loss))_+], and over rounds losses add (Koskela, Jalko and Honkela 2020; Zhu, Dong
/// and Wang 2022).
namespace covey::privacy {

/// Exact, for a Gaussian of standard deviation 1 / mu that a device shifts by 1 (which any number
/// of Gaussian rounds together are): delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2
/// - epsilon/mu) (Balle and Wang 2018, Theorem 8), solved for epsilon from above.
double epsilon_of_gaussian(double mu, double delta);

/// One direction of one round, on the grid step * k, such that no delta(epsilon) is below the true
/// one and those on the grid's points are equal to it: connect-the-dots (Doroshenko, Ghazi, Kamath,
/// Kumar and Manurangsi 2022).
struct LossGrid {
  double step = 0;
  std::int64_t first = 0;       ///< k of weights[0]
  std::vector<double> weights;  ///< P's mass at step * (first + i)
  double infinite = 0;          ///< P's mass at infinity
};

/// The Gaussian mechanism on a sample of the devices.
struct SampledGaussian {
  enum class Direction : std::uint8_t {
    kRemove,  ///< Poisson; P has one device more than Q
    kAdd,     ///< Poisson; P has one device less
    /// One device's data replaced; the larger of both orders at every epsilon, which is again a
    /// privacy curve: gamma * delta_base(ln(1 + (e^epsilon - 1) / gamma)) for epsilon >= 0 (Balle,
    /// Barthe and Gaboardi 2018, Theorem 9) and its mirror image below, where gamma is the sampling
    /// rate and the base is N(0, z^2) against N(2, z^2).
    kReplace,
  };
  double noise_multiplier = 1;  ///< z
  double sampling_rate = 1;     ///< q or gamma, in (0, 1]
  Direction direction = Direction::kRemove;
};

/// `most_infinite`: how much mass may be counted as infinite loss rather than looked at.
LossGrid loss_grid(const SampledGaussian& mechanism, double step, double most_infinite);

/// Upper bound of epsilon for `rounds` rounds of the mechanism, near the truth. `fineness`: grid
/// points per standard deviation of a round's loss (in the distribution tilted to delta).
double epsilon_of_sampled_gaussian(const SampledGaussian& mechanism, std::uint64_t rounds,
                                   double delta, double fineness = 64);

}  // namespace covey::privacy
