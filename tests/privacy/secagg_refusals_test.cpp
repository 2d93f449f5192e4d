// Messages of devices that a server of a secure sum refuses, saying why; nothing changes by them.

#include <catch2/catch.hpp>
#include <functional>

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

/// For the sizes and orders that a server refuses: each alteration of a good message, by what is
/// said.
template <typename Message>
using Alterations = std::vector<std::pair<std::string, std::function<void(Message&)>>>;

template <typename Message>
void check_refused(World& world, ClientId client, const Message& good,
                   const Alterations<Message>& alterations) {
  for (const auto& [what, alter] : alterations) {
    Message message = good;
    alter(message);
    INFO(what);
    const auto added = world.server->add(client, message);
    REQUIRE_FALSE(added.ok());
    CHECK_THAT(added.error().message, Contains(what));
    CHECK(world.server->awaits(client));
  }
  CHECK(world.server->add(client, good).ok());
  CHECK_FALSE(world.server->awaits(client));
  CHECK(world.server->add(client, good).ok());
}

}  // namespace

TEST_CASE("advertised keys that are another's, of small order or changed are refused") {
  World world = world_of(4);
  const AdvertiseKeys first = world.device(nth(world, 0)).advertise();
  REQUIRE(world.server->add(nth(world, 0), first).ok());
  const ClientId client = nth(world, 1);
  const AdvertiseKeys good = world.device(client).advertise();
  const auto refused = [&](const auto& alter) {
    AdvertiseKeys message = good;
    alter(message);
    return refusal(world.server->add(client, message));
  };
  CHECK_THAT(refused([&](AdvertiseKeys& m) { m.keys.mask_key = first.keys.mask_key; }),
             Contains("another device's key"));
  CHECK_THAT(refused([&](AdvertiseKeys& m) { m.keys.mask_key = first.keys.cipher_key; }),
             Contains("another device's key"));
  CHECK_THAT(refused([](AdvertiseKeys& m) { m.keys.mask_key = m.keys.cipher_key; }),
             Contains("same key twice"));
  CHECK_THAT(refused([](AdvertiseKeys& m) { m.keys.cipher_key = {1}; }), Contains("small order"));
  CHECK_THAT(refused([](AdvertiseKeys& m) { m.round.round = next(m.round.round); }),
             Contains("a message of round 2 in round 1"));
  REQUIRE(world.server->add(client, good).ok());
  CHECK_THAT(refused([](AdvertiseKeys& m) { m.keys.mask_key[5] ^= 1; }), Contains("other keys"));
  CHECK(world.server->add(client, good).ok());
  // What a device says of its own id counts for nothing; the connection's certificate does.
  AdvertiseKeys claimed = world.device(nth(world, 2)).advertise();
  claimed.keys.client = nth(world, 3);
  CHECK(world.server->add(nth(world, 2), claimed).ok());
  CHECK_FALSE(world.server->advertised(nth(world, 3)));
  REQUIRE(world.server->close_step().ok());
  CHECK_THAT(refusal(world.server->add(nth(world, 3), world.device(nth(world, 3)).advertise())),
             Contains("that step is over"));
}

TEST_CASE("every point of small order is known, for no agreement succeeds with it") {
  auto secrets = seeded_secrets(3, {}, {});
  const auto own = KeyPair::make(*secrets).value();
  std::size_t small = 0;
  // 0 and 1, p - 1 to p + 1 (p = 2^255 - 19), each with and without the bit that is ignored.
  for (const unsigned first : {0U, 1U, 2U, 9U, 0xebU, 0xecU, 0xedU, 0xeeU, 0xefU}) {
    for (const unsigned top : {0U, 0x80U}) {
      PublicKey key{};
      if (first > 9) key.fill(0xff);
      key.front() = static_cast<std::uint8_t>(first);
      key.back() = static_cast<std::uint8_t>((first > 9 ? 0x7f : 0) | top);
      const auto agreed =
          pair_mask_key(own.secret, key, {}, static_cast<ClientId>(1), static_cast<ClientId>(2));
      CHECK(agreed.ok() != is_small_order(key));
      small += is_small_order(key);
    }
  }
  CHECK(small == 10);
  // The two points of order 8.
  for (const char* text : {"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
                           "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"}) {
    const PublicKey key = Digest::from_hex(text)->bytes;
    CHECK(is_small_order(key));
    CHECK_FALSE(
        pair_mask_key(own.secret, key, {}, static_cast<ClientId>(1), static_cast<ClientId>(2))
            .ok());
  }
}

TEST_CASE("someone else's signature or certificate is refused by the server") {
  World world = world_of(5, ThreatModel::kMaliciousServer);
  const ClientId client = nth(world, 0);
  const AdvertiseKeys good = world.device(client).advertise();
  const AdvertiseKeys other = world.device(nth(world, 1)).advertise();
  const auto refused = [&](const auto& alter) {
    AdvertiseKeys message = good;
    alter(message);
    return refusal(world.server->add(client, message));
  };
  CHECK_THAT(refused([&](AdvertiseKeys& m) { m.keys.signature = other.keys.signature; }),
             Contains("not signed by the device's identity"));
  CHECK_THAT(refused([&](AdvertiseKeys& m) { m.keys = other.keys; }),
             Contains("identity certificate: " + name_of(nth(world, 1)).substr(0, 7)));
  CHECK_FALSE(refused([&](AdvertiseKeys& m) {
                m.keys.identity = other.keys.identity;
                m.keys.identity.client = client;  // no longer what the authority signed
              }).empty());
  CHECK_THAT(refused([](AdvertiseKeys& m) { m.keys.identity.signature.resize(100'000); }),
             Contains("100000 bytes"));
  CHECK_FALSE(refused([](AdvertiseKeys& m) { m.keys.identity.signature.clear(); }).empty());
  // An identity that this run's authority never saw.
  auto secrets = seeded_secrets(8, {}, {});
  const auto stranger = IdentityAuthority::make(*secrets)->issue(client, *secrets).value();
  CHECK_FALSE(refused([&](AdvertiseKeys& m) {
                m.keys.identity = stranger.certificate;
                m.keys.signature =
                    stranger.identity.sign(advertisement_statement(world.context.digest(), m.keys));
              }).empty());
  CHECK_FALSE(world.server->advertised(client));

  REQUIRE(run_until(world, Step::kConfirm).ok());
  const auto confirm = [&](ClientId who) {
    return std::get<ConfirmSurvivors>(
        world.device(who).take(*world.server->survivor_set(who)).value());
  };
  const ConfirmSurvivors own = confirm(client);
  ConfirmSurvivors borrowed = own;
  borrowed.signature = confirm(nth(world, 1)).signature;
  CHECK_THAT(refusal(world.server->add(client, borrowed)), Contains("not signed by"));
  ConfirmSurvivors another_set = own;
  another_set.survivors.bytes[0] ^= 1;
  CHECK_THAT(refusal(world.server->add(client, another_set)), Contains("another set"));
  CHECK(world.server->add(client, own).ok());
}

TEST_CASE("shared keys of wrong lengths, orders or content are refused and change nothing") {
  World world = world_of(6);
  REQUIRE(run_until(world, Step::kShare).ok());
  const ClientId client = nth(world, 2);
  const ShareKeys good = world.device(client).take(*world.server->neighbour_keys(client)).value();
  check_refused<ShareKeys>(
      world, client, good,
      {{"0 encrypted shares", [](ShareKeys& m) { m.shares.clear(); }},
       {"4 encrypted shares", [](ShareKeys& m) { m.shares.pop_back(); }},
       {"6 encrypted shares", [](ShareKeys& m) { m.shares.push_back(m.shares.back()); }},
       {"where device", [](ShareKeys& m) { m.shares[1] = m.shares[0]; }},
       {"where device", [](ShareKeys& m) { std::swap(m.shares[0], m.shares[4]); }},
       {"where device", [&](ShareKeys& m) { m.shares[0].peer = client; }},
       {"0 bytes of encrypted", [](ShareKeys& m) { m.shares[0].ciphertext.clear(); }},
       {"1 bytes of encrypted", [](ShareKeys& m) { m.shares[0].ciphertext.resize(1); }},
       {"1000 bytes of encrypted", [](ShareKeys& m) { m.shares[4].ciphertext.resize(1000); }},
       {"of another run", [](ShareKeys& m) { m.round.run = static_cast<RunId>(1); }}});
  ShareKeys changed = good;
  changed.self_seed.bytes[0] ^= 1;
  CHECK_THAT(refusal(world.server->add(client, changed)), Contains("other shares than before"));
  CHECK_THAT(refusal(world.server->add(static_cast<ClientId>(0xfedcba9876543210), good)),
             Contains("without advertised keys"));
  REQUIRE(share_all(world).ok());
  REQUIRE(world.server->close_step().ok());
  CHECK(world.server->add(client, good).ok());
  CHECK_FALSE(world.server->add(client, changed).ok());
}

TEST_CASE("revealed shares of wrong lengths, owners or kinds are refused and change nothing") {
  World world = world_of(7);
  const ClientId lost = nth(world, 6);
  const ClientId client = nth(world, 0);
  REQUIRE(run_until(world, Step::kMask).ok());
  CHECK_THAT(refusal(world.server->add(client, Unmask{world.context.round, {}, {}})),
             Contains("not in"));
  REQUIRE(mask_all(world, {lost}).ok());
  REQUIRE(world.server->close_step().ok());
  const Unmask good = revealed_by(world, client).value();
  REQUIRE(good.shares.size() == 7);
  check_refused<Unmask>(
      world, client, good,
      {{"0 shares", [](Unmask& m) { m.shares.clear(); }},
       {"6 shares", [](Unmask& m) { m.shares.pop_back(); }},
       {"8 shares", [](Unmask& m) { m.shares.push_back(m.shares.back()); }},
       // One share repeated does not make two.
       {"is repeated", [](Unmask& m) { m.shares[2] = m.shares[1]; }},
       {"is repeated", [](Unmask& m) { std::swap(m.shares[1], m.shares[2]); }},
       {"dealt this device no shares",
        [](Unmask& m) { m.shares[6].owner = static_cast<ClientId>(0xffffffffffffffff); }},
       // Nobody may say of a survivor that it dropped out, nor the other way round.
       {"the wrong one of", [](Unmask& m) { m.shares[6].self_seed = true; }},
       {"the wrong one of", [](Unmask& m) { m.shares[1].self_seed = false; }},
       {"a share of 0 bytes", [](Unmask& m) { m.shares[0].share.clear(); }},
       {"a share of 1 bytes", [](Unmask& m) { m.shares[3].share.resize(1); }},
       {"a share of 41 bytes", [](Unmask& m) { m.shares[6].share.resize(41); }},
       {"is repeated",
        [&](Unmask& m) {
          m.shares.pop_back();
          m.unreadable = {nth(world, 1)};  // and shared as well
        }},
       {"is repeated",
        [&](Unmask& m) {
          m.shares.erase(m.shares.begin());
          m.unreadable = {client};  // its own share is not encrypted
        }},
       {"is repeated",
        [&](Unmask& m) {
          m.shares.erase(m.shares.begin() + 1, m.shares.begin() + 3);
          m.unreadable = {nth(world, 1), nth(world, 1)};
        }},
       {"of another run", [](Unmask& m) { m.round.id.bytes[2] ^= 1; }}});
  CHECK(world.server->faults().empty());
  Unmask changed = good;
  changed.shares[0].share[0] ^= std::byte{1};
  CHECK_THAT(refusal(world.server->add(client, changed)), Contains("other shares than before"));
  CHECK_THAT(refusal(world.server->add(lost, good)), Contains("not in"));
  CHECK_THAT(refusal(world.server->add(client, ConfirmSurvivors{world.context.round, {}, {}})),
             Contains("nobody asked"));
}
