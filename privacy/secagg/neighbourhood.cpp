#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/privacy/neighbourhood.hpp>
#include <numeric>

#include "secagg/chacha_stream.hpp"
#include "secagg/hypergeometric.hpp"

namespace covey::privacy {
namespace {

// A single device of so few is more than any planned share of drop-outs.
constexpr std::uint32_t kTinyCohort = 8;

// Probabilities of the same tail differ between machines by the rounding of logarithms, 1e-9 or so:
// what the server finds just within the bound must not be just outside it on a device.
constexpr double kRounding = 1.001;

/// floor(share * devices), where 0.29 * 100 is 29; never all.
std::uint32_t part_of(std::uint32_t devices, double share) {
  return std::min(static_cast<std::uint32_t>(std::floor(share * devices + 1e-9)), devices - 1);
}

Result<void> check_plan(std::uint32_t devices, const SecureAggregationPlan& plan) {
  const auto is_share = [](double value) { return value >= 0 && value < 1; };
  if (!plan.enabled()) return invalid_argument("the plan asks for no secure aggregation");
  if (!is_share(plan.dropout) || !is_share(plan.corruption)) {
    return invalid_argument(fmt::format(
        "secure aggregation cannot plan for {:.4g} of the devices dropping out and {:.4g} "
        "working with the server: both must be at least 0 and less than 1",
        plan.dropout, plan.corruption));
  }
  if (devices < 2) {
    return invalid_argument(fmt::format(
        "a secure sum needs at least 2 devices, not {}: the sum of one is its update", devices));
  }
  return {};
}

/// The tails of one plan for a number of devices.
class Bounds {
 public:
  Bounds(std::uint32_t devices, const SecureAggregationPlan& plan, double security,
         double rounding = 1)
      : devices_(devices),
        corrupt_(part_of(devices, plan.corruption)),
        dropped_(part_of(devices, plan.dropout)),
        malicious_(plan.threat_model == ThreatModel::kMaliciousServer),
        insecure_(std::exp2(-security) * rounding) {}

  std::uint32_t corrupt() const { return corrupt_; }
  std::uint32_t surviving() const { return devices_ - dropped_; }

  /// t of a complete graph: of n shares, the device's own among them.
  std::uint32_t complete_threshold() const {
    const std::uint32_t majority = devices_ / 2 + 1;
    if (!malicious_) return std::max(corrupt_ + 1, majority);
    // Both secrets of a device take 2 (t - corrupt) shares of the n - corrupt honest holders.
    const auto both = static_cast<std::uint32_t>((std::uint64_t{devices_} + corrupt_) / 2 + 1);
    return std::max(both, two_thirds(devices_));
  }

  /// The smallest t that is secure among k neighbours; more than k where none is.
  /// `corrupt_neighbours`: how many no device has, at least; raised to that. It grows with k.
  std::uint32_t secure_threshold(std::uint32_t degree, std::uint32_t& corrupt_neighbours) const {
    const Hypergeometric corrupt{devices_ - 1, corrupt_, degree};
    while (devices_ * corrupt.at_least(corrupt_neighbours) > insecure_) ++corrupt_neighbours;
    if (!connected(degree)) return degree + 1;
    if (!malicious_) return std::max(2u, corrupt_neighbours);
    return std::max((corrupt_neighbours + degree + 2) / 2, two_thirds(degree + 1));
  }

  /// Whether every survivor has `threshold` surviving neighbours.
  bool survives(std::uint32_t degree, std::uint32_t threshold) const {
    const Hypergeometric others{devices_ - 1, surviving() - 1, degree};
    // Beyond the mean it is lost anyway, and the sum would be long.
    if (std::uint64_t{threshold} * others.population > std::uint64_t{others.marked} * degree)
      return false;
    return devices_ * others.less_than(threshold) <= std::exp2(-kStatisticalCorrectness);
  }

 private:
  static std::uint32_t two_thirds(std::uint32_t shares) {
    return static_cast<std::uint32_t>(std::uint64_t{shares} * 2 / 3 + 1);
  }

  /// Whether the honest survivors are connected: cutting the circle takes two runs of k / 2
  /// neighbouring places that are all corrupt or dropped.
  bool connected(std::uint32_t degree) const {
    const std::uint32_t lost = std::min(devices_, corrupt_ + dropped_);
    const double pairs = 0.5 * devices_ * (devices_ - 1.0);
    return pairs * Hypergeometric{devices_, lost, degree}.at_least(degree) <= insecure_;
  }

  std::uint32_t devices_;
  std::uint32_t corrupt_;
  std::uint32_t dropped_;
  bool malicious_;
  double insecure_;
};

Result<Neighbourhood> complete_graph(std::uint32_t devices, const SecureAggregationPlan& plan,
                                     const Bounds& bounds) {
  const std::uint32_t threshold = bounds.complete_threshold();
  const std::uint32_t answering = devices < kTinyCohort ? devices : bounds.surviving();
  if (threshold > answering) {
    return invalid_argument(fmt::format(
        "secure aggregation ({}) cannot be had among {} devices of which {} may work with the "
        "server and "
        "{} may drop out: it takes {} that answer. Plan for less corruption or fewer drop-outs",
        to_string(plan.threat_model), devices, bounds.corrupt(), devices - bounds.surviving(),
        threshold));
  }
  return Neighbourhood{devices, devices - 1, threshold};
}

Error too_weak(const Neighbourhood& announced, std::string why) {
  return malformed(
      fmt::format("the server announced {} neighbours of {} devices and a threshold of {}: {}",
                  announced.degree, announced.devices, announced.threshold, why));
}

}  // namespace

double security_of(const SecureAggregationPlan& plan) {
  return plan.threat_model == ThreatModel::kMaliciousServer
             ? kStatisticalSecurity + kGrindingAllowance
             : kStatisticalSecurity;
}

Result<Neighbourhood> neighbourhood_for(std::uint32_t devices, const SecureAggregationPlan& plan,
                                        double security) {
  COVEY_TRY(check_plan(devices, plan));
  const Bounds bounds(devices, plan, security);
  if (plan.complete_graph || devices < kSmallestSparse)
    return complete_graph(devices, plan, bounds);
  std::uint32_t corrupt_neighbours = 1;
  for (std::uint32_t degree = 2; degree + 1 < devices; degree += 2) {
    const std::uint32_t threshold = bounds.secure_threshold(degree, corrupt_neighbours);
    if (threshold <= degree && bounds.survives(degree, threshold)) {
      return Neighbourhood{devices, degree, threshold};
    }
  }
  return complete_graph(devices, plan, bounds);
}

Result<void> check_neighbourhood(const Neighbourhood& announced,
                                 const SecureAggregationPlan& plan) {
  COVEY_TRY(check_plan(announced.devices, plan));
  const std::uint32_t devices = announced.devices;
  const std::uint32_t degree = announced.degree;
  const std::uint32_t threshold = announced.threshold;
  if (degree < 1 || degree >= devices) return too_weak(announced, "no graph has such a degree");
  if (threshold < 2) return too_weak(announced, "a single share would reveal a secret");
  if (threshold > (announced.complete() ? devices : degree)) {
    return too_weak(announced, "no secret has so many shares");
  }
  const Bounds bounds(devices, plan, security_of(plan), kRounding);
  if (announced.complete()) {
    if (const std::uint32_t needed = bounds.complete_threshold(); threshold < needed) {
      return too_weak(announced, fmt::format("the plan asks for at least {}", needed));
    }
    return {};
  }
  if (plan.complete_graph) return too_weak(announced, "the plan asks for a complete graph");
  if (devices < kSmallestSparse) {
    return too_weak(announced,
                    fmt::format("fewer than {} devices need a complete graph", kSmallestSparse));
  }
  if (degree % 2 != 0) return too_weak(announced, "the degree of this graph is even");
  std::uint32_t corrupt_neighbours = 1;
  const std::uint32_t needed = bounds.secure_threshold(degree, corrupt_neighbours);
  if (needed > degree) {
    return too_weak(announced, "no threshold is secure with so few neighbours, as the plan asks");
  }
  if (threshold < needed) {
    return too_weak(announced, fmt::format("the plan asks for at least {}", needed));
  }
  return {};
}

NeighbourGraph::NeighbourGraph(const Neighbourhood& size, const Digest& seed) : size_(size) {
  COVEY_ASSERT(size.devices >= 2 && size.degree >= 1 && size.degree < size.devices);
  COVEY_ASSERT(size.complete() || size.degree % 2 == 0);
  if (size.complete()) return;
  circle_.resize(size.devices);
  std::iota(circle_.begin(), circle_.end(), 0u);
  ChaChaStream stream(std::as_bytes(std::span(seed.bytes)));
  for (std::size_t i = circle_.size(); i > 1; --i) {  // Fisher-Yates
    std::swap(circle_[i - 1], circle_[static_cast<std::size_t>(stream.below(i))]);
  }
  place_of_.resize(size.devices);
  for (std::uint32_t place = 0; place < size.devices; ++place) place_of_[circle_[place]] = place;
}

std::vector<std::uint32_t> NeighbourGraph::neighbours_of(std::uint32_t position) const {
  COVEY_ASSERT(position < size_.devices);
  std::vector<std::uint32_t> neighbours;
  neighbours.reserve(size_.degree);
  if (size_.complete()) {
    for (std::uint32_t other = 0; other < size_.devices; ++other) {
      if (other != position) neighbours.push_back(other);
    }
    return neighbours;
  }
  const std::size_t n = size_.devices;
  const std::size_t place = place_of_[position];
  for (std::uint32_t step = 1; step <= size_.degree / 2; ++step) {
    neighbours.push_back(circle_[(place + step) % n]);
    neighbours.push_back(circle_[(place + n - step) % n]);
  }
  std::sort(neighbours.begin(), neighbours.end());
  return neighbours;
}

}  // namespace covey::privacy
