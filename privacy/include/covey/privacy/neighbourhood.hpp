#pragma once

#include <covey/digest.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <span>
#include <vector>

namespace covey::privacy {

/// How many neighbours a device has and how many shares reconstruct a secret. A complete graph
/// (degree = devices - 1) counts the device's own share among those that can be revealed.
struct Neighbourhood {
  std::uint32_t devices = 0;    ///< n
  std::uint32_t degree = 0;     ///< k <= n - 1
  std::uint32_t threshold = 0;  ///< t >= 2
  bool complete() const { return degree + 1 == devices; }
  bool operator==(const Neighbourhood&) const = default;
};

/// Statistical security, bits (Bell et al. 2020, section 3, use 40): with probability 2^-40 at most
/// a round has a device whose secrets the corrupt devices can reconstruct.
inline constexpr double kStatisticalSecurity = 40;
/// Added for a malicious server: the graph follows from a hash of all advertisements, which corrupt
/// devices may try to choose; 2^40 tries within a round are granted to them.
inline constexpr double kGrindingAllowance = 40;
/// Statistical correctness, bits (Bell et al. 2020 use 30): with probability 2^-30 at most a round
/// in which no more devices vanish than planned has one whose secrets the survivors cannot
/// reconstruct, and has to be abandoned. Nothing is revealed then.
inline constexpr double kStatisticalCorrectness = 30;

/// Fewer devices always make a complete graph: it costs each of them less than a millisecond, and
/// holds where the plan's fractions are of less than a device.
inline constexpr std::uint32_t kSmallestSparse = 20;

/// The smallest k and its smallest t for n devices, of which floor(corruption n) work with the
/// server and floor(dropout n) vanish, wherever they stand in the random graph; by exact
/// hypergeometric tails and a union over the n devices (Bell et al. 2020, sections 3 and 4).
///
/// Except with probability 2^-security, no device has t corrupt neighbours, and the honest
/// survivors are connected. With a malicious server no device has 2t - k - 1 corrupt neighbours
/// either: so many would give it both secrets of that device, with the two halves of the honest
/// ones of its k + 1 holders (itself among them) to whom it told different survivor sets. There t >
/// 2 (k + 1) / 3, too.
///
/// Except with probability 2^-kStatisticalCorrectness, no surviving device has fewer than t
/// surviving neighbours.
///
/// A complete graph where no smaller degree does, or the plan asks for it: its t is more than the
/// corrupt devices and more than half of the n shares, with a malicious server more than two thirds
/// and more than (n + corruption n) / 2. Error, a sentence, where so many do not survive; up to 7
/// devices, of which a single one can be too many, that is left to the round.
///
/// Not promised: a malicious server that chooses who vanishes can cut the circle of a sparse graph
/// where t - k / 2 corrupt devices stand within k / 2 places, twice, and so learn the sums of two
/// parts; each has more than k - t honest devices, since every one keeps t neighbours. A complete
/// graph has no parts.
Result<Neighbourhood> neighbourhood_for(std::uint32_t devices, const SecureAggregationPlan& plan,
                                        double security);
/// The `security` that the plan's threat model takes.
double security_of(const SecureAggregationPlan& plan);
/// What a device checks of what a server announces: at least as strong as the plan asks (up to
/// rounding), and never t = 1. Error says what is too weak.
Result<void> check_neighbourhood(const Neighbourhood& announced, const SecureAggregationPlan& plan);

/// The k-regular graph (Bell et al. 2020, Algorithm 2): positions on a random circle, each joined
/// to those within k / 2 steps; k even, or complete. Symmetric; the same on every machine.
class NeighbourGraph {
 public:
  NeighbourGraph(const Neighbourhood& size, const Digest& seed);
  /// Positions of the neighbours, ascending, without its own.
  std::vector<std::uint32_t> neighbours_of(std::uint32_t position) const;

 private:
  Neighbourhood size_;
  std::vector<std::uint32_t> circle_;    ///< place on the circle -> position
  std::vector<std::uint32_t> place_of_;  ///< the inverse
};

}  // namespace covey::privacy
