#include "secagg/unmask.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <covey/privacy/mask.hpp>
#include <map>
#include <optional>
#include <span>

#include "secagg/bindings.hpp"
#include "secagg/keys.hpp"
#include "secagg/parallel.hpp"

namespace covey::privacy {
namespace {

using Target = UnmaskJob::State::Target;

// A dealer whose shares lie on no polynomial: so many other sets of t shares are tried before it is
// blamed.
constexpr std::size_t kMaxOtherSets = 32;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Targets whose first t shares lie at the same points: one set of Lagrange coefficients for all.
struct Groups {
  std::vector<std::span<const std::uint32_t>> points;
  std::vector<std::size_t> group_of;  ///< by target
  std::vector<std::optional<Reconstruction>> coefficients;
};

class Unmasking {
 public:
  Unmasking(const UnmaskJob::State& state, unsigned threads)
      : state_(state), threads_(std::max(threads, 1U)), secrets_(state.targets.size()) {}

  /// The secret of every target. Error: the first one that cannot be had; `culprit` is its dealer.
  Result<void> reconstruct(std::optional<ClientId>* culprit) {
    const Groups groups = group();
    std::atomic<std::size_t> first_bad{secrets_.size()};
    parallel_for(threads_, secrets_.size(), 4, [&](std::size_t i) {
      if (!reconstruct_one(i, *groups.coefficients[groups.group_of[i]])) {
        std::size_t seen = first_bad.load();
        while (i < seen && !first_bad.compare_exchange_weak(seen, i)) {
        }
      }
    });
    const std::size_t bad = first_bad.load();
    if (bad == secrets_.size()) return {};
    const auto& target = state_.targets[bad];
    const ClientId dealer = state_.devices[target.position].client;
    if (culprit != nullptr) *culprit = dealer;
    return failed(
        fmt::format("device {} dealt shares of its {} that do not make what it "
                    "committed to; "
                    "the sum is lost",
                    value_of(dealer), target.self_seed ? "self mask's seed" : "mask key"));
  }

  /// All masks that are still in the sum: each survivor's own, and those between a dropped device
  /// and its surviving peers.
  Result<std::vector<MaskKey>> masks(std::uint64_t& agreements) const {
    std::vector<Pending> pending;
    for (std::size_t i = 0; i < state_.targets.size(); ++i) {
      if (state_.targets[i].self_seed) pending.push_back({i, state_.targets[i].position});
      for (const std::uint32_t peer : state_.targets[i].peers) pending.push_back({i, peer});
    }
    std::vector<MaskKey> keys(pending.size());
    std::atomic<std::size_t> failures{0};
    parallel_for(threads_, pending.size(), 8, [&](std::size_t i) {
      if (!mask_key(pending[i], keys[i])) failures.fetch_add(1);
    });
    agreements = static_cast<std::uint64_t>(
        std::count_if(pending.begin(), pending.end(),
                      [&](const Pending& p) { return !state_.targets[p.target].self_seed; }));
    if (failures.load() > 0) {
      return failed(fmt::format("{} key agreements failed", failures.load()));
    }
    return keys;
  }

 private:
  struct Pending {
    std::size_t target;
    std::uint32_t position;  ///< of the device on the mask's other side
  };

  Groups group() const {
    Groups groups;
    const auto less = [](std::span<const std::uint32_t> a, std::span<const std::uint32_t> b) {
      return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
    };
    std::map<std::span<const std::uint32_t>, std::size_t, decltype(less)> index(less);
    for (const Target& target : state_.targets) {
      const auto points = std::span((*state_.revealed)[target.position].points);
      const auto [at, is_new] = index.try_emplace(points.first(state_.threshold), index.size());
      if (is_new) groups.points.push_back(at->first);
      groups.group_of.push_back(at->second);
    }
    groups.coefficients.resize(groups.points.size());
    parallel_for(threads_, groups.points.size(), 1,
                 [&](std::size_t i) { groups.coefficients[i].emplace(groups.points[i]); });
    return groups;
  }

  bool is_right(const Target& target, const Secret<32>& secret) const {
    const auto& device = state_.devices[target.position];
    if (target.self_seed) {
      return seed_commitment(state_.context, device.client, secret) == device.self_seed;
    }
    const auto key = public_key_of(secret);
    return key.ok() && *key == device.mask_key;
  }

  bool combine(std::size_t i, const Reconstruction& coefficients,
               std::span<const ShareBytes* const> shares) {
    auto secret = coefficients.combine(shares);
    if (!secret.ok() || !is_right(state_.targets[i], *secret)) return false;
    secrets_[i] = *secret;
    return true;
  }

  bool reconstruct_one(std::size_t i, const Reconstruction& coefficients) {
    const auto& revealed = (*state_.revealed)[state_.targets[i].position];
    const std::size_t count = revealed.shares.size();
    const std::size_t threshold = state_.threshold;
    std::vector<const ShareBytes*> shares(threshold);
    for (std::size_t j = 0; j < threshold; ++j) shares[j] = &revealed.shares[j];
    if (combine(i, coefficients, shares)) return true;
    // The next t shares from another start, round and round.
    if (count == threshold) return false;
    std::vector<std::uint32_t> points(threshold);
    for (std::size_t start = 1; start < std::min(count, kMaxOtherSets + 1); ++start) {
      for (std::size_t j = 0; j < threshold; ++j) {
        points[j] = revealed.points[(start + j) % count];
        shares[j] = &revealed.shares[(start + j) % count];
      }
      if (combine(i, Reconstruction(points), shares)) return true;
    }
    return false;
  }

  bool mask_key(const Pending& pending, MaskKey& mask) const {
    const Target& target = state_.targets[pending.target];
    const auto& owner = state_.devices[target.position];
    if (target.self_seed) {
      mask.key = self_mask_key(secrets_[pending.target], state_.context, owner.client);
      mask.subtract = true;
      return true;
    }
    const auto& peer = state_.devices[pending.position];
    auto key = pair_mask_key(secrets_[pending.target], peer.mask_key, state_.context, owner.client,
                             peer.client);
    if (!key.ok()) return false;
    mask.key = *key;
    // The survivor added it if its id is the lower one.
    mask.subtract = peer.client < owner.client;
    return true;
  }

  const UnmaskJob::State& state_;
  unsigned threads_;
  std::vector<Secret<32>> secrets_;  ///< by target
};

}  // namespace

Result<UnmaskJob::Figures> UnmaskJob::run(const PackedFormat& format, std::span<std::uint64_t> sum,
                                          unsigned threads,
                                          std::optional<ClientId>* culprit) const {
  using Clock = std::chrono::steady_clock;
  if (culprit != nullptr) culprit->reset();
  if (sum.size() != format.words()) {
    return invalid_argument(
        fmt::format("unmasking: a sum of {} words, its format has {}", sum.size(), format.words()));
  }
  Figures figures;
  Unmasking unmasking(*state_, threads);
  auto start = Clock::now();
  COVEY_TRY(unmasking.reconstruct(culprit));
  figures.reconstruct_s = seconds_since(start);

  start = Clock::now();
  COVEY_ASSIGN(const auto masks, unmasking.masks(figures.key_agreements));
  figures.agree_s = seconds_since(start);

  start = Clock::now();
  COVEY_TRY(apply_masks(state_->cipher, format, masks, sum, std::max(threads, 1U)));
  figures.mask_s = seconds_since(start);
  figures.keystream_bytes = std::uint64_t{masks.size()} * format.bytes();
  return figures;
}

}  // namespace covey::privacy
