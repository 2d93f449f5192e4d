// What a server may try with the sets of survivors, to learn both secrets of a device, and which
// device sees it.

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

/// The set of survivors without (or with) some positions.
SurvivorSet altered(SurvivorSet set, const std::vector<std::uint32_t>& flipped) {
  for (const std::uint32_t position : flipped) {
    set.survivors[position / 8] ^= static_cast<std::byte>(1U << (position % 8));
  }
  return set;
}

std::size_t shares_of(const Unmask& unmask, ClientId owner) {
  return static_cast<std::size_t>(
      std::count_if(unmask.shares.begin(), unmask.shares.end(),
                    [&](const RevealedShare& share) { return share.owner == owner; }));
}

}  // namespace

TEST_CASE("a device tells one secret of each peer and refuses a second set of survivors") {
  World world = honest_world();
  REQUIRE(run_until(world, Step::kUnmask).ok());
  SecAggDevice& device = world.device(nth(world, 0));
  const SurvivorSet all = *world.server->survivor_set(nth(world, 0));
  // The peer at position 3 first lives and then does not, so that both its secrets would be told.
  const auto first = device.take(all);
  REQUIRE(first.ok());
  CHECK_THAT(refusal(device.take(altered(all, {3}))), Contains("another message than the first"));
  // The same again, as after a reconnect: the same answer.
  CHECK(std::get<Unmask>(*device.take(all)) == std::get<Unmask>(*first));
  for (const ClientId owner : world.clients()) {
    CHECK(shares_of(std::get<Unmask>(*first), owner) == 1);
  }
}

TEST_CASE("a device tells a dropped peer's mask key and no seed of it") {
  World world = honest_world();
  const ClientId lost = nth(world, 4);
  REQUIRE(run_until(world, Step::kUnmask, {lost}).ok());
  const Unmask told = revealed_by(world, nth(world, 0)).value();
  for (const auto& share : told.shares) CHECK(share.self_seed == (share.owner != lost));
  CHECK(shares_of(told, lost) == 1);
}

TEST_CASE("different sets of survivors for different devices are confirmed to none") {
  World world = malicious_world();
  REQUIRE(run_until(world, Step::kConfirm).ok());
  const SurvivorSet all = *world.server->survivor_set(nth(world, 0));
  const SurvivorSet without_last = altered(all, {9});
  // Five devices are told one set, five (the one left out cannot be) the other.
  std::map<ClientId, ConfirmSurvivors> said;
  for (std::size_t i = 0; i < 9; ++i) {
    const ClientId client = nth(world, i);
    said[client] =
        std::get<ConfirmSurvivors>(*world.device(client).take(i % 2 == 0 ? all : without_last));
  }
  SurvivorConfirmations honest{world.context.round, {}};
  SurvivorConfirmations mixed{world.context.round, {}};
  for (std::size_t i = 1; i < 9; ++i) {
    const ClientId client = nth(world, i);
    mixed.confirmations.push_back({client, said[client].signature});
    if (i % 2 == 0) honest.confirmations.push_back({client, said[client].signature});
  }
  SecAggDevice& device = world.device(nth(world, 0));
  // Those who were told the same are too few; with the others' signatures the first of these is
  // named.
  CHECK_THAT(refusal(device.take(honest)), Contains("confirmations: only 5 devices"));
  CHECK_THAT(refusal(device.take(mixed)),
             Contains(name_of(nth(world, 1)) + " did not sign this set"));
}

TEST_CASE("a survivor whose confirmation comes late goes on with those of the others") {
  World world = malicious_world();
  REQUIRE(run_until(world, Step::kConfirm).ok());
  const ClientId late = nth(world, 9);
  world.masked.erase(late);
  REQUIRE(confirm_all(world).ok());
  REQUIRE(world.server->close_step().ok());
  // It has to say that it knows the set before it is sent what others said.
  CHECK_FALSE(world.server->awaits(late));
  CHECK_FALSE(world.server->confirmations(late).has_value());
  const auto answer = world.device(late).take(*world.server->survivor_set(late)).value();
  REQUIRE(world.server->add(late, std::get<ConfirmSurvivors>(answer)).ok());
  CHECK(world.server->awaits(late));
  REQUIRE(world.server->add(late, revealed_by(world, late).value()).ok());
  // To the others nothing changed.
  CHECK(world.server->confirmations(nth(world, 0))->confirmations.size() == 8);
  REQUIRE(unmask_all(world).ok());
  REQUIRE(unmask_sum(world).ok());
  CHECK(world.masked_sum == world.plain_sum);
}

TEST_CASE("two different sets of survivors cannot both be confirmed") {
  // For every n the threshold is above two thirds: 2 t - (k + 1) > (k + 1) / 3 members would have
  // to sign both, and an honest one signs one.
  for (std::uint32_t devices = 4; devices <= 40; devices += 6) {
    World world = malicious_world(devices);
    advertise_all(world);
    INFO("n " << devices);
    REQUIRE(world.server->close_step().ok());
    const auto& size = world.server->neighbourhood();
    CHECK(3 * size.threshold > 2 * (size.degree + 1));
  }
}

TEST_CASE("a confirmation says who stands at which position, not only which positions survive") {
  const Digest context = digest_named("context");
  const std::vector<std::byte> survivors(2, std::byte{0xff});
  const std::vector<Digest> directory = {digest_named("a"), digest_named("b")};
  const std::vector<Digest> exchanged = {directory[1], directory[0]};
  CHECK(survivors_digest(context, graph_seed(context, directory), survivors) !=
        survivors_digest(context, graph_seed(context, exchanged), survivors));
}

TEST_CASE("confirmations that are repeated, of strangers or of the lost count for nothing") {
  World world = malicious_world();
  const ClientId lost = nth(world, 8);
  REQUIRE(run_until(world, Step::kUnmask, {lost}).ok());
  const ClientId client = nth(world, 0);
  SecAggDevice& device = world.device(client);
  const SurvivorConfirmations good = *world.server->confirmations(client);
  auto repeated = good;
  repeated.confirmations.assign(good.confirmations.size(), good.confirmations.front());
  CHECK_THAT(refusal(device.take(repeated)), Contains("is repeated or out of order"));
  auto of_lost = good;
  of_lost.confirmations.back().client = lost;
  CHECK_THAT(refusal(device.take(of_lost)), Contains("is not a surviving neighbour"));
  auto stranger = good;
  stranger.confirmations.back().client = static_cast<ClientId>(0xffffffffffffffff);
  CHECK_THAT(refusal(device.take(stranger)), Contains("is not a surviving neighbour"));
  auto own = good;
  own.confirmations.front().client = client;
  CHECK_THAT(refusal(device.take(own)), Contains("is not a surviving neighbour"));
  auto foreign = good;
  std::swap(foreign.confirmations[0].signature, foreign.confirmations[1].signature);
  CHECK_THAT(refusal(device.take(foreign)), Contains("did not sign this set"));
  auto none = good;
  none.confirmations.clear();
  CHECK_THAT(refusal(device.take(none)), Contains("confirmations: only 1 devices"));
  CHECK(device.take(good).ok());
}

TEST_CASE("a device refuses sets of survivors that ask too much") {
  for (const bool malicious : {false, true}) {
    World world = malicious ? malicious_world() : honest_world();
    REQUIRE(run_until(world, Step::kMask).ok());
    const ClientId client = nth(world, 2);
    SecAggDevice& device = world.device(client);
    PeerShares shares = *world.server->peer_shares(client);
    const SurvivorSet all{world.context.round, {std::byte{0xff}, std::byte{0x03}}};
    CHECK_THAT(refusal(device.take(all)), Contains("before the peers' shares"));
    shares.shares.pop_back();  // device 9 did not share, as this device is told
    REQUIRE(device.take(shares).ok());
    CHECK_THAT(refusal(device.take(all)),
               Contains(name_of(nth(world, 9)) + ", whose shares were never"));
    const SurvivorSet most = altered(all, {9});
    CHECK_THAT(refusal(device.take(altered(most, {2}))), Contains("without this device"));
    CHECK_THAT(refusal(device.take(altered(most, {3, 4, 5, 6, 7}))), Contains("survive; it takes"));
    CHECK_THAT(refusal(device.take(altered(most, {13}))), Contains("positions that no device has"));
    SurvivorSet sized = most;
    sized.survivors.resize(1);
    CHECK_THAT(refusal(device.take(sized)), Contains("1 bytes for 10 devices"));
    sized.survivors.resize(1000);
    CHECK_THAT(refusal(device.take(sized)), Contains("1000 bytes for 10 devices"));
    sized.survivors.clear();
    CHECK_FALSE(device.take(sized).ok());
    CHECK_THAT(refusal(device.take(SurvivorConfirmations{world.context.round, {}})),
               Contains("confirmations"));
    REQUIRE(device.take(most).ok());
    CHECK_FALSE(device.take(altered(most, {8})).ok());
  }
}
