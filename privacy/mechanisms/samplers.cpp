#include <cmath>
#include <covey/assert.hpp>
#include <covey/privacy/samplers.hpp>
#include <optional>

#include "mechanisms/samplers_bits.hpp"
#include "mechanisms/samplers_gaussian.hpp"
#include "mechanisms/samplers_skellam.hpp"

namespace covey::privacy {

void SecretBits::refill() {
  if (status_.ok()) status_ = source_.fill(std::as_writable_bytes(std::span(words_)));
  if (!status_.ok()) {
    // Nothing may be made of these; they only let every rejection loop end (SplitMix64).
    for (auto& word : words_) {
      worthless_ += 0x9E3779B97F4A7C15;
      word = (worthless_ ^ (worthless_ >> 30)) * 0xBF58476D1CE4E5B9;
      word = (word ^ (word >> 27)) * 0x94D049BB133111EB;
      word ^= word >> 31;
    }
  }
  next_ = 0;
}

/// The bits, and what the last parameters were prepared for.
struct NoiseSampler::State {
  explicit State(SecretSource& secrets) : bits(secrets) {}

  const DiscreteGaussian& gaussian_of(double wanted) {
    if (!gaussian || sigma != wanted) {
      gaussian.emplace(wanted);
      sigma = wanted;
    }
    return *gaussian;
  }
  void prepare_skellam(double wanted) {
    if (mu == wanted) return;
    table.reset();
    poisson.reset();
    if (wanted <= SkellamTable::kMaxVariance) {
      table.emplace(wanted);
    } else {
      poisson.emplace(wanted / 2);
    }
    mu = wanted;
  }
  std::int64_t skellam() {
    if (table) return table->draw(bits);
    const std::int64_t first = poisson->draw(bits);
    return first - poisson->draw(bits);
  }

  SecretBits bits;
  double sigma = 0;
  std::optional<DiscreteGaussian> gaussian;
  double mu = 0;
  std::optional<SkellamTable> table;
  std::optional<PoissonSampler> poisson;
};

NoiseSampler::NoiseSampler(SecretSource& secrets) : state_(std::make_unique<State>(secrets)) {}
NoiseSampler::~NoiseSampler() = default;

std::int64_t NoiseSampler::discrete_gaussian(double sigma) {
  return state_->gaussian_of(sigma).draw(state_->bits);
}

void NoiseSampler::discrete_gaussian(double sigma, std::span<std::int64_t> out) {
  const DiscreteGaussian& sampler = state_->gaussian_of(sigma);
  for (auto& x : out) x = sampler.draw(state_->bits);
}

std::int64_t NoiseSampler::skellam(double mu) {
  state_->prepare_skellam(mu);
  return state_->skellam();
}

void NoiseSampler::skellam(double mu, std::span<std::int64_t> out) {
  state_->prepare_skellam(mu);
  for (auto& x : out) x = state_->skellam();
}

double NoiseSampler::gaussian(double sigma) { return add_gaussian(0, sigma); }

// sigma = f 2^e with f in [1/2, 1): on the lattice 2^(e - 21) it is in [2^20, 2^21) steps. A draw
// is below 2^41 steps, so a sum below 2^52 is exact; a larger one is rounded, which is a function
// of the exact sum and tells no more than it.
double NoiseSampler::add_gaussian(double value, double sigma) {
  COVEY_ASSERT(sigma > 0 && std::isfinite(sigma));
  int exponent = 0;
  const double steps = std::ldexp(std::frexp(sigma, &exponent), 21);
  const double on_lattice = std::nearbyint(std::ldexp(value, 21 - exponent));
  return std::ldexp(on_lattice + static_cast<double>(discrete_gaussian(steps)), exponent - 21);
}

Result<void> NoiseSampler::status() const { return state_->bits.status(); }

}  // namespace covey::privacy
