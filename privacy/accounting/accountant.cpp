#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/privacy/accountant.hpp>

#include "accounting/log_math.hpp"
#include "accounting/privacy_loss.hpp"
#include "accounting/renyi.hpp"

namespace covey::privacy {
namespace {

constexpr std::uint64_t kMostRounds = 1'000'000'000;
constexpr double kMostNoise = 1e6;

bool on_lattice(NoiseKind noise) {
  return noise == NoiseKind::kDiscreteGaussian || noise == NoiseKind::kSkellam;
}

/// Squared l2 sensitivity, in clip norms, of all nodes of a binary tree over `rounds` rounds that a
/// device takes part in k of: a level's nodes hold k of its contributions together, none more than
/// min(k, 2^level), so their squares sum to at most k min(k, 2^level). For k = 1 the height
/// floor(log2 T) + 1 (Kairouz et al. 2021).
double tree_sensitivity_squared(std::uint64_t rounds, std::uint32_t participations) {
  double sum = 0;
  const auto k = static_cast<double>(std::min<std::uint64_t>(participations, rounds));
  for (int level = 0; level < static_cast<int>(std::bit_width(rounds)); ++level) {
    sum += k * std::min(k, std::ldexp(1.0, level));
  }
  return sum;
}

/// What all rounds together are, of one Gaussian with standard deviation 1: the squared l2
/// sensitivity. Without sampling Gaussian rounds simply add up, however later ones depend on
/// earlier ones.
double gaussian_sensitivity_squared(const Releases& releases, std::uint64_t rounds) {
  const double z = releases.noise_multiplier;
  const double clip_norms = releases.noise == NoiseKind::kTree
                                ? tree_sensitivity_squared(rounds, releases.max_participations)
                                : static_cast<double>(rounds);
  return clip_norms / (z * z);
}

double renyi_of_round(const Releases& releases, double order) {
  const double z = releases.noise_multiplier;
  switch (releases.noise) {
    case NoiseKind::kDiscreteGaussian:
      return summed_discrete_gaussian(*releases.lattice, z).rdp(order);
    case NoiseKind::kSkellam:
      return skellam_rdp(*releases.lattice, z, order);
    case NoiseKind::kGaussian:
    case NoiseKind::kTree:
      break;
  }
  switch (releases.sampling) {
    case Sampling::kPoisson:
      return poisson_gaussian_rdp(z, releases.sampling_rate, order);
    case Sampling::kFixedSize:
      return fixed_size_gaussian_rdp(z, releases.sampling_rate, order);
    case Sampling::kNone:
      break;
  }
  return gaussian_rdp(z, order);
}

double pld_epsilon(const Releases& releases, std::uint64_t rounds, double delta) {
  using Direction = SampledGaussian::Direction;
  if (releases.sampling == Sampling::kNone) {
    return epsilon_of_gaussian(std::sqrt(gaussian_sensitivity_squared(releases, rounds)), delta);
  }
  const auto of = [&](Direction direction, double fineness) {
    return epsilon_of_sampled_gaussian(
        {releases.noise_multiplier, releases.sampling_rate, direction}, rounds, delta, fineness);
  };
  constexpr double kFine = 64, kCoarse = 8;
  if (releases.sampling == Sampling::kFixedSize) return of(Direction::kReplace, kFine);
  // Mostly removing costs more by far, and a coarse bound of adding, which is never below the fine
  // one, is enough to see it.
  const double remove = of(Direction::kRemove, kFine);
  if (of(Direction::kAdd, kCoarse) <= remove) return remove;
  return std::max(remove, of(Direction::kAdd, kFine));
}

double zcdp_rho(const Releases& releases, std::uint64_t rounds) {
  if (releases.noise == NoiseKind::kDiscreteGaussian) {
    return static_cast<double>(rounds) *
           summed_discrete_gaussian(*releases.lattice, releases.noise_multiplier).rho();
  }
  return gaussian_sensitivity_squared(releases, rounds) / 2;
}

Result<void> check_lattice(const Releases& releases) {
  if (!on_lattice(releases.noise)) {
    if (!releases.lattice) return {};
    return invalid_argument(
        fmt::format("{} noise is not drawn on a lattice", to_string(releases.noise)));
  }
  if (!releases.lattice) {
    return invalid_argument(
        fmt::format("{} noise needs to know its lattice: quantum, dimension, devices and clip norm",
                    to_string(releases.noise)));
  }
  const Lattice& lattice = *releases.lattice;
  if (!(lattice.quantum > 0) || !std::isfinite(lattice.quantum)) {
    return invalid_argument(
        fmt::format("a lattice's quantum must be above 0, not {}", lattice.quantum));
  }
  if (!(lattice.clip_norm > 0) || !std::isfinite(lattice.clip_norm)) {
    return invalid_argument(
        fmt::format("the clip norm must be above 0, not {}", lattice.clip_norm));
  }
  if (lattice.dimension == 0 || lattice.devices == 0) {
    return invalid_argument("a lattice needs a dimension and devices of at least 1");
  }
  return {};
}

Result<void> check_values(const Releases& releases, double delta) {
  if (!(delta > 0 && delta < 1)) {
    return invalid_argument(fmt::format("delta must be above 0 and below 1, not {}", delta));
  }
  if (!(releases.noise_multiplier >= 0) || !std::isfinite(releases.noise_multiplier)) {
    return invalid_argument(fmt::format(
        "the noise multiplier must be a number of at least 0, not {}", releases.noise_multiplier));
  }
  if (!(releases.sampling_rate > 0 && releases.sampling_rate <= 1)) {
    return invalid_argument(fmt::format("the sampling rate must be above 0 and at most 1, not {}",
                                        releases.sampling_rate));
  }
  if (releases.rounds > kMostRounds) {
    return invalid_argument(fmt::format("{} rounds are more than the {} that can be counted",
                                        releases.rounds, kMostRounds));
  }
  if (releases.max_participations == 0 ||
      (releases.max_participations > 1 && releases.noise != NoiseKind::kTree)) {
    return invalid_argument(
        "a limit on the rounds that one device takes part in is counted for dp-ftrl only, and is "
        "at "
        "least 1");
  }
  return check_lattice(releases);
}

Result<void> check_combination(const Releases& releases, Accountant accountant) {
  const bool sampled = releases.sampling != Sampling::kNone;
  if (sampled && releases.noise == NoiseKind::kTree) {
    return invalid_argument(
        "dp-ftrl is not amplified by sampling: its tree's nodes cover many rounds' samples; count "
        "it with "
        "sampling none");
  }
  if (sampled && on_lattice(releases.noise)) {
    return invalid_argument(
        fmt::format("{} noise protects against the server, which knows whom it drew: no accountant "
                    "here counts on "
                    "the sampling; use sampling none",
                    to_string(releases.noise)));
  }
  if (sampled && accountant == Accountant::kZcdp) {
    return invalid_argument(
        "zcdp knows no amplification by sampling: use the accountant pld or rdp, or sampling none");
  }
  if (accountant == Accountant::kZcdp && releases.noise == NoiseKind::kSkellam) {
    return invalid_argument("skellam noise has no zcdp bound: use the accountant rdp");
  }
  if (accountant == Accountant::kPld && on_lattice(releases.noise)) {
    return invalid_argument(fmt::format(
        "the privacy loss distribution of {} noise over many coordinates is not known: use the "
        "accountant rdp",
        to_string(releases.noise)));
  }
  return {};
}

Result<void> check_epsilon(double epsilon) {
  if (epsilon > 0 && std::isfinite(epsilon)) return {};
  return invalid_argument(fmt::format("epsilon must be a number above 0, not {}", epsilon));
}

}  // namespace

EpsilonMeter::EpsilonMeter(const Releases& releases, Accountant accountant, double delta)
    : releases_(releases), accountant_(accountant), delta_(delta) {}

Result<EpsilonMeter> EpsilonMeter::make(const Releases& releases, Accountant accountant,
                                        double delta) {
  COVEY_TRY(check_values(releases, delta));
  COVEY_TRY(check_combination(releases, accountant));
  EpsilonMeter meter(releases, accountant, delta);
  if (accountant == Accountant::kRdp && releases.noise_multiplier > 0 &&
      releases.noise != NoiseKind::kTree) {
    for (const double order : renyi_orders()) meter.rdp_.push_back(renyi_of_round(releases, order));
  }
  return meter;
}

double EpsilonMeter::epsilon_after(std::uint64_t rounds) const {
  COVEY_ASSERT(rounds <= kMostRounds);
  if (rounds == 0) return 0;
  if (releases_.noise_multiplier == 0) return kInfinity;
  if (accountant_ == Accountant::kPld) return pld_epsilon(releases_, rounds, delta_);
  if (accountant_ == Accountant::kZcdp)
    return epsilon_from_zcdp(zcdp_rho(releases_, rounds), delta_);
  std::vector<double> rdp = rdp_;
  if (releases_.noise == NoiseKind::kTree) {
    const double rho = gaussian_sensitivity_squared(releases_, rounds) / 2;
    for (const double order : renyi_orders()) rdp.push_back(order * rho);
  } else {
    for (double& value : rdp) value *= static_cast<double>(rounds);
  }
  return epsilon_from_rdp(renyi_orders(), rdp, delta_);
}

Result<double> epsilon_of(const Releases& releases, Accountant accountant, double delta) {
  COVEY_ASSIGN(const EpsilonMeter meter, EpsilonMeter::make(releases, accountant, delta));
  return meter.epsilon_after(releases.rounds);
}

Result<double> noise_multiplier_for(Releases releases, Accountant accountant, double epsilon,
                                    double delta) {
  COVEY_TRY(check_epsilon(epsilon));
  const auto enough = [&](double z) -> Result<bool> {
    releases.noise_multiplier = z;
    COVEY_ASSIGN(const double spent, epsilon_of(releases, accountant, delta));
    return spent <= epsilon;
  };
  double high = 1;
  COVEY_ASSIGN(bool high_is_enough, enough(high));
  while (!high_is_enough) {
    high *= 4;
    if (high > kMostNoise) {
      return invalid_argument(fmt::format(
          "no noise multiplier below {} gives epsilon {} at delta {}", kMostNoise, epsilon, delta));
    }
    COVEY_ASSIGN(high_is_enough, enough(high));
  }
  constexpr double kLeastNoise = 1e-3;
  double low = high / 4;
  while (low > kLeastNoise) {
    COVEY_ASSIGN(const bool low_is_enough, enough(low));
    if (!low_is_enough) break;
    high = low;
    low /= 4;
  }
  while (high > low * (1 + 1e-4)) {
    const double middle = std::sqrt(low * high);
    COVEY_ASSIGN(const bool middle_is_enough, enough(middle));
    (middle_is_enough ? high : low) = middle;
  }
  return high;
}

Result<std::uint64_t> rounds_within(Releases releases, Accountant accountant, double epsilon,
                                    double delta) {
  COVEY_TRY(check_epsilon(epsilon));
  COVEY_ASSIGN(const EpsilonMeter meter, EpsilonMeter::make(releases, accountant, delta));
  std::uint64_t most = 1;  // the first power of two that is too many
  while (most < kMostRounds && meter.epsilon_after(most) <= epsilon) most *= 2;
  std::uint64_t within = most / 2, beyond = std::min(most, kMostRounds + 1);
  while (beyond - within > 1) {
    const std::uint64_t middle = within + (beyond - within) / 2;
    (meter.epsilon_after(middle) <= epsilon ? within : beyond) = middle;
  }
  return within;
}

std::string_view to_string(Accountant accountant) {
  switch (accountant) {
    case Accountant::kRdp:
      return "rdp";
    case Accountant::kZcdp:
      return "zcdp";
    case Accountant::kPld:
      return "pld";
  }
  return "unknown";
}

std::string_view to_string(Sampling sampling) {
  switch (sampling) {
    case Sampling::kNone:
      return "none";
    case Sampling::kPoisson:
      return "poisson";
    case Sampling::kFixedSize:
      return "fixed";
  }
  return "unknown";
}

std::string_view to_string(NoiseKind noise) {
  switch (noise) {
    case NoiseKind::kGaussian:
      return "gaussian";
    case NoiseKind::kDiscreteGaussian:
      return "discrete-gaussian";
    case NoiseKind::kSkellam:
      return "skellam";
    case NoiseKind::kTree:
      return "dp-ftrl";
  }
  return "unknown";
}

}  // namespace covey::privacy
