#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/random.hpp>

#include "attack.hpp"

// Who is Byzantine. Devices are put in an order that follows from the seed; the first of them are.
// The order is a permutation that can be computed for one device at a time, both ways: a Feistel
// network over the smallest square of a power of two that holds all devices, walked until it lands
// on one (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
namespace covey::simulation {
namespace {

constexpr std::uint32_t kFeistelRounds = 4;

class Order {
 public:
  Order(std::uint64_t seed, std::uint32_t size) : seed_(seed), size_(size) {
    const auto bits = static_cast<unsigned>(std::bit_width(size - 1));
    half_bits_ = std::max(1U, (bits + 1) / 2);
    mask_ = (1U << half_bits_) - 1;
  }

  std::uint32_t place_of(std::uint32_t device) const {
    std::uint64_t x = device;
    do {
      x = forward(x);
    } while (x >= size_);
    return static_cast<std::uint32_t>(x);
  }
  std::uint32_t at(std::uint32_t place) const {
    std::uint64_t x = place;
    do {
      x = backward(x);
    } while (x >= size_);
    return static_cast<std::uint32_t>(x);
  }

 private:
  std::uint32_t mix(std::uint32_t round, std::uint32_t half) const {
    // Numbers that are no round's, whose streams make noise.
    RandomStream random(seed_, RandomPurpose::kAttack, RoundNumber{UINT32_MAX - round},
                        static_cast<ClientId>(half));
    return random.next_u32() & mask_;
  }
  std::uint64_t forward(std::uint64_t x) const {
    auto left = static_cast<std::uint32_t>(x >> half_bits_);
    auto right = static_cast<std::uint32_t>(x) & mask_;
    for (std::uint32_t round = 0; round < kFeistelRounds; ++round) {
      const std::uint32_t next = left ^ mix(round, right);
      left = right;
      right = next;
    }
    return std::uint64_t{left} << half_bits_ | right;
  }
  std::uint64_t backward(std::uint64_t x) const {
    auto left = static_cast<std::uint32_t>(x >> half_bits_);
    auto right = static_cast<std::uint32_t>(x) & mask_;
    for (std::uint32_t round = kFeistelRounds; round-- > 0;) {
      const std::uint32_t before = right ^ mix(round, left);
      right = left;
      left = before;
    }
    return std::uint64_t{left} << half_bits_ | right;
  }

  std::uint64_t seed_;
  std::uint32_t size_;
  unsigned half_bits_ = 1;
  std::uint32_t mask_ = 1;
};

}  // namespace

std::uint32_t num_attackers(const AttackConfig& config, std::uint32_t population) {
  if (config.kind == "none" || config.share <= 0 || population == 0) return 0;
  const double share = std::round(config.share * population);
  return static_cast<std::uint32_t>(std::clamp<double>(share, 1, population));
}

bool is_attacker(const RunConfig& config, ClientId client, std::uint32_t population) {
  const std::uint32_t attackers = num_attackers(config.attack, population);
  if (attackers == 0 || value_of(client) >= population) return false;
  const Order order(config.seed, population);
  return order.place_of(static_cast<std::uint32_t>(value_of(client))) < attackers;
}

ClientId attacker(const RunConfig& config, std::uint32_t i, std::uint32_t population) {
  COVEY_ASSERT(i < num_attackers(config.attack, population));
  return static_cast<ClientId>(Order(config.seed, population).at(i));
}

}  // namespace covey::simulation
