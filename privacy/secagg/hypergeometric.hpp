#pragma once

#include <cstdint>

namespace covey::privacy {

/// Draws without replacement: `drawn` of `population`, of which `marked` are marked. X: marked ones
/// drawn.
struct Hypergeometric {
  std::uint32_t population = 0;
  std::uint32_t marked = 0;  ///< <= population
  std::uint32_t drawn = 0;   ///< <= population

  /// P(X >= count), to a relative error of about 1e-9 (of the logarithms of factorials).
  double at_least(std::uint32_t count) const;
  /// P(X < count), likewise: without the cancellation of 1 - P(X >= count).
  double less_than(std::uint32_t count) const;
};

}  // namespace covey::privacy
