#include "cohort_selection.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/random.hpp>
#include <functional>
#include <limits>
#include <span>
#include <utility>

#include "oort_selection.hpp"

namespace covey::server {
namespace {

// 0.29 * 100 is 28.999999999999996: products of a decimal fraction and a count are taken as the
// whole number they are within a billionth of.
constexpr double kProductSlack = 1e-9;

std::size_t floor_product(double factor, std::size_t count) {
  return static_cast<std::size_t>(std::floor(factor * static_cast<double>(count) + kProductSlack));
}

std::size_t ceil_product(double factor, std::size_t count) {
  return static_cast<std::size_t>(std::ceil(factor * static_cast<double>(count) - kProductSlack));
}

/// Least-significant-digit radix sort by client, a byte a pass; bytes that are equal in all ids
/// cost nothing, so dense ids of a million devices take three passes.
void sort_by_client(std::vector<Candidate>& pool) {
  std::uint64_t all_set = UINT64_MAX;
  std::uint64_t any_set = 0;
  for (const Candidate& candidate : pool) {
    all_set &= value_of(candidate.client);
    any_set |= value_of(candidate.client);
  }
  const std::uint64_t differing = all_set ^ any_set;
  std::vector<Candidate> sorted(pool.size());
  for (unsigned shift = 0; shift < 64; shift += 8) {
    if (((differing >> shift) & 0xff) == 0) continue;
    std::array<std::size_t, 257> starts{};
    for (const Candidate& candidate : pool) {
      ++starts[((value_of(candidate.client) >> shift) & 0xff) + 1];
    }
    for (std::size_t digit = 1; digit < starts.size(); ++digit) starts[digit] += starts[digit - 1];
    for (const Candidate& candidate : pool) {
      sorted[starts[(value_of(candidate.client) >> shift) & 0xff]++] = candidate;
    }
    pool.swap(sorted);
  }
}

std::vector<ClientId> draw_uniform(std::vector<Candidate> pool, std::size_t count,
                                   RandomStream random) {
  std::vector<ClientId> drawn;
  drawn.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {  // the first `count` steps of a Fisher-Yates shuffle
    std::swap(pool[i], pool[i + static_cast<std::size_t>(random.below(pool.size() - i))]);
    drawn.push_back(pool[i].client);
  }
  return drawn;
}

/// Integer weights under removal, drawn in proportion (Fenwick 1994): O(n) to make, O(log n) a
/// draw.
class WeightedUrn {
 public:
  explicit WeightedUrn(const std::vector<Candidate>& pool) : tree_(pool.size() + 1) {
    for (std::size_t i = 1; i < tree_.size(); ++i) {
      // Counts are the devices' own claims: at most 2^32 each, so that 2^31 devices cannot overflow
      // the total. None counts as one, so that everybody can be drawn.
      const std::uint64_t weight =
          std::clamp<std::uint64_t>(pool[i - 1].num_examples, 1, std::uint64_t{1} << 32);
      tree_[i] += weight;
      total_ += weight;
      const std::size_t parent = i + (i & (~i + 1));
      if (parent < tree_.size()) tree_[parent] += tree_[i];
    }
  }

  /// Removes one index, drawn with probability weight / total.
  std::size_t draw(RandomStream& random) {
    std::uint64_t ticket = random.below(total_);
    std::size_t before = 0;  // indices whose weights lie wholly below the ticket
    for (std::size_t step = std::bit_floor(tree_.size() - 1); step > 0; step /= 2) {
      if (before + step < tree_.size() && tree_[before + step] <= ticket) {
        before += step;
        ticket -= tree_[before];
      }
    }
    remove(before);
    return before;
  }

 private:
  std::uint64_t prefix(std::size_t count) const {
    std::uint64_t sum = 0;
    for (; count > 0; count &= count - 1) sum += tree_[count];
    return sum;
  }
  void remove(std::size_t index) {
    const std::uint64_t weight = prefix(index + 1) - prefix(index);
    total_ -= weight;
    for (std::size_t i = index + 1; i < tree_.size(); i += i & (~i + 1)) tree_[i] -= weight;
  }

  std::vector<std::uint64_t> tree_;  // 1-based
  std::uint64_t total_ = 0;
};

std::vector<ClientId> draw_by_examples(const std::vector<Candidate>& pool, std::size_t count,
                                       RandomStream random) {
  WeightedUrn urn(pool);
  std::vector<ClientId> drawn;
  drawn.reserve(count);
  for (std::size_t i = 0; i < count; ++i) drawn.push_back(pool[urn.draw(random)].client);
  return drawn;
}

std::vector<ClientId> draw_poisson(const std::vector<Candidate>& pool, double rate,
                                   RandomStream random) {
  std::vector<ClientId> drawn;
  for (const Candidate& candidate : pool) {
    if (random.uniform() < rate) drawn.push_back(candidate.client);
  }
  return drawn;
}

/// Those who were least often available come first; among equals the draw decides. Rounds are
/// counted, and not seconds, so that a fleet which is always there is drawn uniformly.
std::vector<ClientId> draw_by_availability(std::vector<Candidate> pool, std::size_t count,
                                           const SelectionDraw& draw, RandomStream random) {
  COVEY_ASSERT(draw.history != nullptr);
  random.shuffle(std::span(pool));
  std::vector<std::pair<std::uint32_t, ClientId>> ranked;
  ranked.reserve(pool.size());
  for (const Candidate& candidate : pool) {
    ranked.emplace_back(draw.history->rounds_available(candidate.client, draw.round),
                        candidate.client);
  }
  std::ranges::stable_sort(ranked, {}, &std::pair<std::uint32_t, ClientId>::first);
  std::vector<ClientId> drawn;
  drawn.reserve(count);
  for (std::size_t i = 0; i < count; ++i) drawn.push_back(ranked[i].second);
  return drawn;
}

/// Of those whose loss is known; 1 where none is.
double mean_loss(const std::vector<ClientId>& clients, const DeviceHistory& history) {
  double sum = 0;
  std::size_t known = 0;
  for (const ClientId client : clients) {
    const DeviceRecord* record = history.find(client);
    if (record == nullptr || !record->has_loss()) continue;
    sum += double{record->train_loss};
    ++known;
  }
  return known > 0 ? sum / static_cast<double>(known) : 1;
}

/// Cho et al. 2022 (arXiv:2010.01243), section 5, pi_rpow-d: the candidates' losses are those of
/// their last participation, so nothing more is asked of them; who was never asked counts as
/// infinite. Missed tasks lower a loss; where none is known, that of the others in the mean. Ties
/// fall to who was drawn first.
std::vector<ClientId> draw_power_of_choice(const std::vector<Candidate>& pool, std::size_t count,
                                           const SelectionDraw& draw, RandomStream random) {
  COVEY_ASSERT(draw.history != nullptr);
  const std::size_t wanted = draw.candidates > 0 ? draw.candidates : 2 * count;
  const auto candidates = draw_by_examples(pool, std::clamp(wanted, count, pool.size()), random);
  const double mean = mean_loss(candidates, *draw.history);
  std::vector<std::pair<double, ClientId>> ranked;
  ranked.reserve(candidates.size());
  for (const ClientId client : candidates) {
    const DeviceRecord* record = draw.history->find(client);
    double loss = std::numeric_limits<double>::infinity();
    if (record != nullptr && record->tried()) {
      loss = record->discounted(record->has_loss() ? double{record->train_loss} : mean);
    }
    ranked.emplace_back(loss, client);
  }
  std::ranges::stable_sort(ranked, std::greater<>{}, &std::pair<double, ClientId>::first);
  std::vector<ClientId> drawn;
  drawn.reserve(count);
  for (std::size_t i = 0; i < count; ++i) drawn.push_back(ranked[i].second);
  return drawn;
}

}  // namespace

SelectionSizes selection_sizes(const SelectionConfig& config, std::uint32_t population) {
  std::size_t available = config.min_available_clients;
  if (available == 0) available = std::max<std::size_t>(population, 1);
  SelectionSizes sizes;
  // More than can wait never wait.
  sizes.start_at = std::min<std::size_t>(available, std::max<std::uint32_t>(config.max_waiting, 1));
  sizes.goal =
      std::max<std::size_t>(config.min_fit_clients, floor_product(config.fraction_fit, available));
  sizes.goal = std::clamp<std::size_t>(sizes.goal, 1, std::max<std::size_t>(available, population));
  sizes.quorum = std::max<std::size_t>(ceil_product(config.quorum, sizes.goal), 1);
  return sizes;
}

void start_with_cohort(SelectionSizes& sizes, double over_selection) {
  sizes.start_at = cohort_size(sizes.goal, over_selection, sizes.start_at);
}

std::size_t cohort_size(std::size_t goal, double over_selection, std::size_t pool) {
  return std::min(pool, std::max(goal, ceil_product(over_selection, goal)));
}

std::uint32_t largest_cohort(const SelectionConfig& config, std::uint32_t population) {
  const std::uint32_t everyone = std::max(population, config.min_available_clients);
  if (selection_policy(config.policy) == SelectionPolicy::kPoisson) return everyone;
  const SelectionSizes sizes = selection_sizes(config, population);
  return static_cast<std::uint32_t>(
      cohort_size(sizes.goal, config.over_selection, std::max<std::size_t>(everyone, sizes.goal)));
}

Result<void> check_participation_limits(const RunConfig& config, std::uint32_t population) {
  const SelectionConfig& selection = config.selection;
  const std::uint64_t goal = config.asynchronous.enabled()
                                 ? config.asynchronous.buffer
                                 : selection_sizes(selection, population).goal;
  const std::uint64_t apart = std::uint64_t{selection.min_rounds_between} + 1;
  if (selection.min_rounds_between > 0 && goal * apart > population) {
    return invalid_argument(
        fmt::format("selection.min-rounds-between = {} lets a device be in every {}th round, so "
                    "rounds of {} take "
                    "{} devices; there are {}",
                    selection.min_rounds_between, apart, goal, goal * apart, population));
  }
  const std::uint64_t limit = selection.max_participations;
  if (limit > 0 && goal * config.num_rounds > limit * population) {
    return invalid_argument(
        fmt::format("selection.max-participations = {} lets {} devices make {} contributions; {} "
                    "rounds of {} take "
                    "more",
                    limit, population, limit * population, config.num_rounds, goal));
  }
  return {};
}

SelectionPolicy selection_policy(std::string_view name) {
  if (name == "by-examples") return SelectionPolicy::kByExamples;
  if (name == "poisson") return SelectionPolicy::kPoisson;
  if (name == "by-availability") return SelectionPolicy::kByAvailability;
  if (name == "oort") return SelectionPolicy::kOort;
  if (name == "power-of-choice") return SelectionPolicy::kPowerOfChoice;
  COVEY_ASSERT(name == "uniform");
  return SelectionPolicy::kUniform;
}

bool needs_history(SelectionPolicy policy) {
  return policy == SelectionPolicy::kByAvailability || policy == SelectionPolicy::kOort ||
         policy == SelectionPolicy::kPowerOfChoice;
}

std::vector<ClientId> draw_cohort(std::vector<Candidate> pool, std::size_t count,
                                  const SelectionDraw& draw) {
  COVEY_ASSERT(count <= pool.size());
  sort_by_client(pool);
  RandomStream random(draw.seed, RandomPurpose::kSelection, draw.round,
                      static_cast<ClientId>(draw.attempt));
  std::vector<ClientId> drawn;
  switch (draw.policy) {
    case SelectionPolicy::kUniform:
      drawn = draw_uniform(std::move(pool), count, random);
      break;
    case SelectionPolicy::kByExamples:
      drawn = draw_by_examples(pool, count, random);
      break;
    case SelectionPolicy::kPoisson:
      drawn = draw_poisson(pool, draw.rate, random);
      break;
    case SelectionPolicy::kByAvailability:
      drawn = draw_by_availability(std::move(pool), count, draw, random);
      break;
    case SelectionPolicy::kPowerOfChoice:
      drawn = draw_power_of_choice(pool, count, draw, random);
      break;
    case SelectionPolicy::kOort:
      COVEY_ASSERT(draw.history != nullptr && draw.oort != nullptr);
      drawn = draw.oort->draw(pool, count, draw.round, *draw.history, random);
      break;
  }
  std::ranges::sort(drawn);
  return drawn;
}

}  // namespace covey::server
