#include <covey/random.hpp>

#include <cmath>
#include <numbers>

#include <covey/assert.hpp>

namespace covey {
namespace {

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
constexpr std::uint32_t kMultiplier0 = 0xD2511F53;
constexpr std::uint32_t kMultiplier1 = 0xCD9E8D57;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
constexpr std::uint32_t kWeyl1 = 0xBB67AE85;

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c, std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = static_cast<std::uint64_t>(kMultiplier0) * c[0];
    const std::uint64_t p1 = static_cast<std::uint64_t>(kMultiplier1) * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
    k[0] += kWeyl0;
    k[1] += kWeyl1;
  }
  return c;
}

std::array<std::uint32_t, 2> halves(std::uint64_t x) {
  return {static_cast<std::uint32_t>(x), static_cast<std::uint32_t>(x >> 32)};
}

}  // namespace

RandomStream::RandomStream(std::uint64_t seed, RandomPurpose purpose, RoundNumber round,
                           ClientId client) {
  // The stream's 64-bit key is a Philox output itself, so that any two names give unrelated streams;
  // the counter keeps the client, so streams of one purpose and round cannot meet at all.
  const auto id = halves(value_of(client));
  const auto mixed = philox(
      {static_cast<std::uint32_t>(purpose), value_of(round), 0x436f7665u /* "Cove" */, 0}, halves(seed));
  key_ = {mixed[0], mixed[1]};
  counter_ = {0, 0, id[0], id[1]};
}

void RandomStream::refill() {
  block_ = philox(counter_, key_);
  used_ = 0;
  if (++counter_[0] == 0) ++counter_[1];
}

std::uint64_t RandomStream::below(std::uint64_t bound) {
  COVEY_ASSERT(bound > 0);
  // Lemire 2019, "Fast random integer generation in an interval", in 32 bits where that is enough.
  if (bound <= UINT32_MAX) {
    const auto limit = static_cast<std::uint32_t>(bound);
    std::uint64_t product = static_cast<std::uint64_t>(next_u32()) * limit;
    if (static_cast<std::uint32_t>(product) < limit) {
      const std::uint32_t threshold = (0u - limit) % limit;
      while (static_cast<std::uint32_t>(product) < threshold) {
        product = static_cast<std::uint64_t>(next_u32()) * limit;
      }
    }
    return product >> 32;
  }
  const std::uint64_t threshold = (0 - bound) % bound;
  for (;;) {
    const std::uint64_t draw = next_u64();
    if (draw >= threshold) return draw % bound;
  }
}

double RandomStream::normal() {
  if (has_spare_normal_) {
    has_spare_normal_ = false;
    return spare_normal_;
  }
  const double radius = std::sqrt(-2 * std::log1p(-uniform()));  // 1 - u is in (0, 1]
  const double angle = 2 * std::numbers::pi * uniform();
  spare_normal_ = radius * std::sin(angle);
  has_spare_normal_ = true;
  return radius * std::cos(angle);
}

double RandomStream::log_normal(double mean, double standard_deviation) {
  return std::exp(normal(mean, standard_deviation));
}

double RandomStream::gamma(double shape) {
  COVEY_ASSERT(shape > 0);
  if (shape < 1) {  // boosting: Marsaglia and Tsang 2000, section 6
    const double boost = std::pow(1 - uniform(), 1 / shape);
    return gamma(shape + 1) * boost;
  }
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = normal();
    const double v = std::pow(1 + c * x, 3);
    if (v <= 0) continue;
    const double u = 1 - uniform();
    if (std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

double RandomStream::exponential() { return -std::log1p(-uniform()); }

}  // namespace covey
