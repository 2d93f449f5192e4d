// What a device may try, and how the server or the other devices see it. It costs nobody else
// anything, or, where a dealer makes a sum impossible, the dealer is named.

#include <catch2/catch.hpp>

#include "secagg/bindings.hpp"
#include "secagg_world.hpp"

using namespace covey;
using namespace covey::privacy;
using namespace covey::privacy::testing;

namespace {

using Step = SecAggServer::Step;
using Catch::Matchers::Contains;

World world_of(std::uint32_t devices, ThreatModel model = ThreatModel::kHonestButCurious) {
  WorldOptions options;
  options.model = model;
  options.devices = devices;
  options.complete = true;
  options.corruption = 0.01;
  return make_world(options);
}

bool fault_says(const World& world, ClientId client, const std::string& what) {
  const auto& faults = world.server->faults();
  return std::any_of(faults.begin(), faults.end(), [&](const Fault& fault) {
    return fault.client == client && fault.what.find(what) != std::string::npos;
  });
}

/// A device that deals as it likes: it has the keys of the device `client` of `world` and takes its
/// place.
class Dealer {
 public:
  Dealer(World& world, ClientId client)
      : world_(world),
        client_(client),
        context_(world.context.digest()),
        secrets_(seeded_secrets(world.seed, {}, client, 1234)),
        cipher_(KeyPair::make(*secrets_).value()),
        mask_(KeyPair::make(*secrets_).value()) {}

  AdvertiseKeys advertise() const {
    AdvertiseKeys message;
    message.round = world_.context.round;
    message.keys = {client_, cipher_.public_key, mask_.public_key, {}, {}};
    return message;
  }

  /// Shares for everyone at their points; `spoil` may change what one of them gets (and its
  /// commitments are of what it gets).
  template <typename Spoil>
  ShareKeys deal(const NeighbourKeys& neighbours, const Spoil& spoil) {
    std::vector<std::uint32_t> points;
    for (const auto& neighbour : neighbours.neighbours) points.push_back(neighbour.position + 1);
    points.push_back(neighbours.position + 1);
    REQUIRE(secrets_->fill(seed_.span()).ok());
    auto seeds = split(seed_, neighbours.threshold, points, *secrets_).value();
    auto keys = split(mask_.secret, neighbours.threshold, points, *secrets_).value();
    ShareKeys message;
    message.round = world_.context.round;
    message.self_seed = seed_commitment(context_, client_, seed_);
    const ShareBytes& own = seeds.back();
    message.own_share = commitment_of(context_, {client_, client_, true}, own.span());
    for (std::size_t i = 0; i < neighbours.neighbours.size(); ++i) {
      const auto& peer = neighbours.neighbours[i].keys;
      SharePair pair{seeds[i], keys[i]};
      spoil(i, pair);
      const SharePair& sent = pair;
      const auto base =
          share_base_key(cipher_.secret, peer.cipher_key, context_, client_, peer.client).value();
      message.shares.push_back(
          {peer.client, seal_shares(base, context_, client_, peer.client, sent).value(),
           commitment_of(context_, {client_, peer.client, true}, sent.self_seed.span()),
           commitment_of(context_, {client_, peer.client, false}, sent.mask_key.span())});
    }
    return message;
  }

 private:
  World& world_;
  ClientId client_;
  Digest context_;
  std::unique_ptr<SecretSource> secrets_;
  KeyPair cipher_;
  KeyPair mask_;
  Secret<32> seed_;
};

/// A world of 8 up to the masking, in which the device at position 3 dealt with `spoil`, and then
/// vanished.
template <typename Spoil>
World with_dealer(const Spoil& spoil) {
  World world = world_of(8);
  const ClientId bad = nth(world, 3);
  Dealer dealer(world, bad);
  for (auto& [client, device] : world.devices) {
    REQUIRE(
        world.server->add(client, client == bad ? dealer.advertise() : device.advertise()).ok());
  }
  REQUIRE(world.server->close_step().ok());
  for (auto& [client, device] : world.devices) {
    const auto neighbours = *world.server->neighbour_keys(client);
    const auto answer =
        client == bad ? dealer.deal(neighbours, spoil) : device.take(neighbours).value();
    REQUIRE(world.server->add(client, answer).ok());
  }
  REQUIRE(world.server->close_step().ok());
  REQUIRE(mask_all(world, {bad}).ok());
  REQUIRE(world.server->close_step().ok());
  REQUIRE(unmask_all(world).ok());
  return world;
}

void scramble(ShareBytes& share) { share.data()[3] ^= 0x10; }

}  // namespace

TEST_CASE("a wrong share is put down to who revealed it, and another survivor's is used") {
  World world = world_of(9);
  const ClientId lost = nth(world, 8);
  const ClientId liar = nth(world, 2);
  REQUIRE(run_until(world, Step::kUnmask, {lost}).ok());
  Unmask lie = revealed_by(world, liar).value();
  for (auto& share : lie.shares) share.share[3] ^= std::byte{1};
  REQUIRE(world.server->add(liar, lie).ok());
  CHECK(world.server->faults().size() == lie.shares.size());
  CHECK(fault_says(world, liar, "revealed a wrong share of " + name_of(lost) + "'s mask key"));
  CHECK(fault_says(world, liar,
                   "revealed a wrong share of " + name_of(nth(world, 0)) + "'s self mask's seed"));
  for (const ClientId client : world.masked) {
    if (client == liar) continue;
    CHECK_FALSE(blames(world.server->faults(), client));
    REQUIRE(world.server->add(client, revealed_by(world, client).value()).ok());
  }
  REQUIRE(unmask_sum(world).ok());
  CHECK(world.masked_sum == world.plain_sum);
}

TEST_CASE(
    "with wrong shares only from all but t - 1 there is no sum, and it says whose secret lacks") {
  World world = world_of(6);
  REQUIRE(run_until(world, Step::kUnmask).ok());
  const std::size_t threshold = world.server->neighbourhood().threshold;
  for (std::size_t i = 0; i < 6; ++i) {
    Unmask told = revealed_by(world, nth(world, i)).value();
    if (i + 1 >= threshold) {
      for (auto& share : told.shares) share.share[0] ^= std::byte{2};
    }
    REQUIRE(world.server->add(nth(world, i), told).ok());
  }
  CHECK_FALSE(world.server->can_unmask());
  CHECK(world.server->awaited() == 0);
  CHECK_THAT(refusal(world.server->unmask()), Contains("shares of " + name_of(nth(world, 0))));
  CHECK_FALSE(world.server->close_step().ok());
}

TEST_CASE("shares of another device, or one device's share in its own name, are wrong shares") {
  World world = world_of(6);
  REQUIRE(run_until(world, Step::kUnmask).ok());
  const ClientId thief = nth(world, 1);
  const Unmask others = revealed_by(world, nth(world, 0)).value();
  Unmask stolen = revealed_by(world, thief).value();
  stolen.shares[4].share = others.shares[4].share;
  REQUIRE(world.server->add(thief, stolen).ok());
  REQUIRE(world.server->faults().size() == 1);
  CHECK(fault_says(world, thief, "revealed a wrong share of " + name_of(nth(world, 4))));
}

TEST_CASE("garbage instead of encrypted shares is named by its receivers, and the sum is right") {
  World world = world_of(8);
  const ClientId bad = nth(world, 5);
  REQUIRE(run_until(world, Step::kShare).ok());
  for (auto& [client, device] : world.devices) {
    ShareKeys answer = device.take(*world.server->neighbour_keys(client)).value();
    if (client == bad) {
      // Garbage for one, another's for the next, a spoilt commitment for the third.
      for (auto& byte : answer.shares[0].ciphertext) byte = std::byte{0xa5};
      answer.shares[1].ciphertext = answer.shares[2].ciphertext;
      answer.shares[3].mask_key[0] ^= 1;
    }
    REQUIRE(world.server->add(client, answer).ok());
  }
  REQUIRE(world.server->close_step().ok());
  REQUIRE(mask_all(world).ok());
  REQUIRE(world.server->close_step().ok());
  REQUIRE(unmask_all(world).ok());
  CHECK(world.server->faults().size() == 3);
  for (const std::size_t receiver : {0, 1, 3}) {
    CHECK(fault_says(world, bad, "says " + name_of(nth(world, receiver))));
  }
  REQUIRE(unmask_sum(world).ok());
  CHECK(world.masked_sum == world.plain_sum);
}

TEST_CASE("a dealer whose shares make another secret is named, and the sum stays as it was") {
  // All but one on another polynomial, as their commitments say: no t of them make the key.
  World world = with_dealer([](std::size_t i, SharePair& pair) {
    if (i > 0) scramble(pair.mask_key);
    if (i % 2 == 0) scramble(pair.mask_key);
  });
  const auto before = world.masked_sum;
  CHECK(world.server->faults().empty());
  REQUIRE(world.server->can_unmask());
  for (const unsigned threads : {1U, 3U}) {
    std::optional<ClientId> culprit;
    const auto result = unmask_sum(world, threads, &culprit);
    CHECK_THAT(refusal(result), Contains(name_of(nth(world, 3)) + " dealt shares of its mask key"));
    CHECK(culprit == nth(world, 3));
    CHECK(world.masked_sum == before);
  }
}

TEST_CASE("a dealer's few wrong shares are left out when there are enough others") {
  World world = with_dealer([](std::size_t i, SharePair& pair) {
    if (i == 1) scramble(pair.mask_key);
  });
  std::optional<ClientId> culprit;
  const auto result = unmask_sum(world, 2, &culprit);
  REQUIRE(result.ok());
  CHECK_FALSE(culprit.has_value());
  CHECK(world.masked_sum == world.plain_sum);
}

TEST_CASE("a contribution of a wrong length is not masked, and masks are used once") {
  World world = world_of(3);
  REQUIRE(run_until(world, Step::kMask).ok());
  const ClientId client = nth(world, 0);
  const auto job = world.device(client).take(*world.server->peer_shares(client)).value();
  auto packed = world.contributions.at(client);
  const auto masked = job->run(world.format, packed);
  REQUIRE(masked.ok());
  CHECK(masked->size() == world.format.bytes());
  CHECK(std::equal(masked->span().begin(), masked->span().end(),
                   job->run(world.format, packed)->span().begin()));
  packed[0] ^= std::byte{1};
  CHECK_THAT(refusal(job->run(world.format, packed)), Contains("another contribution"));
  packed.pop_back();
  CHECK_THAT(refusal(job->run(world.format, packed)), Contains("its format"));
  std::vector<std::uint64_t> sum(world.format.words() + 1);
  World finished = world_of(3);
  REQUIRE(run_until(finished, Step::kUnmask).ok());
  REQUIRE(unmask_all(finished).ok());
  CHECK_THAT(refusal(finished.server->unmask()->run(finished.format, sum, 1)),
             Contains("a sum of"));
}
