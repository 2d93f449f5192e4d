// What a server may try, and which device sees it. Everything here is at the state machines' level:
// a message is altered between the honest server and a device.

#include <catch2/catch.hpp>

#include "secagg/bindings.hpp"
#include "secagg_world.hpp"

using namespace covey;
using namespace covey::privacy;
using namespace covey::privacy::testing;

namespace {

using Step = SecAggServer::Step;
using Catch::Matchers::Contains;

World malicious_world(std::uint32_t devices = 10, std::uint64_t seed = 5) {
  WorldOptions options;
  options.model = ThreatModel::kMaliciousServer;
  options.devices = devices;
  options.seed = seed;
  options.corruption = 0.01;
  return make_world(options);
}

World honest_world(std::uint32_t devices = 10, std::uint64_t seed = 6) {
  WorldOptions options;
  options.devices = devices;
  options.seed = seed;
  return make_world(options);
}

std::size_t shares_of(const Unmask& unmask, ClientId owner) {
  return static_cast<std::size_t>(
      std::count_if(unmask.shares.begin(), unmask.shares.end(),
                    [&](const RevealedShare& share) { return share.owner == owner; }));
}

}  // namespace

TEST_CASE("keys that the server put in a neighbour's place are refused, naming the neighbour") {
  World world = malicious_world();
  REQUIRE(run_until(world, Step::kShare).ok());
  const ClientId client = nth(world, 0);
  const ClientId victim = nth(world, 2);
  const NeighbourKeys good = *world.server->neighbour_keys(client);
  auto& device = world.device(client);
  const std::size_t at = 1;  // position 2 is the second neighbour of position 0 in a complete graph
  REQUIRE(good.neighbours[at].keys.client == victim);
  // A device of the server's own making, with the victim's id.
  auto secrets = seeded_secrets(1, {}, {}, 7);
  const auto other_authority = IdentityAuthority::make(*secrets).value();
  const auto forged_by = [&](const DeviceCredentials& credentials) {
    KeyAdvertisement keys = good.neighbours[at].keys;
    keys.cipher_key = KeyPair::make(*secrets)->public_key;
    keys.mask_key = KeyPair::make(*secrets)->public_key;
    keys.identity = credentials.certificate;
    keys.signature =
        credentials.identity.sign(advertisement_statement(world.context.digest(), keys));
    return keys;
  };
  const auto send = [&](const KeyAdvertisement& keys, bool in_directory) {
    NeighbourKeys message = good;
    message.neighbours[at].keys = keys;
    if (in_directory) {
      message.directory[2] = advertisement_digest(world.context.digest(), keys);
    }
    return refusal(device.take(message));
  };

  // The keys alone: they are not those of the directory (nor of the graph that follows from it).
  const auto foreign = other_authority.issue(victim, *secrets).value();
  CHECK_THAT(send(forged_by(foreign), false), Contains(name_of(victim)));
  // With a directory to match: a certificate of another authority.
  CHECK_THAT(send(forged_by(foreign), true), Contains(std::to_string(value_of(victim))));
  // With the certificate of another device of this run.
  CHECK_THAT(send(forged_by(*world.credentials.at(nth(world, 5))), true),
             Contains(name_of(victim) + " is shown with"));
  // With the victim's own certificate, but keys that it did not sign.
  KeyAdvertisement unsigned_keys = forged_by(foreign);
  unsigned_keys.identity = good.neighbours[at].keys.identity;
  CHECK_THAT(send(unsigned_keys, true), Contains(name_of(victim) + ": its keys are not signed"));
  // Nothing of that was answered, and the true message still is.
  CHECK(device.take(good).ok());
}

TEST_CASE("messages of an old round are refused, also with the round's number rewritten") {
  World old_round = malicious_world();
  REQUIRE(run_until(old_round, Step::kMask).ok());
  const ClientId client = nth(old_round, 0);
  World replay = malicious_world();
  REQUIRE(run_until(replay, Step::kShare).ok());
  const NeighbourKeys old_keys =
      *replay.server->neighbour_keys(client);  // the same as of old_round

  const AggregationContext second = context_for(old_round.context.settings, 2);
  SecAggDevice device = old_round.make_device(client, second, 1).value();
  CHECK_THAT(refusal(device.take(old_keys)), Contains("of round 1, not of round 2"));
  NeighbourKeys rewritten = old_keys;
  rewritten.round = second.round;
  CHECK_THAT(refusal(device.take(rewritten)), Contains("does not hold this device's own keys"));
  // Even with this device's new keys in the directory, the others' signatures are of the old round.
  rewritten.directory[0] = advertisement_digest(second.digest(), device.advertise().keys);
  for (const auto& neighbour : rewritten.neighbours) {
    rewritten.directory[neighbour.position] = advertisement_digest(second.digest(), neighbour.keys);
  }
  CHECK_THAT(refusal(device.take(rewritten)), Contains("not signed by it for this round"));

  PeerShares shares = *old_round.server->peer_shares(client);
  CHECK_THAT(refusal(device.take(shares)), Contains("of round 1"));
  shares.round = second.round;
  CHECK_THAT(refusal(device.take(shares)), Contains("before the neighbours' keys"));
  // Another attempt at the same round is another sum as well.
  AggregationRound attempt = old_round.context.round;
  attempt.id.bytes[0] ^= 1;
  PeerShares other_attempt = *old_round.server->peer_shares(client);
  other_attempt.round = attempt;
  CHECK_THAT(refusal(old_round.device(client).take(other_attempt)), Contains("another attempt"));
}

TEST_CASE("an old round's encrypted shares do not open in another round") {
  World world = honest_world(4);
  REQUIRE(run_until(world, Step::kMask).ok());
  const ClientId client = nth(world, 1);
  World next_round = honest_world(4);
  next_round.context = context_for(world.context.settings, 2);
  next_round.server.emplace(next_round.context);
  next_round.devices.clear();
  for (const auto& entry : world.devices) {
    // The same keys, as if a device's generator had failed: even then nothing carries over.
    auto device = world.make_device(entry.first, next_round.context);
    next_round.devices.emplace(entry.first, std::move(*device));
  }
  REQUIRE(run_until(next_round, Step::kMask).ok());
  PeerShares stale = *world.server->peer_shares(client);
  stale.round = next_round.context.round;
  REQUIRE(next_round.device(client).take(stale).ok());
  next_round.server->add_masked_input(client);
  SurvivorSet all{next_round.context.round, {std::byte{0x0f}}};
  const auto told = next_round.device(client).take(all);
  REQUIRE(told.ok());
  CHECK(std::get<Unmask>(*told).unreadable.size() == 3);
  CHECK(std::get<Unmask>(*told).shares.size() == 1);
}

TEST_CASE("a graph that the server chose is refused") {
  // Large enough for a graph that is not complete.
  WorldOptions options;
  options.model = ThreatModel::kMaliciousServer;
  options.devices = 150;
  options.corruption = 0.01;
  options.dropout = 0.02;
  options.coordinates = 1;
  World world = make_world(options);
  REQUIRE(run_until(world, Step::kShare).ok());
  const auto& size = world.server->neighbourhood();
  REQUIRE_FALSE(size.complete());
  const ClientId client = nth(world, 0);
  const NeighbourKeys good = *world.server->neighbour_keys(client);
  // One neighbour is exchanged for a real device with real keys at its real position.
  std::set<std::uint32_t> taken = {good.position};
  for (const auto& neighbour : good.neighbours) taken.insert(neighbour.position);
  std::uint32_t stranger = 0;
  while (taken.contains(stranger)) ++stranger;
  NeighbourKeys forged = good;
  forged.neighbours.pop_back();
  Neighbour entry{stranger, world.device(nth(world, stranger)).advertise().keys};
  const auto place = std::find_if(forged.neighbours.begin(), forged.neighbours.end(),
                                  [&](const Neighbour& n) { return n.position > stranger; });
  forged.neighbours.insert(place, entry);
  CHECK_THAT(refusal(world.device(client).take(forged)),
             Contains("the neighbour graph is not the one that the directory gives"));
  // A directory of the server's own choice gives another graph, and these neighbours are not of it.
  NeighbourKeys chosen = good;
  chosen.directory[stranger].bytes[0] ^= 1;
  CHECK_THAT(refusal(world.device(client).take(chosen)), Contains("neighbour graph"));
  // This device's own entry must be in it.
  NeighbourKeys without = good;
  without.directory[without.position].bytes[0] ^= 1;
  CHECK_THAT(refusal(world.device(client).take(without)), Contains("this device's own keys"));
  CHECK(world.device(client).take(good).ok());
}

TEST_CASE("a lowered threshold, or one of 1, is refused under either threat model") {
  for (const bool malicious : {false, true}) {
    World world = malicious ? malicious_world() : honest_world();
    REQUIRE(run_until(world, Step::kShare).ok());
    const ClientId client = nth(world, 0);
    const NeighbourKeys good = *world.server->neighbour_keys(client);
    for (std::uint32_t threshold = 0; threshold < good.threshold; ++threshold) {
      NeighbourKeys lowered = good;
      lowered.threshold = threshold;
      CHECK_THAT(refusal(world.device(client).take(lowered)), Contains("neighbour keys"));
    }
    NeighbourKeys above = good;
    above.threshold = above.degree + 2;
    CHECK_FALSE(world.device(client).take(above).ok());
    CHECK(world.device(client).take(good).ok());
  }
}

TEST_CASE("a device refuses neighbours that cannot be") {
  World world = honest_world();
  REQUIRE(run_until(world, Step::kShare).ok());
  const ClientId client = nth(world, 4);
  SecAggDevice& device = world.device(client);
  const NeighbourKeys good = *world.server->neighbour_keys(client);
  const auto refused = [&](const auto& alter) {
    NeighbourKeys message = good;
    alter(message);
    return refusal(device.take(message));
  };
  // Itself as a neighbour: its "pairwise" mask would be known to whoever knows its share key.
  CHECK_THAT(refused([&](NeighbourKeys& m) { m.neighbours[3].keys = device.advertise().keys; }),
             Contains("its own neighbour"));
  CHECK_THAT(refused([&](NeighbourKeys& m) { m.neighbours[3].position = m.position; }),
             Contains("its own neighbour"));
  CHECK_THAT(refused([](NeighbourKeys& m) { m.neighbours[1] = m.neighbours[0]; }),
             Contains("repeated"));
  CHECK_THAT(refused([](NeighbourKeys& m) { std::swap(m.neighbours[0], m.neighbours[1]); }),
             Contains("out of order"));
  CHECK_THAT(refused([](NeighbourKeys& m) { m.neighbours.back().position = m.devices; }),
             Contains("at position 10 of 10"));
  CHECK_THAT(refused([](NeighbourKeys& m) { m.neighbours.pop_back(); }), Contains("8 neighbours"));
  CHECK_THAT(refused([](NeighbourKeys& m) { m.position = m.devices; }), Contains("position 10"));
  CHECK_THAT(refused([](NeighbourKeys& m) { m.devices = 4'000'000'000U; }),
             Contains("the plan allows"));
  CHECK_FALSE(refused([](NeighbourKeys& m) { m.degree = 0; }).empty());
  CHECK_FALSE(refused([](NeighbourKeys& m) { m.devices = 1; }).empty());
  CHECK_THAT(refused([](NeighbourKeys& m) { m.directory.resize(m.devices); }),
             Contains("directory has 10 entries, not 0"));
  // One key for two devices, or a key that makes every agreement public.
  CHECK_THAT(refused([](NeighbourKeys& m) {
               m.neighbours[1].keys.mask_key = m.neighbours[0].keys.mask_key;
             }),
             Contains("one key was listed twice"));
  CHECK_THAT(refused([&](NeighbourKeys& m) {
               m.neighbours[1].keys.mask_key = device.advertise().keys.mask_key;
             }),
             Contains("one key was listed twice"));
  CHECK_THAT(refused([](NeighbourKeys& m) { m.neighbours[1].keys.cipher_key = {}; }),
             Contains("small order"));
  const auto answer = device.take(good);
  REQUIRE(answer.ok());
  CHECK_THAT(
      refused([](NeighbourKeys& m) { std::swap(m.neighbours[0].keys, m.neighbours[1].keys); }),
      Contains("another message than the first"));
  CHECK(device.take(good).value() == *answer);
}

TEST_CASE("a device refuses peer shares that are too few, repeated, of strangers or exchanged") {
  World world = honest_world();
  REQUIRE(run_until(world, Step::kMask).ok());
  const ClientId client = nth(world, 0);
  SecAggDevice& device = world.device(client);
  const PeerShares good = *world.server->peer_shares(client);
  const auto refused = [&](const auto& alter) {
    PeerShares message = good;
    alter(message);
    return refusal(device.take(message));
  };
  const std::size_t threshold = world.server->neighbourhood().threshold;
  CHECK_THAT(refused([&](PeerShares& m) { m.shares.resize(threshold - 2); }),
             Contains("of the neighbourhood shared their keys; it takes"));
  CHECK_THAT(refused([](PeerShares& m) { m.shares.clear(); }), Contains("only 1 of the 10"));
  CHECK_THAT(refused([](PeerShares& m) { m.shares[1] = m.shares[0]; }), Contains("repeated"));
  CHECK_THAT(refused([&](PeerShares& m) { m.shares[0].peer = client; }),
             Contains("is not a neighbour"));
  CHECK_THAT(refused([](PeerShares& m) { m.shares.push_back(m.shares.back()); }),
             Contains("10 entries for 9"));
  REQUIRE(device.take(good).ok());
  // A peer fewer would be a second mask for the same contribution.
  CHECK_THAT(refused([](PeerShares& m) { m.shares.pop_back(); }),
             Contains("another message than the first"));
}

TEST_CASE("a device's own ciphertext, or one for another device, does not open in a peer's name") {
  World world = honest_world(5);
  REQUIRE(run_until(world, Step::kShare).ok());
  const ClientId client = nth(world, 0);
  const ClientId peer = nth(world, 1);
  SecAggDevice& device = world.device(client);
  const ShareKeys own = device.take(*world.server->neighbour_keys(client)).value();
  REQUIRE(share_all(world).ok());
  REQUIRE(world.server->close_step().ok());
  PeerShares message = *world.server->peer_shares(client);
  // Reflection: what this device sent to its first peer comes back as if that peer had sent it. The
  // two share one agreement, but each direction has a key of its own.
  REQUIRE(own.shares[0].peer == peer);
  message.shares[0] = own.shares[0];
  // And what the third device sent to the second is passed on to the first.
  const PeerShares second = *world.server->peer_shares(peer);
  const auto from_third = std::find_if(second.shares.begin(), second.shares.end(),
                                       [&](const auto& s) { return s.peer == nth(world, 2); });
  message.shares[1] = *from_third;
  REQUIRE(device.take(message).ok());
  const auto told = device.take(SurvivorSet{world.context.round, {std::byte{0x1f}}});
  REQUIRE(told.ok());
  const auto& unmask = std::get<Unmask>(*told);
  CHECK(unmask.unreadable == std::vector<ClientId>{peer, nth(world, 2)});
  CHECK(shares_of(unmask, peer) == 0);
}

TEST_CASE("against a malicious server a device needs an identity of its own, of this authority") {
  World world = malicious_world(3);
  const ClientId client = nth(world, 0);
  world.credentials.erase(client);
  CHECK_THAT(refusal(world.make_device(client, world.context)), Contains("no certified identity"));
  world.credentials[client] = world.credentials.at(nth(world, 1));
  CHECK_THAT(refusal(world.make_device(client, world.context)), Contains("is not of device"));
  SecAggDevice::Options options;
  options.client = client;
  options.context = world.context;
  options.credentials = world.credentials.at(nth(world, 1));
  CHECK_THAT(refusal(SecAggDevice::make(std::move(options))), Contains("source of secrets"));
}
