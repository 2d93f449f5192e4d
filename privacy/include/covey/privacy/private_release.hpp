#pragma once

#include <covey/parameter_vector.hpp>
#include <covey/privacy/accountant.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace covey::privacy {

struct PrivacySpent {
  double epsilon = 0;       ///< of all releases so far
  double epsilon_next = 0;  ///< with one more
  double delta = 0;
};

/// The server's half of differential privacy over a run: noise on each round's sum, the clip norm
/// from round to round, and what it all costs. Central Gaussian: N(0, (z S)^2) on the sum (McMahan
/// et al. 2018, Algorithm 1, with the fixed denominator q N). DP-FTRL: the difference of two
/// consecutive nodes' sums of a binary tree (Kairouz et al. 2021, Algorithm 1), so that the prefix
/// sums that the model follows carry the tree's noise. Local and distributed noise is the devices':
/// here it is only counted. Adaptive: Andrew et al. 2021, Algorithm 1. One thread at a time.
class PrivateRelease {
 public:
  struct Run {
    PrivacyConfig config;
    SelectionConfig selection;
    SecureAggregationPlan secure_aggregation;
    std::uint32_t num_rounds = 0;
    std::uint32_t population = 0;  ///< N
    std::size_t dimension = 0;     ///< d
    bool sum_strategy = true;
    std::size_t num_scalars = 0;  ///< that the strategy sums beside the vector
    std::string strategy;         ///< its name, for the sentences
  };
  /// Nothing for mechanism "none". Error, a sentence naming the keys, where the configuration
  /// cannot give what it asks: an epsilon without a mechanism; a strategy that needs single updates
  /// or sums scalars of its own; distributed noise without secure aggregation; amplification where
  /// not every device of the population waits to be drawn, or is not drawn uniformly, or with
  /// another mechanism than central noise (devices' noise protects against the server, which makes
  /// the draw; DP-FTRL's tree spans rounds); adaptive clipping with noise of the devices or of a
  /// tree; delta >= 1 / N; an adaptive clip whose own noise is too small for z (too few devices a
  /// round); a budget that does not last one round; an accountant that cannot treat the mechanism.
  static Result<std::optional<PrivateRelease>> make(const Run& run);
  PrivateRelease(PrivateRelease&&) noexcept;
  PrivateRelease& operator=(PrivateRelease&&) noexcept;
  ~PrivateRelease();

  /// A device's half in the round to come.
  PrivacyPlan device_plan() const;
  /// What the sum is divided by instead of its weights, the same in every round: the expected
  /// number of contributions. Poisson: q N; else the goal at which a round closes.
  double denominator() const;
  double noise_multiplier() const;   ///< z, given or computed
  const Releases& releases() const;  ///< as they are counted; rounds: so far
  /// What (epsilon, delta) is said of, a sentence's end: "for one device more or less, ...".
  std::string guarantee() const;
  PrivacySpent spent() const;
  bool budget_allows_another() const;

  /// Makes one round's exact sum (R^d, of equally weighted clipped contributions) private, and
  /// counts it. `unclipped`: sum over devices of +1/2 where the norm was within S, else -1/2; only
  /// where device_plan().clip is kAdaptive. Error: the generator failed; nothing may be published.
  Result<void> release(std::span<double> sum, double unclipped, SecretSource& secrets);

  /// What a server that starts again needs: a fixed number of floats, exact. Under DP-FTRL it holds
  /// the seed of noise that is still to protect rounds: as secret as the sums themselves.
  std::vector<float> state() const;
  std::size_t state_size() const;
  Result<void> restore(std::span<const float> state);

 private:
  struct State;
  explicit PrivateRelease(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace covey::privacy
