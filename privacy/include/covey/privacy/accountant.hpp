#pragma once

#include <covey/result.hpp>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

/// How much privacy a run spends, towards one device: neighbouring runs differ in one device, in
/// all its contributions (kFixedSize: in what it contributes; the other sampling: in whether it is
/// there at all).
namespace covey::privacy {

enum class Accountant : std::uint8_t {
  kRdp,   ///< Renyi DP, integer and fractional orders
  kZcdp,  ///< zero-concentrated DP (no amplification by sampling)
  kPld,   ///< privacy loss distribution, composed numerically: the tightest
};

enum class Sampling : std::uint8_t {
  kNone,     ///< every device in every round, or nobody may rely on the draw
  kPoisson,  ///< each device independently with probability q; neighbours differ by one device more
  kFixedSize,  ///< q N devices without replacement; neighbours differ in one device's data
};

enum class NoiseKind : std::uint8_t {
  kGaussian,          ///< on the sum, by the server; or locally by a device on its own update
  kDiscreteGaussian,  ///< each device's share
  kSkellam,           ///< each device's share
  /// DP-FTRL: a binary tree over all rounds, Gaussian noise in every node (Kairouz et al. 2021),
  /// never begun anew. Counted for `max_participations` rounds with any one device.
  kTree,
};

/// A lattice that devices round to and add noise on; kDiscreteGaussian and kSkellam only. Counted
/// with the l2 norm that conditional rounding keeps to, min of c / gamma + sqrt(d) and sqrt((c /
/// gamma)^2 + d / 4 + c / gamma + sqrt(d) / 2) quanta (Kairouz, Liu and Steinke 2021, beta =
/// e^-1/2).
struct Lattice {
  double quantum = 0;           ///< gamma, in the update's units
  std::uint64_t dimension = 0;  ///< d
  std::uint32_t devices = 1;    ///< n: fewest that add noise to a sum
  double clip_norm = 1;         ///< c: l2 norm of a contribution before rounding
};

/// What is released over a run.
struct Releases {
  NoiseKind noise = NoiseKind::kGaussian;
  double noise_multiplier = 0;  ///< z: standard deviation of the sum's noise over the clip norm
  Sampling sampling = Sampling::kNone;
  double sampling_rate = 1;  ///< q
  std::uint64_t rounds = 0;  ///< T
  std::optional<Lattice> lattice = std::nullopt;
  std::uint32_t max_participations =
      1;  ///< kTree only: rounds that one device takes part in, at most
};

/// The smallest epsilon that this accountant can show for delta. Infinity is a valid answer (no
/// noise). Exact (to rounding) for PLD without sampling; else an upper bound. Error, a sentence: a
/// value out of range, or a combination that this accountant cannot treat (zCDP with sampling, PLD
/// of a lattice, ...), saying which can.
Result<double> epsilon_of(const Releases& releases, Accountant accountant, double delta);
/// The smallest noise multiplier (to 1e-4 relative, rounded up) with epsilon_of <= epsilon;
/// `releases.noise_multiplier` is ignored. Error where none below 10^6 does.
Result<double> noise_multiplier_for(Releases releases, Accountant accountant, double epsilon,
                                    double delta);
/// The most rounds, up to 10^9, with epsilon_of <= epsilon; 0 if not even one. `releases.rounds` is
/// ignored.
Result<std::uint64_t> rounds_within(Releases releases, Accountant accountant, double epsilon,
                                    double delta);

/// epsilon_of for one number of rounds after another: what does not depend on it is worked out
/// once. Any thread.
class EpsilonMeter {
 public:
  /// `releases.rounds` is ignored. Errors of epsilon_of.
  static Result<EpsilonMeter> make(const Releases& releases, Accountant accountant, double delta);
  double epsilon_after(std::uint64_t rounds) const;

 private:
  EpsilonMeter(const Releases& releases, Accountant accountant, double delta);
  Releases releases_;
  Accountant accountant_;
  double delta_;
  std::vector<double> rdp_;  ///< of one round, by order; kRdp only
};

std::string_view to_string(Accountant accountant);
std::string_view to_string(Sampling sampling);
std::string_view to_string(NoiseKind noise);

}  // namespace covey::privacy
