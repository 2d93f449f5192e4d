#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/privacy/private_release.hpp>
#include <covey/privacy/samplers.hpp>
#include <utility>

#include "mechanisms/private_release_plan.hpp"
#include "mechanisms/sum_noise.hpp"

namespace covey::privacy {
namespace {

/// A generator that outlives the term it is handed to.
class BorrowedSecrets final : public SecretSource {
 public:
  explicit BorrowedSecrets(SecretSource& source) : source_(source) {}
  Result<void> fill(std::span<std::byte> bytes) override { return source_.fill(bytes); }

 private:
  SecretSource& source_;
};

/// 16 bits a float: every float of the state is a whole number that any copy keeps.
constexpr unsigned kWordBits = 16;
constexpr std::size_t kWordsOf64 = 64 / kWordBits;
constexpr std::size_t kSeedWords = 32 / 2;
/// The adaptive norm stays where its square and inverse are ordinary single-precision numbers.
constexpr double kLeastNorm = 1e-15, kLargestNorm = 1e15;

void put(std::vector<float>& floats, std::uint64_t value) {
  for (std::size_t i = 0; i < kWordsOf64; ++i) {
    floats.push_back(static_cast<float>(value >> (kWordBits * i) & 0xffff));
  }
}

std::uint64_t take(std::span<const float> floats) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kWordsOf64; ++i) {
    value |= static_cast<std::uint64_t>(floats[i]) << (kWordBits * i);
  }
  return value;
}

bool is_word(float value) { return value >= 0 && value <= 65535 && value == std::floor(value); }

DeviceNoise device_noise(Mechanism mechanism) {
  switch (mechanism) {
    case Mechanism::kLocalGaussian:
      return DeviceNoise::kGaussian;
    case Mechanism::kDiscreteGaussian:
      return DeviceNoise::kDiscreteGaussian;
    case Mechanism::kSkellam:
      return DeviceNoise::kSkellam;
    case Mechanism::kCentralGaussian:
    case Mechanism::kTree:
      break;
  }
  return DeviceNoise::kNone;
}

}  // namespace

struct PrivateRelease::State {
  State(ReleasePlan release_plan, EpsilonMeter epsilon_meter)
      : plan(std::move(release_plan)),
        meter(std::move(epsilon_meter)),
        clip_norm(plan.clip_norm),
        releases(plan.releases) {}

  void count(std::uint64_t rounds);
  Result<void> add_server_noise(std::span<double> sum, SecretSource& secrets,
                                const Secret<32>& tree_seed) const;
  Result<double> next_clip_norm(double unclipped, SecretSource& secrets) const;

  ReleasePlan plan;
  EpsilonMeter meter;
  double clip_norm = 0;  ///< S, of the round to come
  Releases releases;
  PrivacySpent spent;
  Secret<32> seed;  ///< of the tree; drawn with the first release
};

void PrivateRelease::State::count(std::uint64_t rounds) {
  const bool follows = rounds == releases.rounds + 1;
  spent.epsilon = follows ? spent.epsilon_next : meter.epsilon_after(rounds);
  spent.epsilon_next = meter.epsilon_after(rounds + 1);
  spent.delta = plan.delta;
  releases.rounds = rounds;
}

Result<void> PrivateRelease::State::add_server_noise(std::span<double> sum, SecretSource& secrets,
                                                     const Secret<32>& tree_seed) const {
  const NoiseScale scale{plan.vector_noise, clip_norm + plan.rounding_slack};
  if (plan.mechanism == Mechanism::kTree) {
    return add_noise(sum, scale, tree_step(tree_seed, releases.rounds + 1));
  }
  if (plan.mechanism != Mechanism::kCentralGaussian) return {};
  std::vector<NoiseTerm> terms;
  terms.push_back({std::make_unique<BorrowedSecrets>(secrets), false});
  return add_noise(sum, scale, std::move(terms));
}

// Andrew et al. 2021, Algorithm 1: C <- C exp(-eta (b - gamma)), b the noised fraction of devices
// whose norm was within C. The sum of +-1/2 keeps a device's part of it, and of a fixed
// denominator, at 1/2.
Result<double> PrivateRelease::State::next_clip_norm(double unclipped,
                                                     SecretSource& secrets) const {
  NoiseSampler sampler(secrets);
  const double noised = unclipped + sampler.gaussian(plan.count_noise);
  COVEY_TRY(sampler.status());
  const double fraction = 0.5 + noised / plan.denominator;
  const double next =
      clip_norm * std::exp(-plan.clip_learning_rate * (fraction - plan.target_quantile));
  return std::clamp(next, kLeastNorm, kLargestNorm);
}

Result<std::optional<PrivateRelease>> PrivateRelease::make(const Run& run) {
  COVEY_ASSIGN(auto plan, plan_release(run));
  if (!plan) return std::optional<PrivateRelease>();
  COVEY_ASSIGN(auto meter, EpsilonMeter::make(plan->releases, plan->accountant, plan->delta));
  auto state = std::make_unique<State>(std::move(*plan), std::move(meter));
  state->count(0);
  return std::optional(PrivateRelease(std::move(state)));
}

PrivateRelease::PrivateRelease(std::unique_ptr<State> state) : state_(std::move(state)) {}
PrivateRelease::PrivateRelease(PrivateRelease&&) noexcept = default;
PrivateRelease& PrivateRelease::operator=(PrivateRelease&&) noexcept = default;
PrivateRelease::~PrivateRelease() = default;

PrivacyPlan PrivateRelease::device_plan() const {
  PrivacyPlan device;
  device.clip = state_->plan.clip;
  device.clip_norm = state_->clip_norm;
  device.noise = device_noise(state_->plan.mechanism);
  if (device.noise == DeviceNoise::kNone) return device;
  device.noise_stddev = state_->releases.noise_multiplier * state_->clip_norm;
  if (device.noise != DeviceNoise::kGaussian) {
    // So that already the fewest that may make up a sum bring z S together.
    device.noise_stddev /= std::sqrt(state_->plan.noisy_devices);
  }
  return device;
}

double PrivateRelease::denominator() const { return state_->plan.denominator; }
double PrivateRelease::noise_multiplier() const { return state_->releases.noise_multiplier; }
const Releases& PrivateRelease::releases() const { return state_->releases; }
std::string PrivateRelease::guarantee() const { return state_->plan.guarantee; }
PrivacySpent PrivateRelease::spent() const { return state_->spent; }

bool PrivateRelease::budget_allows_another() const {
  return state_->plan.budget == 0 || state_->spent.epsilon_next <= state_->plan.budget;
}

Result<void> PrivateRelease::release(std::span<double> sum, double unclipped,
                                     SecretSource& secrets) {
  State& state = *state_;
  if (sum.size() != state.plan.dimension) {
    return invalid_argument(
        fmt::format("a sum of {} coordinates cannot be released for a model of {}", sum.size(),
                    state.plan.dimension));
  }
  Secret<32> seed = state.seed;
  if (state.plan.mechanism == Mechanism::kTree && state.releases.rounds == 0) {
    COVEY_TRY(secrets.fill(seed.span()));
  }
  COVEY_TRY(state.add_server_noise(sum, secrets, seed));
  double next_norm = state.clip_norm;
  if (state.plan.clip == ClipKind::kAdaptive) {
    COVEY_ASSIGN(next_norm, state.next_clip_norm(unclipped, secrets));
  }
  state.seed = seed;
  state.clip_norm = next_norm;
  state.count(state.releases.rounds + 1);
  return {};
}

std::size_t PrivateRelease::state_size() const {
  return 2 * kWordsOf64 + (state_->plan.mechanism == Mechanism::kTree ? kSeedWords : 0);
}

std::vector<float> PrivateRelease::state() const {
  std::vector<float> floats;
  put(floats, state_->releases.rounds);
  put(floats, std::bit_cast<std::uint64_t>(state_->clip_norm));
  if (state_->plan.mechanism == Mechanism::kTree) {
    const std::uint8_t* bytes = state_->seed.data();
    for (std::size_t i = 0; i < 2 * kSeedWords; i += 2) {
      floats.push_back(static_cast<float>(bytes[i] | bytes[i + 1] << 8));
    }
  }
  COVEY_ASSERT(floats.size() == state_size());
  return floats;
}

Result<void> PrivateRelease::restore(std::span<const float> floats) {
  if (floats.size() != state_size() || !std::ranges::all_of(floats, is_word)) {
    return malformed("the stored state of differential privacy is not one of this mechanism");
  }
  const std::uint64_t rounds = take(floats);
  const double clip_norm = std::bit_cast<double>(take(floats.subspan(kWordsOf64)));
  constexpr std::uint64_t kMostRounds = 999'999'999;
  if (rounds > kMostRounds || !(clip_norm > 0) || !std::isfinite(clip_norm)) {
    return malformed(
        fmt::format("the stored state of differential privacy says {} rounds and a clip norm of {}",
                    rounds, clip_norm));
  }
  if (state_->plan.mechanism == Mechanism::kTree) {
    const auto words = floats.subspan(2 * kWordsOf64);
    for (std::size_t i = 0; i < kSeedWords; ++i) {
      const auto word = static_cast<unsigned>(words[i]);
      state_->seed.data()[2 * i] = static_cast<std::uint8_t>(word & 0xff);
      state_->seed.data()[2 * i + 1] = static_cast<std::uint8_t>(word >> 8);
    }
  }
  state_->clip_norm = clip_norm;
  state_->count(rounds);
  return {};
}

}  // namespace covey::privacy
