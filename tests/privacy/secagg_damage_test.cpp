// Random damage to what devices say: refused, or named, and a sum that is given out is right all
// the same.

#include <catch2/catch.hpp>

#include "secagg_world.hpp"

using namespace covey;
using namespace covey::privacy;
using namespace covey::privacy::testing;

namespace {

using Step = SecAggServer::Step;

class Damage {
 public:
  explicit Damage(std::uint64_t seed)
      : random_(seed, RandomPurpose::kFault, static_cast<RoundNumber>(4)) {}

  bool strikes() { return random_.below(4) == 0; }

  void spoil(ShareKeys& message) {
    auto& entry = message.shares[random_.below(message.shares.size())];
    switch (random_.below(8)) {
      case 0:
        return flip(message.self_seed.bytes);
      case 1:
        return flip(message.own_share);
      case 2:
        return flip(entry.self_seed);
      case 3:
        return flip(entry.mask_key);
      case 4:
        return resize(entry.ciphertext);
      case 5:
        return resize(message.shares);
      case 6:
        entry.peer = any_client();
        return;
      default:
        return flip(entry.ciphertext);
    }
  }

  void spoil(Unmask& message) {
    auto& entry = message.shares[random_.below(message.shares.size())];
    switch (random_.below(7)) {
      case 0:
        return resize(message.shares);
      case 1:
        return resize(entry.share);
      case 2:
        entry.owner = any_client();
        return;
      case 3:
        entry.self_seed = !entry.self_seed;
        return;
      case 4:
        message.unreadable.push_back(any_client());
        return;
      case 5:
        message.unreadable.push_back(entry.owner);
        message.shares.erase(message.shares.begin() + (&entry - message.shares.data()));
        return;
      default:
        return flip(entry.share);
    }
  }

  void spoil(ConfirmSurvivors& message) {
    if (random_.below(2) == 0) return flip(message.signature);
    flip(message.survivors.bytes);
  }

 private:
  template <typename Bytes>
  void flip(Bytes& bytes) {
    if (bytes.empty()) return;
    using Byte = std::remove_reference_t<decltype(bytes[0])>;
    bytes[random_.below(bytes.size())] ^= static_cast<Byte>(1U << random_.below(8));
  }
  template <typename List>
  void resize(List& list) {
    list.resize(random_.below(2 * list.size() + 2));
  }
  ClientId any_client() { return static_cast<ClientId>(random_.below(20)); }

  RandomStream random_;
};

/// The message, perhaps damaged; where that is refused, the true one.
template <typename Message>
void say(World& world, Damage& damage, ClientId client, const Message& truth) {
  if (damage.strikes()) {
    Message spoilt = truth;
    damage.spoil(spoilt);
    if (world.server->add(client, spoilt).ok()) return;
  }
  REQUIRE(world.server->add(client, truth).ok());
}

/// Whether a sum came out.
bool play(World& world, Damage& damage, const std::set<ClientId>& lost) {
  advertise_all(world);
  REQUIRE(world.server->close_step().ok());
  for (auto& [client, device] : world.devices) {
    say(world, damage, client, device.take(*world.server->neighbour_keys(client)).value());
  }
  REQUIRE(world.server->close_step().ok());
  REQUIRE(mask_all(world, lost).ok());
  REQUIRE(world.server->close_step().ok());
  if (world.malicious_server()) {
    for (const ClientId client : world.masked) {
      const auto answer = world.device(client).take(*world.server->survivor_set(client)).value();
      say(world, damage, client, std::get<ConfirmSurvivors>(answer));
    }
    REQUIRE(world.server->close_step().ok());
  }
  for (const ClientId client : world.masked) {
    say(world, damage, client, revealed_by(world, client).value());
  }
  const auto job = world.server->unmask();
  if (!job.ok()) return false;
  const auto before = world.masked_sum;
  std::optional<ClientId> culprit;
  const auto figures = job->run(world.format, world.masked_sum, 2, &culprit);
  if (figures.ok()) return true;
  CHECK(culprit.has_value());
  CHECK(world.masked_sum == before);
  return false;
}

}  // namespace

TEST_CASE("whatever is damaged, a sum that is given out is the plain sum") {
  std::size_t sums = 0;
  std::size_t faults = 0;
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    INFO("seed " << seed);
    WorldOptions options;
    options.seed = seed;
    options.devices = 7 + static_cast<std::uint32_t>(seed % 5);
    options.model = seed % 4 == 0 ? ThreatModel::kMaliciousServer : ThreatModel::kHonestButCurious;
    options.corruption = 0.01;
    World world = make_world(options);
    Damage damage(seed);
    std::set<ClientId> lost;
    if (seed % 3 == 0) lost.insert(world.clients()[seed % 7]);
    const bool sum = play(world, damage, lost);
    CHECK((world.masked_sum == world.plain_sum) == sum);
    sums += sum;
    faults += world.server->faults().size();
  }
  INFO(sums << " sums, " << faults << " faults");
  CHECK(sums > 50);
  CHECK(sums < 150);
  CHECK(faults > 100);
}
