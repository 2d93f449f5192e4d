// Faults that secure aggregation has had in running code elsewhere, one by one. Those that are a
// single message's are tested with their kind:
//   both secrets of one device handed to a server     secagg_survivors_test.cpp: "a device tells
//   one
//                                                     secret of each peer ..."
//   a threshold met by one share repeated             secagg_refusals_test.cpp: "revealed shares of
//   ..." a short message crashing the server               there: "shared keys of ...", "revealed
//   shares ..." a device that accepts t = 1                       secagg_server_attacks_test.cpp:
//   "a lowered ..." neighbours' keys replaced by the server           there: "keys that the server
//   put ..." the graph chosen by the server alone              there: "a graph that the server
//   chose ..." no ids bound into encrypted shares                there: "a device's own ciphertext
//   ..." one bad share giving a wrong sum in silence       secagg_device_attacks_test.cpp: "a wrong
//   share ...",
//                                                     "a dealer ..."; secagg_damage_test.cpp

#include <catch2/catch.hpp>
#include <set>

#include "secagg/bindings.hpp"
#include "secagg_world.hpp"

using namespace covey;
using namespace covey::privacy;
using namespace covey::privacy::testing;

namespace {

using Step = SecAggServer::Step;
using Catch::Matchers::Contains;

constexpr ClientId kOne = static_cast<ClientId>(1);
constexpr ClientId kTwo = static_cast<ClientId>(2);

World honest_world(std::uint32_t devices, std::uint64_t seed = 3) {
  WorldOptions options;
  options.devices = devices;
  options.seed = seed;
  return make_world(options);
}

// The bits of keys that are drawn or derived are all in use.
void check_full_width(const std::vector<Secret<32>>& keys) {
  std::set<std::vector<std::uint8_t>> distinct;
  std::array<std::size_t, 256> ones{};
  for (const auto& key : keys) {
    distinct.emplace(key.data(), key.data() + 32);
    for (std::size_t bit = 0; bit < 256; ++bit) ones[bit] += key.data()[bit / 8] >> (bit % 8) & 1U;
  }
  CHECK(distinct.size() == keys.size());
  // 200 fair bits: 100 +- 7.1; six standard deviations.
  for (const std::size_t count : ones) {
    CHECK(count > keys.size() / 2 - 43);
    CHECK(count < keys.size() / 2 + 43);
  }
}

std::vector<std::uint64_t> mask_of(MaskCipher cipher, const PackedFormat& format,
                                   const Secret<32>& key) {
  std::vector<std::uint64_t> words(format.words());
  const std::vector<MaskKey> masks = {{key, false}};
  REQUIRE(apply_masks(cipher, format, masks, words).ok());
  return words;
}

}  // namespace

// "A mask seed folded to 28 bits (recovered in seconds)."
TEST_CASE("mask keys have their full width, and the masks depend on all of it") {
  auto secrets = seeded_secrets(1, {}, {});
  std::vector<Secret<32>> pairwise;
  std::vector<Secret<32>> own;
  const Digest context = digest_named("context");
  const auto peer = KeyPair::make(*secrets).value();
  for (int i = 0; i < 200; ++i) {
    const auto keys = KeyPair::make(*secrets).value();
    pairwise.push_back(pair_mask_key(keys.secret, peer.public_key, context, kOne, kTwo).value());
    own.push_back(self_mask_key(keys.secret, context, kOne));
  }
  check_full_width(pairwise);
  check_full_width(own);

  const PackedFormat format{16, 10};
  for (const auto cipher : {MaskCipher::kAes128Ctr, MaskCipher::kChaCha20}) {
    const std::size_t used = cipher == MaskCipher::kAes128Ctr ? 16 : 32;
    const auto mask = mask_of(cipher, format, own[0]);
    for (std::size_t bit = 0; bit < 8 * used; ++bit) {
      Secret<32> other = own[0];
      other.data()[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
      CHECK(mask_of(cipher, format, other) != mask);
    }
  }
}

// "A mask never equal to the largest value."
TEST_CASE("a mask takes every value of a coordinate, the largest too, equally often") {
  const PackedFormat format{4, 64'000};
  auto secrets = seeded_secrets(2, {}, {});
  Secret<32> key;
  REQUIRE(secrets->fill(key.span()).ok());
  for (const auto cipher : {MaskCipher::kAes128Ctr, MaskCipher::kChaCha20}) {
    const auto words = mask_of(cipher, format, key);
    std::vector<std::int64_t> values(format.coordinates);
    unpack(format, words, values);
    std::array<int, 16> seen{};
    for (const auto value : values) ++seen.at(static_cast<std::size_t>(value));
    // 4000 +- 61 each; five standard deviations.
    for (const int count : seen) CHECK(std::abs(count - 4000) < 306);
  }
}

// "A raw ECDH coordinate used as a key."
TEST_CASE("keys are derived from an agreement, for one purpose, pair and context each") {
  auto secrets = seeded_secrets(4, {}, {});
  const auto a = KeyPair::make(*secrets).value();
  const auto b = KeyPair::make(*secrets).value();
  const Digest context = digest_named("context");
  const auto mask = pair_mask_key(a.secret, b.public_key, context, kOne, kTwo).value();
  // Both sides have the same.
  CHECK(mask == pair_mask_key(b.secret, a.public_key, context, kTwo, kOne).value());
  const auto base = share_base_key(a.secret, b.public_key, context, kOne, kTwo).value();
  CHECK(base == share_base_key(b.secret, a.public_key, context, kTwo, kOne).value());
  const auto raw = shared_coordinate(a.secret, b.public_key).value();
  const auto elsewhere =
      pair_mask_key(a.secret, b.public_key, digest_named("other"), kOne, kTwo).value();
  const auto other_pair =
      pair_mask_key(a.secret, b.public_key, context, kOne, static_cast<ClientId>(3)).value();
  const std::vector<Secret<32>> all = {raw,
                                       mask,
                                       base,
                                       elsewhere,
                                       other_pair,
                                       share_key(base, context, kOne, kTwo),
                                       share_key(base, context, kTwo, kOne),
                                       self_mask_key(a.secret, context, kOne),
                                       a.secret};
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) CHECK_FALSE(all[i] == all[j]);
  }
}

// "A drop-out before key sharing failing every neighbour."
TEST_CASE("a device that vanishes between advertising and sharing keys hurts nobody") {
  for (const bool complete : {true, false}) {
    WorldOptions options;
    options.devices = 30;
    options.complete = complete;
    World world = make_world(options);
    advertise_all(world);
    REQUIRE(world.server->close_step().ok());
    const ClientId lost = world.clients()[7];
    for (auto& [client, device] : world.devices) {
      if (client == lost) continue;
      REQUIRE(world.server->add(client, device.take(*world.server->neighbour_keys(client)).value())
                  .ok());
    }
    world.server->leave(lost);
    CHECK(world.server->awaited() == 0);
    REQUIRE(world.server->close_step().ok());
    CHECK_FALSE(world.server->peer_shares(lost).has_value());
    REQUIRE(mask_all(world, {lost}).ok());
    REQUIRE(world.server->close_step().ok());
    REQUIRE(unmask_all(world).ok());
    const auto figures = unmask_sum(world);
    REQUIRE(figures.ok());
    CHECK(figures->key_agreements == 0);  // nobody masked with it
    CHECK(world.masked_sum == world.plain_sum);
  }
}

// "Weights wrapping beyond 1,024 devices": the modulus has room for the plan's most devices, and
// more do not get in. (That it has room is fixed_point_test.cpp's.)
TEST_CASE("no more devices than the modulus has room for enter a sum") {
  WorldOptions options;
  options.devices = 3;
  World world = make_world(options);
  auto plan = world.context.settings;
  plan.max_devices = 2;
  const auto context = context_for(plan);
  SecAggServer server(context);
  std::vector<SecAggDevice> devices;
  for (const ClientId client : world.clients()) {
    devices.push_back(world.make_device(client, context).value());
  }
  REQUIRE(server.add(world.clients()[0], devices[0].advertise()).ok());
  REQUIRE(server.add(world.clients()[1], devices[1].advertise()).ok());
  const auto third = server.add(world.clients()[2], devices[2].advertise());
  REQUIRE_FALSE(third.ok());
  CHECK_THAT(third.error().message, Contains("the sum has its 2 devices already"));
  CHECK(server.add(world.clients()[0], devices[0].advertise()).ok());
  // And a device does not take part where the server let them in.
  REQUIRE(run_until(world, Step::kShare).ok());
  NeighbourKeys three = *world.server->neighbour_keys(world.clients()[0]);
  const auto refused = devices[0].take(three);
  REQUIRE_FALSE(refused.ok());
  CHECK_THAT(refused.error().message, Contains("the plan allows 2"));
}

// "Different models sent to different devices, which defeats any sum" (Pasquini et al. 2021).
TEST_CASE("a device that was sent another model or plan cannot be summed with the others") {
  for (const bool other_plan : {false, true}) {
    World world = honest_world(8);
    const ClientId odd = world.clients()[3];
    AggregationContext context = world.context;
    (other_plan ? context.plan : context.model) = digest_named("another");
    world.devices.erase(odd);
    world.devices.emplace(odd, world.make_device(odd, context).value());
    REQUIRE(run_until(world, Step::kUnmask).ok());
    REQUIRE(unmask_all(world).ok());
    // Its masks do not cancel, nobody holds a share of its seed that opens, and all of them say so.
    CHECK_FALSE(world.server->can_unmask());
    const auto job = world.server->unmask();
    REQUIRE_FALSE(job.ok());
    CHECK_THAT(job.error().message, Contains("device " + std::to_string(value_of(odd))));
    std::size_t named = 0;
    for (const auto& fault : world.server->faults()) named += fault.client == odd;
    CHECK(named >= 7);
    CHECK(world.masked_sum != world.plain_sum);
  }
}

TEST_CASE("two groups with a model each give no sum, of neither group") {
  World world = honest_world(8);
  AggregationContext context = world.context;
  context.model = digest_named("another");
  const auto clients = world.clients();
  for (std::size_t i = 0; i < clients.size(); i += 2) {
    const ClientId client = clients[i];
    world.devices.erase(client);
    world.devices.emplace(client, world.make_device(client, context).value());
  }
  REQUIRE(run_until(world, Step::kUnmask).ok());
  REQUIRE(unmask_all(world).ok());
  CHECK_FALSE(world.server->unmask().ok());
  CHECK(world.masked_sum != world.plain_sum);
}

TEST_CASE("against a malicious server another model is seen when keys are advertised") {
  WorldOptions options;
  options.model = ThreatModel::kMaliciousServer;
  options.devices = 6;
  options.corruption = 0.01;
  World world = make_world(options);
  const ClientId odd = world.clients()[3];
  AggregationContext context = world.context;
  context.model = digest_named("another");
  const SecAggDevice device = world.make_device(odd, context).value();
  const auto added = world.server->add(odd, device.advertise());
  REQUIRE_FALSE(added.ok());
  CHECK_THAT(added.error().message, Contains("for this round, model and plan"));
}

TEST_CASE("every setting of a sum enters its context") {
  const AggregationContext base = context_for(plan_for(ThreatModel::kHonestButCurious, false, 10));
  std::set<Digest> seen = {base.digest()};
  const auto differs = [&](const auto& alter) {
    AggregationContext context = base;
    alter(context);
    CHECK(seen.insert(context.digest()).second);
  };
  differs([](AggregationContext& c) { c.round.run = static_cast<RunId>(78); });
  differs([](AggregationContext& c) { c.round.round = next(c.round.round); });
  differs([](AggregationContext& c) { c.round.id.bytes[15] ^= 1; });
  differs([](AggregationContext& c) { c.model.bytes[0] ^= 1; });
  differs([](AggregationContext& c) { c.plan.bytes[0] ^= 1; });
  differs([](AggregationContext& c) { c.settings.threat_model = ThreatModel::kMaliciousServer; });
  differs([](AggregationContext& c) { c.settings.cipher = MaskCipher::kChaCha20; });
  differs([](AggregationContext& c) { c.settings.complete_graph = true; });
  differs([](AggregationContext& c) { c.settings.bits = 15; });
  differs([](AggregationContext& c) { c.settings.clip = 2; });
  differs([](AggregationContext& c) { c.settings.max_weight = 3; });
  differs([](AggregationContext& c) { c.settings.rotation = true; });
  differs([](AggregationContext& c) { c.settings.max_devices = 11; });
  differs([](AggregationContext& c) { c.settings.dropout = 0.2; });
  differs([](AggregationContext& c) { c.settings.corruption = 0.1; });
}

// The same in a sparse graph: who is left with too few partners is not asked to mask with them.
TEST_CASE("a device with too few partners is left out before anybody masks with it") {
  std::size_t left_out = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    INFO("seed " << seed);
    WorldOptions options;
    options.devices = 40;
    options.seed = seed;
    options.corruption = 0;
    World world = make_world(options);
    advertise_all(world);
    REQUIRE(world.server->close_step().ok());
    REQUIRE_FALSE(world.server->neighbourhood().complete());
    const std::size_t threshold = world.server->neighbourhood().threshold;
    RandomStream random(seed, RandomPurpose::kFault, static_cast<RoundNumber>(5));
    std::size_t shared = 0;
    for (auto& [client, device] : world.devices) {
      if (random.uniform() < 0.48) continue;
      ++shared;
      REQUIRE(world.server->add(client, device.take(*world.server->neighbour_keys(client)).value())
                  .ok());
    }
    if (!world.server->close_step().ok()) continue;
    std::size_t members = 0;
    for (auto& [client, device] : world.devices) {
      const auto message = world.server->peer_shares(client);
      CHECK(message.has_value() == world.server->awaits(client));
      if (!message.has_value()) continue;
      ++members;
      CHECK(message->shares.size() + 1 >= threshold);
      for (const auto& entry : message->shares) CHECK(world.server->awaits(entry.peer));
      CHECK(device.take(*message).ok());
    }
    left_out += shared - members;
  }
  INFO(left_out << " devices were left out");
  CHECK(left_out > 0);
}
