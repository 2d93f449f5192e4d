#include "mechanisms/private_release_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace covey::privacy {
namespace {

/// A decimal fraction of a count is taken as the whole number that it is within a billionth of, as
/// the selection of cohorts does.
constexpr double kProductSlack = 1e-9;

/// How many devices a round is about, as the selection of cohorts has it.
struct RoundSizes {
  double goal = 1;    ///< reports at which a round closes
  double cohort = 1;  ///< devices drawn
  double quorum = 1;  ///< fewest reports that commit a round
};

RoundSizes round_sizes(const SelectionConfig& selection, std::uint32_t population) {
  const double everyone = std::max(population, 1u);
  const double available =
      selection.min_available_clients == 0 ? everyone : selection.min_available_clients;
  RoundSizes sizes;
  sizes.goal = std::max<double>(selection.min_fit_clients,
                                std::floor(selection.fraction_fit * available + kProductSlack));
  sizes.goal = std::clamp(sizes.goal, 1.0, std::max(available, everyone));
  const double selected = std::ceil(selection.over_selection * sizes.goal - kProductSlack);
  sizes.cohort = std::min(std::max(sizes.goal, selected), std::max(everyone, sizes.goal));
  sizes.quorum = std::max(std::ceil(selection.quorum * sizes.goal - kProductSlack), 1.0);
  return sizes;
}

std::optional<Mechanism> mechanism_named(std::string_view name) {
  if (name == "central-gaussian") return Mechanism::kCentralGaussian;
  if (name == "local-gaussian") return Mechanism::kLocalGaussian;
  if (name == "discrete-gaussian") return Mechanism::kDiscreteGaussian;
  if (name == "skellam") return Mechanism::kSkellam;
  if (name == "dp-ftrl") return Mechanism::kTree;
  return std::nullopt;
}

bool is_distributed(Mechanism mechanism) {
  return mechanism == Mechanism::kDiscreteGaussian || mechanism == Mechanism::kSkellam;
}

bool server_makes_noise(Mechanism mechanism) {
  return mechanism == Mechanism::kCentralGaussian || mechanism == Mechanism::kTree;
}

Result<void> check_strategy(const PrivateRelease::Run& run) {
  if (!run.sum_strategy) {
    return invalid_argument(fmt::format(
        "strategy.name = \"{}\" looks at single updates, and differential privacy puts its noise "
        "on their "
        "sum: choose a strategy of sums, such as fedavg, or privacy.mechanism = \"none\"",
        run.strategy));
  }
  if (run.num_scalars > 0) {
    return invalid_argument(fmt::format(
        "strategy.name = \"{}\" also sums {} of each device that no clip norm bounds, so "
        "privacy.mechanism "
        "= \"{}\" cannot make what it releases private: choose a strategy of updates alone, such "
        "as fedavg",
        run.strategy, run.num_scalars == 1 ? "a number" : "numbers", run.config.mechanism));
  }
  return {};
}

Result<void> check_ranges(const PrivateRelease::Run& run) {
  const PrivacyConfig& config = run.config;
  if (!(config.clip_norm > 0) || !std::isfinite(config.clip_norm)) {
    return invalid_argument(
        fmt::format("privacy.clip-norm must be a number above 0, not {}", config.clip_norm));
  }
  if (run.population == 0 || run.num_rounds == 0) {
    return invalid_argument(
        "differential privacy is counted for at least one device and one round");
  }
  if (!(config.delta > 0) || config.delta * run.population >= 1) {
    return invalid_argument(
        fmt::format("privacy.delta = {} must be above 0 and below 1 / {} (the devices): a chance "
                    "that large could "
                    "be spent on publishing one device's data whole",
                    config.delta, run.population));
  }
  if (run.selection.policy == "poisson" && !(run.selection.fraction_fit > 0)) {
    return invalid_argument(
        "selection.policy = \"poisson\" draws each device with probability selection.fraction-fit, "
        "which "
        "is 0");
  }
  if (config.noise_multiplier == 0 && config.epsilon == 0) {
    return invalid_argument(
        fmt::format("privacy.mechanism = \"{}\" needs privacy.noise-multiplier, or privacy.epsilon "
                    "to compute it from",
                    config.mechanism));
  }
  return {};
}

Result<void> check_amplification(const PrivateRelease::Run& run, Mechanism mechanism) {
  if (!run.config.amplification) return {};
  constexpr std::string_view kWithout = "set privacy.amplification = false to count without it";
  if (mechanism == Mechanism::kTree) {
    return invalid_argument(
        fmt::format("dp-ftrl does not count on the draw of devices, which sampling amplifies other "
                    "noise by: {}",
                    kWithout));
  }
  if (mechanism != Mechanism::kCentralGaussian) {
    return invalid_argument(
        fmt::format("privacy.mechanism = \"{}\" protects against the server, which makes the draw "
                    "of devices, so "
                    "the draw hides nothing from it: {}",
                    run.config.mechanism, kWithout));
  }
  const SelectionConfig& selection = run.selection;
  if (selection.policy == "by-examples") {
    return invalid_argument(
        fmt::format("selection.policy = \"by-examples\" draws devices with more examples more "
                    "often, so the draw "
                    "does not hide them alike: use \"poisson\" or \"uniform\", or {}",
                    kWithout));
  }
  if (selection.policy != "uniform" && selection.policy != "poisson") {
    return invalid_argument(
        fmt::format("selection.policy = \"{}\" prefers some devices to others, so the draw does not "
                    "hide them alike: use \"poisson\" or \"uniform\", or {}",
                    selection.policy, kWithout));
  }
  if (selection.max_participations > 0 || selection.min_rounds_between > 0) {
    return invalid_argument(
        fmt::format("selection.{} keeps devices out of the draw, so the draw does not hide them "
                    "alike: leave it out, or {}",
                    selection.max_participations > 0 ? "max-participations" : "min-rounds-between",
                    kWithout));
  }
  const bool all_awaited =
      selection.min_available_clients == 0 || selection.min_available_clients >= run.population;
  if (!all_awaited) {
    return invalid_argument(
        fmt::format("selection.min-available-clients = {} begins a round before all {} devices "
                    "wait to be drawn, "
                    "so nobody can say how likely the draw was to take each: leave it out, or {}",
                    selection.min_available_clients, run.population, kWithout));
  }
  if (selection.max_waiting < run.population) {
    return invalid_argument(fmt::format(
        "selection.max-waiting = {} keeps some of the {} devices from being drawn: raise it, or {}",
        selection.max_waiting, run.population, kWithout));
  }
  if (run.config.accountant == "zcdp") {
    return invalid_argument(
        fmt::format("privacy.accountant = \"zcdp\" cannot count on the draw of devices: use "
                    "\"pld\" or \"rdp\", or {}",
                    kWithout));
  }
  return {};
}

Result<void> check_participations(const PrivateRelease::Run& run, Mechanism mechanism) {
  const std::uint32_t limit = run.config.max_participations;
  if (limit == 0 && mechanism == Mechanism::kTree) {
    return invalid_argument(
        "privacy.mechanism = \"dp-ftrl\" counts how often a device may take part: set "
        "privacy.max-participations, which the server then keeps");
  }
  if (limit > 0 && run.config.amplification) {
    return invalid_argument(
        "privacy.max-participations takes devices out of the draw, so the draw does not hide them "
        "alike: set privacy.amplification = false to count without it");
  }
  const RoundSizes sizes = round_sizes(run.selection, run.population);
  if (limit > 0 && sizes.goal * run.num_rounds > double{1} * limit * run.population) {
    return invalid_argument(fmt::format(
        "privacy.max-participations = {} lets {} devices make {:.0f} contributions; {} rounds of "
        "{:.0f} take more",
        limit, run.population, double{1} * limit * run.population, run.num_rounds, sizes.goal));
  }
  return {};
}

Result<void> check_mechanism(const PrivateRelease::Run& run, Mechanism mechanism) {
  if (is_distributed(mechanism)) {
    if (!run.secure_aggregation.enabled()) {
      return invalid_argument(
          fmt::format("privacy.mechanism = \"{}\" is each device's share of a sum's noise, too "
                      "little for an update "
                      "that is seen alone: set secure-aggregation.mode",
                      run.config.mechanism));
    }
    if (run.config.accountant == "pld" ||
        (run.config.accountant == "zcdp" && mechanism == Mechanism::kSkellam)) {
      return invalid_argument(fmt::format(
          "privacy.accountant = \"{}\" cannot count privacy.mechanism = \"{}\": use \"rdp\"",
          run.config.accountant, run.config.mechanism));
    }
  }
  if (run.config.clip == "adaptive" && mechanism != Mechanism::kCentralGaussian) {
    return invalid_argument(
        fmt::format("privacy.clip = \"adaptive\" moves the norm by a count that the server makes "
                    "private, which is "
                    "not done for privacy.mechanism = \"{}\": use \"flat\" or \"per-layer\"",
                    run.config.mechanism));
  }
  return check_participations(run, mechanism);
}

/// A secure sum takes two devices. Where fewer are drawn the draw is repeated, so each is drawn a little more
/// often than is counted: with 40 expected by a factor below 1 + 2^-50.
Result<void> check_poisson_sum(const PrivateRelease::Run& run) {
  constexpr double kEnoughDrawn = 40;
  const double drawn = run.selection.fraction_fit * run.population;
  if (run.selection.policy != "poisson" || !run.config.amplification ||
      !run.secure_aggregation.enabled() || drawn >= kEnoughDrawn) {
    return {};
  }
  return invalid_argument(
      fmt::format("selection.policy = \"poisson\" draws {:.3g} devices a round, and a secure sum needs at "
                  "least two of them: raise selection.fraction-fit until {} are expected, or use "
                  "\"uniform\"",
                  drawn, kEnoughDrawn));
}

/// Andrew et al. 2021: sigma_b = n / 20, and the vector's noise grows so that both
/// together cost what z alone would: z^-2 = z_delta^-2 + (2 sigma_b)^-2, since a device moves the
/// count of +-1/2 by half.
Result<void> share_noise_with_count(ReleasePlan& plan) {
  const double z = plan.releases.noise_multiplier;
  plan.vector_noise = z;
  if (plan.clip != ClipKind::kAdaptive) return {};
  plan.count_noise = plan.denominator / 20;
  const double spare = 1 / (z * z) - 1 / (4 * plan.count_noise * plan.count_noise);
  if (!(spare > 0)) {
    return invalid_argument(
        fmt::format("privacy.clip = \"adaptive\" counts {:.6g} devices a round with noise of "
                    "{:.6g}, which must be "
                    "more than half of the noise multiplier {:.6g}: select more devices, take less "
                    "noise, or use "
                    "privacy.clip = \"flat\"",
                    plan.denominator, plan.count_noise, z));
  }
  plan.vector_noise = 1 / std::sqrt(spare);
  return {};
}

/// Of a secure sum's coordinates, gamma.
double quantum_of(const SecureAggregationPlan& sums) {
  return 2 * sums.clip / (std::ldexp(1.0, static_cast<int>(sums.bits)) - 2);
}

Lattice lattice_of(const PrivateRelease::Run& run, std::uint32_t devices) {
  return {.quantum = quantum_of(run.secure_aggregation),
          .dimension = run.dimension,
          .devices = devices,
          .clip_norm = run.config.clip_norm};
}

std::string guarantee_of(const ReleasePlan& plan, const PrivateRelease::Run& run) {
  switch (plan.mechanism) {
    case Mechanism::kCentralGaussian:
      if (plan.releases.sampling == Sampling::kFixedSize) {
        return "for one device's data exchanged for any other, in all rounds, as long as nobody "
               "learns "
               "who was drawn";
      }
      if (plan.releases.sampling == Sampling::kPoisson) {
        return "for one device more or less, in all rounds, as long as nobody learns who was drawn";
      }
      return "for one device more or less, in all rounds";
    case Mechanism::kLocalGaussian:
      return "for one device's contributions put in place of nothing, in all rounds, against "
             "everyone, "
             "the server included";
    case Mechanism::kDiscreteGaussian:
    case Mechanism::kSkellam:
      return fmt::format(
          "for one device's contributions put in place of nothing, in all rounds, against "
          "everyone, "
          "the server included, as long as {} devices of a round add their noise and keep it to "
          "themselves",
          plan.noisy_devices);
    case Mechanism::kTree:
      return fmt::format("for one device more or less, in at most {} of the {} rounds",
                         run.config.max_participations, run.num_rounds);
  }
  return {};
}

Releases count_releases(const ReleasePlan& plan, const PrivateRelease::Run& run,
                        const RoundSizes& sizes) {
  Releases releases;
  switch (plan.mechanism) {
    case Mechanism::kCentralGaussian:
    case Mechanism::kLocalGaussian:
      releases.noise = NoiseKind::kGaussian;
      break;
    case Mechanism::kDiscreteGaussian:
      releases.noise = NoiseKind::kDiscreteGaussian;
      break;
    case Mechanism::kSkellam:
      releases.noise = NoiseKind::kSkellam;
      break;
    case Mechanism::kTree:
      releases.noise = NoiseKind::kTree;
      break;
  }
  if (is_distributed(plan.mechanism)) releases.lattice = lattice_of(run, plan.noisy_devices);
  const bool everyone = run.selection.policy == "poisson" ? run.selection.fraction_fit >= 1
                                                          : sizes.cohort >= run.population;
  if (run.config.amplification && !everyone) {  // a draw of all hides nobody
    const bool poisson = run.selection.policy == "poisson";
    releases.sampling = poisson ? Sampling::kPoisson : Sampling::kFixedSize;
    releases.sampling_rate =
        poisson ? run.selection.fraction_fit : std::min(sizes.cohort / run.population, 1.0);
  }
  if (plan.mechanism == Mechanism::kTree) {
    releases.max_participations = run.config.max_participations;
  }
  releases.noise_multiplier = run.config.noise_multiplier;
  return releases;
}

Result<void> settle_noise(ReleasePlan& plan, const PrivateRelease::Run& run) {
  if (run.config.noise_multiplier == 0) {
    plan.releases.rounds = run.num_rounds;
    COVEY_ASSIGN(
        plan.releases.noise_multiplier,
        noise_multiplier_for(plan.releases, plan.accountant, run.config.epsilon, plan.delta));
  }
  // The lattice that noise is drawn on follows from it, and has 2^61 points for the sum.
  const double least = std::ldexp(run.population, -31);
  if (server_makes_noise(plan.mechanism) && plan.releases.noise_multiplier < least) {
    return invalid_argument(
        fmt::format("privacy.noise-multiplier = {:.3g} is next to no noise: the smallest that is drawn "
                    "exactly for sums of {} devices is {:.3g}",
                    plan.releases.noise_multiplier, run.population, least));
  }
  plan.releases.rounds = 1;
  COVEY_ASSIGN(const double first_round, epsilon_of(plan.releases, plan.accountant, plan.delta));
  if (plan.budget > 0 && first_round > plan.budget) {
    return invalid_argument(
        fmt::format("one round with privacy.noise-multiplier = {} spends epsilon {:.6g}, more than "
                    "privacy.epsilon = "
                    "{}: raise one of them, or leave out the noise multiplier to have it computed",
                    plan.releases.noise_multiplier, first_round, plan.budget));
  }
  plan.releases.rounds = 0;
  return share_noise_with_count(plan);
}

}  // namespace

Result<std::optional<ReleasePlan>> plan_release(const PrivateRelease::Run& run) {
  const PrivacyConfig& config = run.config;
  if (config.mechanism == "none") {
    if (config.epsilon == 0 && config.noise_multiplier == 0) return std::optional<ReleasePlan>();
    return invalid_argument(fmt::format(
        "privacy.{} asks for a guarantee that privacy.mechanism = \"none\" does not give: choose "
        "central-gaussian, local-gaussian, discrete-gaussian, skellam or dp-ftrl",
        config.epsilon != 0 ? fmt::format("epsilon = {}", config.epsilon)
                            : fmt::format("noise-multiplier = {}", config.noise_multiplier)));
  }
  const auto mechanism = mechanism_named(config.mechanism);
  if (!mechanism) {
    return invalid_argument(
        fmt::format("privacy.mechanism = \"{}\" is not known", config.mechanism));
  }
  COVEY_TRY(check_strategy(run));
  COVEY_TRY(check_ranges(run));
  COVEY_TRY(check_mechanism(run, *mechanism));
  COVEY_TRY(check_amplification(run, *mechanism));
  COVEY_TRY(check_poisson_sum(run));

  const RoundSizes sizes = round_sizes(run.selection, run.population);
  ReleasePlan plan;
  plan.mechanism = *mechanism;
  plan.clip = config.clip == "per-layer"  ? ClipKind::kPerLayer
              : config.clip == "adaptive" ? ClipKind::kAdaptive
                                          : ClipKind::kFlat;
  plan.clip_norm = config.clip_norm;
  plan.target_quantile = config.target_quantile;
  plan.clip_learning_rate = config.clip_learning_rate;
  plan.denominator =
      run.selection.policy == "poisson" ? run.selection.fraction_fit * run.population : sizes.goal;
  const double honest =
      std::floor(sizes.quorum * (1 - run.secure_aggregation.corruption) + kProductSlack);
  plan.noisy_devices = static_cast<std::uint32_t>(std::max(honest, 1.0));
  plan.dimension = run.dimension;
  if (run.secure_aggregation.enabled() && server_makes_noise(*mechanism)) {
    // Every coordinate moves by less than one quantum.
    plan.rounding_slack =
        quantum_of(run.secure_aggregation) * std::sqrt(static_cast<double>(run.dimension));
  }
  plan.budget = config.epsilon;
  plan.delta = config.delta;
  plan.accountant = config.accountant == "rdp"    ? Accountant::kRdp
                    : config.accountant == "zcdp" ? Accountant::kZcdp
                                                  : Accountant::kPld;
  plan.releases = count_releases(plan, run, sizes);
  COVEY_TRY(settle_noise(plan, run));
  plan.guarantee = guarantee_of(plan, run);
  return std::optional(std::move(plan));
}

}  // namespace covey::privacy
