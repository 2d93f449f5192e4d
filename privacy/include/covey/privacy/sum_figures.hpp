#pragma once

#include <covey/privacy_plan.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace covey::privacy {

/// The numbers that stand beside the vector in a secure sum, so that the server learns of them, too, only
/// what they add up to. Without differential privacy all of them; with it none, but for `unclipped` where
/// the clip norm adapts: whatever else were summed would be released without noise.
struct SumFigures {
  double weight = 0;
  double num_examples = 0;
  double steps = 0;
  double loss = 0;                   ///< training loss times num_examples
  double clipped_weights = 0;        ///< devices whose weight was above the limit
  double squared_norm = 0;           ///< |v|^2 of what enters the sum, before it is clipped to the range
  double quartic_norm = 0;           ///< |v|^4 of it
  std::vector<double> scalars = {};  ///< the strategy's
  double unclipped = 0;              ///< +1/2 where the norm was within S, else -1/2
  double clipped_coordinates = 0;    ///< outside the fixed-point range

  std::vector<double> to_scalars(const PrivacyPlan& plan) const;
  /// `scalars`: num_sum_scalars of them.
  static SumFigures from_scalars(const PrivacyPlan& plan, std::span<const double> scalars);
};

/// How many numbers SumFigures makes for a strategy of so many scalars of its own.
std::size_t num_sum_scalars(const PrivacyPlan& plan, std::size_t strategy_scalars);

}  // namespace covey::privacy
