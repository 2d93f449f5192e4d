#pragma once

#include <covey/privacy/packed_vector.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/random.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace covey::privacy {

/// How contributions become integers whose sum cannot overflow.
///
/// Coordinate x of a device's vector: v = (min(weight, W) / W) * x (after the rotation, where there
/// is one), clipped to [-C, C], then rounded stochastically (unbiased) to a multiple of the quantum
/// 2 C / (2^b - 2), and stored as v / quantum + 2^(b-1) - 1 in [0, 2^b - 2]. With noise on the
/// lattice (distributed differential privacy) a discrete Gaussian or Skellam draw is added behind
/// that. Scalars
/// (|x| < 2^40, to 2^-66, as ExactScalarSum) are cut in digits of b bits, each a coordinate of its
/// own: their sum is exact. n contributions of [0, 2^b) sum below n * 2^b; m = sum_bits has room
/// for that and for the noise's tail (probability below 2^-40 for a whole sum).
struct SumFormat {
  SecureAggregationPlan plan;
  PrivacyPlan privacy;
  std::size_t dimension = 0;    ///< d
  /// Of these, how many enter the sum: ceil(plan.subsample * d), drawn from (seed, kSubsample, round).
  std::size_t summed = 0;
  /// Error feedback makes up for what is lost, so the least is to be lost: coordinates are rounded to the
  /// nearest point, and those that stay out of the sum count as 0. Otherwise everything is right on average:
  /// rounding is stochastic, and the sum of the coordinates that enter is scaled by d / summed.
  bool least_error = false;
  std::size_t num_scalars = 0;  ///< beside the vector; 0 under differential privacy
  double quantum = 0;
  PackedFormat packed;  ///< of summed + digits coordinates

  /// Error, a sentence, where no modulus has room (too many devices, bits, noise) or a setting
  /// makes no sense.
  static Result<SumFormat> make(const SecureAggregationPlan& plan, const PrivacyPlan& privacy,
                                std::size_t dimension, std::size_t num_scalars);
  std::size_t bytes() const { return packed.bytes(); }
};

struct FixedPointContribution {
  std::vector<std::byte> packed;  ///< format.bytes()
  std::uint64_t clipped = 0;      ///< coordinates outside [-C, C]
  bool weight_clipped = false;    ///< the weight was above W
};

/// `update`: R^d, finite; `weight` >= 0, finite; `scalars`: format.num_scalars, each |x| < 2^40
/// (error otherwise). Rounding, rotation and the choice of coordinates draw from (seed, kUpdateRounding /
/// kRotation / kSubsample, round, client): the latter two are the same for every device of a round.
/// `secrets` gives the noise.
struct ContributionDraw {
  std::uint64_t seed = 0;
  RoundNumber round{};
  ClientId client{};
};
Result<FixedPointContribution> encode_contribution(const SumFormat& format,
                                                   std::span<const float> update, double weight,
                                                   std::span<const double> scalars,
                                                   const ContributionDraw& draw,
                                                   SecretSource& secrets);

struct DecodedSum {
  std::vector<double> vector;   ///< R^d: sum of min(weight, W) * update
  std::vector<double> scalars;  ///< exact, rounded once
};
/// `words`: the unmasked packed sum of `count` contributions. Error where a coordinate is outside
/// what `count` contributions can make (no masks of an honest round leave that).
Result<DecodedSum> decode_sum(const SumFormat& format, std::span<const std::uint64_t> words,
                              std::uint32_t count, std::uint64_t seed, RoundNumber round);

/// What a device's own contribution says of its update, R^d: as decode_sum would find it in a sum of its
/// own, without noise. Error for bytes that encode_contribution did not make.
Result<std::vector<double>> decode_contribution(const SumFormat& format,
                                                std::span<const std::byte> packed,
                                                const ContributionDraw& draw);

/// In place, orthonormal and its own inverse up to the signs: blocks of powers of two that cover
/// R^d (the binary digits of d, largest first), each with random signs and a Walsh-Hadamard
/// transform.
void rotate(std::span<float> values, std::uint64_t seed, RoundNumber round);
void rotate_back(std::span<double> values, std::uint64_t seed, RoundNumber round);

}  // namespace covey::privacy
