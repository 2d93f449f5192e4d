#pragma once

#include <covey/privacy/accountant.hpp>
#include <covey/privacy/private_release.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <optional>
#include <string>

namespace covey::privacy {

enum class Mechanism : std::uint8_t {
  kCentralGaussian,
  kLocalGaussian,
  kDiscreteGaussian,
  kSkellam,
  kTree,
};

/// What a run's keys come to, checked: all that does not change from round to round.
struct ReleasePlan {
  Mechanism mechanism = Mechanism::kCentralGaussian;
  ClipKind clip = ClipKind::kFlat;
  double clip_norm = 0;        ///< S, adaptive: its first value
  double target_quantile = 0;  ///< gamma
  double clip_learning_rate = 0;
  double denominator = 0;  ///< expected contributions of a round
  /// What rounding for a secure sum may add to a contribution's norm; only where the server makes
  /// the noise (noise of devices is counted behind the rounding).
  double rounding_slack = 0;
  double vector_noise = 0;  ///< of the sum, in clip norms: z, or z_delta beside an adaptive clip
  double count_noise = 0;   ///< sigma_b, adaptive only: of the sum of +-1/2
  std::uint32_t noisy_devices = 1;  ///< fewest honest ones whose noise is in a sum
  std::size_t dimension = 0;
  double budget = 0;  ///< epsilon; 0: none
  double delta = 0;
  Accountant accountant = Accountant::kPld;
  Releases releases;  ///< rounds: 0
  std::string guarantee;
};

/// Nothing for mechanism "none"; errors of PrivateRelease::make.
Result<std::optional<ReleasePlan>> plan_release(const PrivateRelease::Run& run);

}  // namespace covey::privacy
