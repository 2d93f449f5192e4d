#include "oort_selection.hpp"

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

namespace covey::server {
namespace {

// Lai et al. 2021: section 4.3 for the clipping of utilities and the cut-off, Alg. 1 for the
// uncertainty. Its pacer counts in seconds; like the authors' own later implementation (FedScale)
// this one counts in percentiles of the durations seen, which needs no knowledge of the fleet:
// first the 30th, by 5 every 20 rounds.
constexpr double kClipPercentile = 95;
constexpr double kCutOff = 0.95;  // c
constexpr double kUncertainty = 0.1;
constexpr std::size_t kWindow = 20;  // W
constexpr double kFirstPercentile = 30;
constexpr double kPercentileStep = 5;

// 0.1 * 10 may come out a hair below 1.
constexpr double kProductSlack = 1e-9;

/// Of values in no order; not empty.
double percentile_of(std::vector<double> values, double percent) {
  const auto rank = static_cast<std::size_t>(static_cast<double>(values.size()) * percent / 100);
  const auto nth = values.begin() + static_cast<std::ptrdiff_t>(std::min(rank, values.size() - 1));
  std::ranges::nth_element(values, nth);
  return *nth;
}

/// The statistical utility of each; of one whose loss is not known that of the others in the mean.
/// Missed tasks lower it.
std::vector<double> utilities_of(const std::vector<const DeviceRecord*>& records) {
  double sum = 0;
  std::size_t known = 0;
  for (const DeviceRecord* record : records) {
    if (!record->has_loss()) continue;
    sum += record->statistical_utility();
    ++known;
  }
  const double mean = known > 0 ? sum / static_cast<double>(known) : 1;
  std::vector<double> utilities;
  utilities.reserve(records.size());
  for (const DeviceRecord* record : records) {
    utilities.push_back(
        record->discounted(record->has_loss() ? record->statistical_utility() : mean));
  }
  return utilities;
}

}  // namespace

struct OortPreferences::Explored {
  ClientId client{};
  double score = 0;
};

OortPreferences::OortPreferences(const SelectionConfig& config)
    : exploration_(config.exploration),
      exploration_decay_(config.exploration_decay),
      exploration_min_(config.exploration_min),
      round_penalty_(config.round_penalty),
      percentile_(kFirstPercentile) {}

double OortPreferences::exploration(RoundNumber round) const {
  const double draws_before = value_of(round) - 1.0 + abandoned_;
  const double decayed = exploration_ * std::pow(exploration_decay_, draws_before);
  return std::clamp(std::max(decayed, exploration_min_), 0.0, 1.0);
}

/// Alg. 1, lines 9 to 14. Utilities are clipped and brought into [0, 1] first, as in the authors'
/// implementation: the uncertainty's scale is that of a utility of 1.
std::vector<OortPreferences::Explored> OortPreferences::score(const std::vector<Candidate>& pool,
                                                              RoundNumber round,
                                                              const DeviceHistory& history) const {
  std::vector<Explored> explored;
  std::vector<const DeviceRecord*> records;
  std::vector<double> durations;
  for (const Candidate& candidate : pool) {
    const DeviceRecord* record = history.find(candidate.client);
    if (record == nullptr || !record->tried()) continue;
    explored.push_back({candidate.client, 0});
    records.push_back(record);
    durations.push_back(static_cast<double>(record->duration_s));
  }
  if (explored.empty()) return explored;
  const std::vector<double> utilities = utilities_of(records);
  const double clip = percentile_of(utilities, kClipPercentile);
  const double lowest = *std::ranges::min_element(utilities);
  const double range = std::max(clip - lowest, std::numeric_limits<double>::min());
  const double preferred = percentile_ < 100 ? percentile_of(durations, percentile_)
                                             : std::numeric_limits<double>::infinity();
  const double uncertainty = kUncertainty * std::log(std::max(value_of(round), 1U));
  for (std::size_t i = 0; i < explored.size(); ++i) {
    double& score = explored[i].score;
    score = clip > lowest ? (std::min(utilities[i], clip) - lowest) / range : 1;
    score += std::sqrt(uncertainty / records[i]->last_tried);
    if (durations[i] > preferred) score *= std::pow(preferred / durations[i], round_penalty_);
  }
  return explored;
}

namespace {

/// `count` of them with probability proportional to the score, without replacement: the smallest of
/// exponential variables of that rate (Efraimidis and Spirakis 2006).
template <typename Scored>
void sample_by_score(std::span<const Scored> from, std::size_t count, RandomStream& random,
                     std::vector<ClientId>& drawn) {
  std::vector<std::pair<double, ClientId>> arrivals;
  arrivals.reserve(from.size());
  for (const Scored& scored : from) {
    const double rate = std::max(scored.score, std::numeric_limits<double>::min());
    arrivals.emplace_back(random.exponential() / rate, scored.client);
  }
  std::ranges::sort(arrivals);
  for (std::size_t i = 0; i < count; ++i) drawn.push_back(arrivals[i].second);
}

}  // namespace

std::vector<ClientId> OortPreferences::draw(const std::vector<Candidate>& pool, std::size_t count,
                                            RoundNumber round, const DeviceHistory& history,
                                            RandomStream random) const {
  COVEY_ASSERT(count <= pool.size());
  std::vector<Explored> explored = score(pool, round, history);
  const std::size_t untried = pool.size() - explored.size();
  const double exploited_share = (1 - exploration(round)) * static_cast<double>(count);
  std::size_t exploit =
      std::min(static_cast<std::size_t>(exploited_share + kProductSlack), explored.size());
  exploit +=
      count - exploit - std::min(count - exploit, untried);  // fill up where too few are untried

  std::vector<ClientId> drawn;
  drawn.reserve(count);
  if (exploit > 0) {
    // Devices above 95% of the cut-off are as good as those above it, and the draw tells them
    // apart.
    const auto last = explored.begin() + static_cast<std::ptrdiff_t>(exploit - 1);
    std::ranges::nth_element(explored, last, std::greater<>{}, &Explored::score);
    const double cut_off = kCutOff * last->score;
    std::erase_if(explored, [&](const Explored& device) { return device.score < cut_off; });
    std::ranges::sort(explored, {}, &Explored::client);
    sample_by_score(std::span<const Explored>(explored), exploit, random, drawn);
  }
  // How fast a device is that was never tried is not known, so all of these are alike.
  std::vector<ClientId> unexplored;
  for (const Candidate& candidate : pool) {
    const DeviceRecord* record = history.find(candidate.client);
    if (record == nullptr || !record->tried()) unexplored.push_back(candidate.client);
  }
  for (std::size_t i = 0; drawn.size() < count; ++i) {
    std::swap(unexplored[i],
              unexplored[i + static_cast<std::size_t>(random.below(unexplored.size() - i))]);
    drawn.push_back(unexplored[i]);
  }
  return drawn;
}

void OortPreferences::round_committed(double utility) {
  utilities_.push_back(utility);
  if (utilities_.size() < 2 * kWindow) return;
  const auto middle = utilities_.begin() + kWindow;
  const double before = std::accumulate(utilities_.begin(), middle, 0.0);
  const double since = std::accumulate(middle, utilities_.end(), 0.0);
  // The fast devices have less and less to teach: slower ones are worth waiting for.
  if (since < before) percentile_ = std::min(100.0, percentile_ + kPercentileStep);
  utilities_.erase(utilities_.begin(), middle);
}

}  // namespace covey::server
