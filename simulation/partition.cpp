#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/random.hpp>
#include <covey/simulation/partition.hpp>
#include <cstddef>
#include <numeric>
#include <queue>
#include <span>
#include <string>
#include <utility>

namespace covey::simulation {
namespace {

using Indices = std::vector<std::uint32_t>;

// Sub-streams of one partition, told apart by the stream's round; Dirichlet draws use the rounds
// from kFirstDirichletDraw on, one an attempt.
constexpr RoundNumber kTrainDraws{1};
constexpr RoundNumber kTestDraws{2};
constexpr std::uint32_t kFirstDirichletDraw = 16;
// Small concentrations often leave a device empty; so many draws are tried before giving up.
constexpr std::uint32_t kMaxDirichletDraws = 100;
// Larger ones are equal parts, and one device with everything: nothing new, but sums that overflow.
constexpr double kMaxConcentration = 1e6;
constexpr double kMaxExponent = 100;

RandomStream stream(std::uint64_t seed, RoundNumber draws) {
  return RandomStream(seed, RandomPurpose::kPartition, draws);
}

Indices all_indices(std::size_t count) {
  Indices indices(count);
  std::iota(indices.begin(), indices.end(), 0u);
  return indices;
}

Indices shuffled_indices(std::size_t count, RandomStream random) {
  Indices indices = all_indices(count);
  random.shuffle(std::span(indices));
  return indices;
}

void append(std::span<const std::uint32_t> from, Indices& to) {
  to.insert(to.end(), from.begin(), from.end());
}

/// Part `i` of `parts` parts of nearly equal size, which together are the whole.
std::span<const std::uint32_t> equal_part(std::span<const std::uint32_t> items, std::size_t i,
                                          std::size_t parts) {
  const std::size_t first = items.size() * i / parts;
  return items.subspan(first, items.size() * (i + 1) / parts - first);
}

/// Indices of each class's examples, in random order.
std::vector<Indices> shuffled_by_class(const models::DataSet& data, RandomStream random) {
  std::vector<Indices> classes(data.classes());
  const auto labels = data.labels();
  for (std::uint32_t i = 0; i < labels.size(); ++i) {
    classes[static_cast<std::size_t>(labels[i])].push_back(i);
  }
  for (Indices& members : classes) random.shuffle(std::span(members));
  return classes;
}

std::vector<Indices> split_iid(const models::DataSet& data, std::size_t clients,
                               RandomStream random) {
  const Indices order = shuffled_indices(data.size(), random);
  std::vector<Indices> parts(clients);
  for (std::size_t k = 0; k < clients; ++k) append(equal_part(order, k, clients), parts[k]);
  return parts;
}

/// McMahan et al. 2017, section 3: sort by label, cut into clients * shards_per_client shards,
/// deal.
std::vector<Indices> split_shards(const models::DataSet& data, const PartitionConfig& config,
                                  RandomStream random) {
  Indices sorted = all_indices(data.size());
  const auto labels = data.labels();
  std::ranges::stable_sort(sorted, {}, [&](std::uint32_t i) { return labels[i]; });
  const std::size_t num_shards =
      static_cast<std::size_t>(config.clients) * config.shards_per_client;
  const Indices deal = shuffled_indices(num_shards, random);
  std::vector<Indices> parts(config.clients);
  for (std::size_t i = 0; i < num_shards; ++i) {
    append(equal_part(sorted, deal[i], num_shards), parts[i / config.shards_per_client]);
  }
  return parts;
}

/// Dirichlet(concentration) over `count` devices, as its running sums ending in 1.
std::vector<double> dirichlet_boundaries(std::size_t count, double concentration,
                                         RandomStream& random) {
  std::vector<double> sums(count);
  double sum = 0;
  for (double& s : sums) s = sum += random.gamma(concentration);
  if (sum <= 0) {
    // Every gamma underflowed: the limit of small concentrations, where one device has it all.
    const std::size_t owner = random.below(count);
    for (std::size_t k = 0; k < count; ++k) sums[k] = k >= owner ? 1 : 0;
    return sums;
  }
  for (double& s : sums) s /= sum;
  return sums;
}

/// Each class divided by its own Dirichlet draw (Hsu et al. 2019 in the form of Yurochkin 2019).
std::vector<Indices> split_dirichlet(const models::DataSet& data, const PartitionConfig& config,
                                     RandomStream random) {
  std::vector<Indices> parts(config.clients);
  for (const Indices& members : shuffled_by_class(data, random)) {
    const auto boundaries = dirichlet_boundaries(config.clients, config.concentration, random);
    std::size_t first = 0;
    for (std::size_t k = 0; k < parts.size(); ++k) {
      const auto end =
          static_cast<std::size_t>(boundaries[k] * static_cast<double>(members.size()) + 0.5);
      const std::size_t last = k + 1 == parts.size() ? members.size() : std::max(first, end);
      append(std::span(members).subspan(first, last - first), parts[k]);
      first = last;
    }
  }
  return parts;
}

/// Sizes in proportion to rank^-exponent, which sum to `total`; at least 1 where there are enough.
std::vector<std::size_t> power_law_sizes(std::size_t total, const PartitionConfig& config) {
  std::vector<double> weights(config.clients);
  for (std::size_t k = 0; k < weights.size(); ++k) {
    weights[k] = std::pow(static_cast<double>(k + 1), -config.exponent);
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::size_t> sizes(config.clients);
  std::size_t given = 0;
  const std::size_t least = total >= sizes.size() ? 1 : 0;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    const double share = static_cast<double>(total) * weights[k] / sum;
    sizes[k] = std::max(least, static_cast<std::size_t>(share));
    given += sizes[k];
  }
  // Rounding left less than one example a device over; the floor of 1 may have given too many out.
  for (std::size_t k = 0; given < total; k = (k + 1) % sizes.size()) {
    ++sizes[k];
    ++given;
  }
  for (std::size_t k = 0; given > total; --given) {
    --sizes[k];  // from the large ones in turn; sizes do not rise with the rank
    k = k + 1 < sizes.size() && sizes[k + 1] > 1 ? k + 1 : 0;
  }
  return sizes;
}

std::vector<Indices> split_power_law(const models::DataSet& data, const PartitionConfig& config,
                                     RandomStream random) {
  const Indices order = shuffled_indices(data.size(), random);
  std::vector<Indices> parts;
  std::size_t first = 0;
  for (const std::size_t size : power_law_sizes(data.size(), config)) {
    const auto part = std::span(order).subspan(first, size);
    parts.emplace_back(part.begin(), part.end());
    first += size;
  }
  return parts;
}

bool has_empty(const std::vector<Indices>& parts) {
  return std::ranges::any_of(parts, [](const Indices& part) { return part.empty(); });
}

Result<std::vector<Indices>> split_train(const models::DataSet& train,
                                         const PartitionConfig& config, std::uint64_t seed) {
  const RandomStream random = stream(seed, kTrainDraws);
  if (config.scheme == "iid") return split_iid(train, config.clients, random);
  if (config.scheme == "shards") return split_shards(train, config, random);
  if (config.scheme == "power-law") return split_power_law(train, config, random);
  if (config.scheme != "dirichlet") {
    return invalid_argument(
        fmt::format("partition.scheme \"{}\" is unknown; there are iid, shards, dirichlet, "
                    "power-law, natural",
                    config.scheme));
  }
  const std::uint32_t draws = config.empty == "refuse" ? kMaxDirichletDraws : 1;
  for (std::uint32_t draw = 0; draw < draws; ++draw) {
    auto parts =
        split_dirichlet(train, config, stream(seed, RoundNumber{kFirstDirichletDraw + draw}));
    if (draws == 1 || !has_empty(parts)) return parts;
  }
  return invalid_argument(
      fmt::format("partition.concentration = {} left one of {} devices without an example in {} "
                  "draws; raise it, lower partition.clients, or set partition.empty = \"keep\" or "
                  "\"move\"",
                  config.concentration, config.clients, kMaxDirichletDraws));
}

/// Divides each class's test examples in proportion to the devices' training examples of the class,
/// so that a device is tested on what it trains on and every test example is used once (those of a
/// class nobody trains on are left out).
void assign_test_by_label(const models::FederatedData& data, std::uint64_t seed,
                          std::vector<models::Shard>& shards) {
  const auto train_labels = data.train.labels();
  std::vector<std::size_t> class_sizes(data.train.classes());
  for (const std::int32_t label : train_labels) ++class_sizes[static_cast<std::size_t>(label)];
  const auto test_classes = shuffled_by_class(data.test, stream(seed, kTestDraws));
  // Training examples of each class that earlier devices hold.
  std::vector<std::size_t> before(class_sizes.size());
  std::vector<std::size_t> counts(class_sizes.size());
  for (models::Shard& shard : shards) {
    std::ranges::fill(counts, 0);
    for (const std::uint32_t i : shard.train) ++counts[static_cast<std::size_t>(train_labels[i])];
    for (std::size_t c = 0; c < counts.size() && c < test_classes.size(); ++c) {
      if (counts[c] == 0) continue;
      const Indices& members = test_classes[c];
      const std::size_t first = members.size() * before[c] / class_sizes[c];
      before[c] += counts[c];
      const std::size_t last = members.size() * before[c] / class_sizes[c];
      append(std::span(members).subspan(first, last - first), shard.test);
    }
  }
}

/// Where examples have no one label: parts of the test set in proportion to the devices' training
/// examples.
void assign_test_by_size(const models::FederatedData& data, std::uint64_t seed,
                         std::vector<models::Shard>& shards) {
  const Indices order = shuffled_indices(data.test.size(), stream(seed, kTestDraws));
  std::size_t before = 0;  // training examples that earlier devices hold
  for (models::Shard& shard : shards) {
    const std::size_t first = order.size() * before / data.train.size();
    before += shard.train.size();
    const std::size_t last = order.size() * before / data.train.size();
    append(std::span(order).subspan(first, last - first), shard.test);
  }
}

/// Gives each empty device the last example of the device that has most (the first such one).
Result<void> fill_empty(std::vector<models::Shard>& shards) {
  using Holder = std::pair<std::size_t, std::size_t>;  // examples, and the complement of the device
  std::priority_queue<Holder> holders;
  for (std::size_t k = 0; k < shards.size(); ++k) holders.emplace(shards[k].train.size(), ~k);
  for (models::Shard& shard : shards) {
    if (!shard.train.empty()) continue;
    const auto [size, complement] = holders.top();
    if (size < 2) {
      return invalid_argument(fmt::format(
          "partition.empty = \"move\": there are fewer training examples than devices ({})",
          shards.size()));
    }
    holders.pop();
    models::Shard& largest = shards[~complement];
    shard.train.push_back(largest.train.back());
    largest.train.pop_back();
    holders.emplace(size - 1, complement);
  }
  return {};
}

Result<std::vector<models::Shard>> natural_shards(const models::FederatedData& data,
                                                  const PartitionConfig& config) {
  const std::size_t owners = data.owners.size();
  if (owners == 0) {
    return invalid_argument("partition.scheme \"natural\": the data does not say who owns what");
  }
  if (config.clients > owners) {
    return invalid_argument(
        fmt::format("partition.clients = {}, but the data has {} owners; 0 takes them all",
                    config.clients, owners));
  }
  const std::size_t count = config.clients == 0 ? owners : config.clients;
  std::vector<models::Shard> shards(data.owners.begin(),
                                    data.owners.begin() + static_cast<std::ptrdiff_t>(count));
  const auto empty =
      std::ranges::find_if(shards, [](const auto& shard) { return shard.train.empty(); });
  if (empty == shards.end() || config.empty != "refuse") return shards;
  const auto owner = static_cast<std::size_t>(empty - shards.begin());
  return invalid_argument(fmt::format(
      "partition.scheme \"natural\": owner \"{}\" has no training example (partition.empty = "
      "\"keep\" leaves such owners out, \"move\" gives them one)",
      owner < data.owner_names.size() ? data.owner_names[owner] : std::to_string(owner)));
}

/// Every device must have an example, and every shard as well, unless config.empty lets them be
/// empty.
Result<void> check_config(std::size_t examples, const PartitionConfig& config) {
  if (config.clients == 0) {
    return invalid_argument(fmt::format(
        "partition.clients = 0: the {} partition needs a number of devices", config.scheme));
  }
  if (config.scheme == "dirichlet" &&
      !(config.concentration > 0 && config.concentration <= kMaxConcentration)) {
    return invalid_argument(fmt::format("partition.concentration = {} is not in (0, {}]",
                                        config.concentration, kMaxConcentration));
  }
  if (config.scheme == "power-law" && !(config.exponent >= 0 && config.exponent <= kMaxExponent)) {
    return invalid_argument(
        fmt::format("partition.exponent = {} is not in [0, {}]", config.exponent, kMaxExponent));
  }
  const bool shards = config.scheme == "shards";
  const std::uint64_t parts =
      static_cast<std::uint64_t>(config.clients) * (shards ? config.shards_per_client : 1);
  if (parts > 0 && (parts <= examples || (config.empty == "keep" && examples > 0))) return {};
  if (config.empty == "move" && config.clients <= examples) return {};
  return invalid_argument(fmt::format("partition \"{}\": {} training examples do not fill {} {}",
                                      config.scheme, examples, parts,
                                      shards ? fmt::format("shards ({} clients, {} shards each)",
                                                           config.clients, config.shards_per_client)
                                             : "devices"));
}

}  // namespace

Result<std::vector<models::Shard>> partition(const models::FederatedData& data,
                                             const PartitionConfig& config, std::uint64_t seed) {
  if (config.scheme == "natural") {
    COVEY_ASSIGN(auto shards, natural_shards(data, config));
    if (config.empty == "move") COVEY_TRY(fill_empty(shards));
    return shards;
  }
  const bool sequences = data.train.labels_per_example() > 1;
  if (sequences && (config.scheme == "shards" || config.scheme == "dirichlet")) {
    return invalid_argument(
        fmt::format("partition.scheme \"{}\" divides examples by their label; sequences have one "
                    "for each step (iid, power-law and natural work)",
                    config.scheme));
  }
  COVEY_TRY(check_config(data.train.size(), config));
  COVEY_ASSIGN(std::vector<Indices> parts, split_train(data.train, config, seed));
  std::vector<models::Shard> shards(parts.size());
  for (std::size_t k = 0; k < parts.size(); ++k) shards[k].train = std::move(parts[k]);
  if (config.empty == "move") COVEY_TRY(fill_empty(shards));
  if (config.scheme == "iid") {
    auto test = split_iid(data.test, config.clients, stream(seed, kTestDraws));
    for (std::size_t k = 0; k < test.size(); ++k) shards[k].test = std::move(test[k]);
  } else if (sequences) {
    assign_test_by_size(data, seed, shards);
  } else {
    assign_test_by_label(data, seed, shards);
  }
  return shards;
}

}  // namespace covey::simulation
