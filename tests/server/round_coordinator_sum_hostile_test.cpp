// Devices that do wrong in a secure sum: they are expelled and named, and the others' round
// commits.

#include <catch2/catch.hpp>
#include <set>

#include "sum_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

/// Eight devices, of which the last may be missing.
SumOptions eight(ThreatModel model = ThreatModel::kHonestButCurious) {
  SumOptions options{.model = model, .devices = 8};
  options.selection.quorum = 0.8;
  return options;
}

bool of_sum(const ClientMessage& message) {
  return std::holds_alternative<AdvertiseKeys>(message) ||
         std::holds_alternative<ShareKeys>(message) ||
         std::holds_alternative<ConfirmSurvivors>(message) ||
         std::holds_alternative<Unmask>(message);
}

template <typename Message>
using Change = std::function<void(Message&)>;

/// Device 5 changes what it says; everyone else is correct.
template <typename Message>
void misdeed(SumHarness& h, Change<Message> change) {
  h.deed = [change, done = false](SumDevice& device, ClientMessage& message) mutable {
    auto* said = std::get_if<Message>(&message);
    if (done || device.client != ClientId{5} || said == nullptr) return Deed::kSay;
    done = true;
    change(*said);
    return Deed::kSay;
  };
}

void check_expelled(SumHarness& h, const std::string& why, bool in_sum) {
  h.start();
  h.settle();
  h.advance(125s);  // whoever was expelled may have been waited for
  INFO(h.notes());
  CHECK(h.noted("client 5 expelled from the sum of round 1: " + why));
  REQUIRE(h.sums.size() == 1);
  CHECK(h.sums[0].contains(ClientId{5}) == in_sum);
  CHECK(h.sums[0].size() == (in_sum ? 8 : 7));
  CHECK(h.device(5).count<RoundOver>() >= 1);
  CHECK(h.device(5).count<ReportAccepted>() == 0);
  CHECK(h.device(5).count<Assignment>() == 1);
  for (const auto& [client, device] : h.devices) {
    if (client != ClientId{5}) CHECK(device.count<ReportAccepted>() == 1);
  }
}

template <typename Message>
void expelled_for(const std::string& why, Change<Message> change,
                  ThreatModel model = ThreatModel::kHonestButCurious, bool in_sum = false) {
  CAPTURE(why);
  SumHarness h(eight(model));
  misdeed<Message>(h, std::move(change));
  check_expelled(h, why, in_sum);
}

}  // namespace

TEST_CASE("a device that advertises nonsense is expelled and named") {
  expelled_for<AdvertiseKeys>("advertised keys: a point of small order",
                              [](AdvertiseKeys& m) { m.keys.mask_key = {}; });
  expelled_for<AdvertiseKeys>("advertised keys: the same key twice",
                              [](AdvertiseKeys& m) { m.keys.mask_key = m.keys.cipher_key; });
  constexpr auto kMalicious = ThreatModel::kMaliciousServer;
  expelled_for<AdvertiseKeys>(
      "advertised keys: not signed", [](AdvertiseKeys& m) { m.keys.signature[3] ^= 1; },
      kMalicious);
  expelled_for<AdvertiseKeys>(
      "identity certificate: device 6's",
      [](AdvertiseKeys& m) { m.keys.identity.client = ClientId{6}; }, kMalicious);
}

TEST_CASE("a device that shares nonsense is expelled and named") {
  expelled_for<ShareKeys>("shared keys: 6 encrypted shares for 7 neighbours",
                          [](ShareKeys& m) { m.shares.pop_back(); });
  expelled_for<ShareKeys>("shared keys: shares for device",
                          [](ShareKeys& m) { std::swap(m.shares[0].peer, m.shares[1].peer); });
  expelled_for<ShareKeys>("shared keys: ",
                          [](ShareKeys& m) { m.shares[2].ciphertext.push_back(std::byte{0}); });
}

TEST_CASE("a device that confirms nonsense is expelled and named, and its update stays in") {
  constexpr auto kMalicious = ThreatModel::kMaliciousServer;
  expelled_for<ConfirmSurvivors>(
      "confirmed survivors: another set",
      [](ConfirmSurvivors& m) { m.survivors = sha256(std::vector<std::byte>(3)); }, kMalicious,
      true);
  expelled_for<ConfirmSurvivors>(
      "confirmed survivors: not signed", [](ConfirmSurvivors& m) { m.signature[9] ^= 1; },
      kMalicious, true);
}

TEST_CASE("a device that reveals nonsense is expelled and named, and its update stays in") {
  SumHarness h(eight());
  h.deed = [&, done = false](SumDevice& device, ClientMessage& message) mutable {
    auto* unmask = std::get_if<Unmask>(&message);
    if (unmask == nullptr) return Deed::kSay;
    // It is the first to answer; the others wait until it has been heard.
    if (device.client != ClientId{5} || done) return Deed::kSay;
    done = true;
    unmask->shares.pop_back();
    return Deed::kSay;
  };
  std::vector<std::pair<ClientId, ClientMessage>> later;
  const auto misdeed = h.deed;
  h.deed = [&](SumDevice& device, ClientMessage& message) {
    if (std::holds_alternative<Unmask>(message) && device.client != ClientId{5}) {
      later.emplace_back(device.client, message);
      return Deed::kSwallow;
    }
    return misdeed(device, message);
  };
  h.start();
  h.settle();
  CHECK(h.noted("client 5 expelled from the sum of round 1: unmask: 7 shares"));
  for (auto& [client, message] : later) h.insist(h.devices.at(client), message);
  REQUIRE(h.sums.size() == 1);
  CHECK(h.sums[0].size() == 8);
}

TEST_CASE("a wrong share is attributed to who revealed it and another's is taken") {
  SumHarness h(eight());
  std::vector<std::pair<ClientId, ClientMessage>> later;
  h.deed = [&](SumDevice& device, ClientMessage& message) {
    auto* unmask = std::get_if<Unmask>(&message);
    if (unmask == nullptr) return Deed::kSay;
    if (device.client == ClientId{5}) {
      unmask->shares[1].share[7] ^= std::byte{4};
      return Deed::kSay;
    }
    later.emplace_back(device.client, message);
    return Deed::kSwallow;
  };
  h.start();
  h.settle();
  for (auto& [client, message] : later) h.insist(h.devices.at(client), message);
  INFO(h.notes());
  CHECK(h.noted("client 5 in round 1: revealed a wrong share of device 2's self mask's seed"));
  CHECK(h.sums.size() == 1);
}

TEST_CASE("shares that do not open are said to be their dealer's") {
  SumHarness h(eight());
  misdeed<ShareKeys>(h, [](ShareKeys& m) { m.shares[1].ciphertext[5] ^= std::byte{1}; });
  h.start();
  h.run_to_the_end();
  INFO(h.notes());
  CHECK(h.noted("client 5 in round 1: its encrypted shares did not open or match, says device 2"));
  REQUIRE(h.sums.size() == 1);
  CHECK(h.sums[0].size() == 8);
}

TEST_CASE("messages of another attempt change nothing, and their sender is told") {
  SumHarness h(eight());
  std::optional<ClientMessage> own;
  bool playing = true;
  h.deed = [&](SumDevice& device, ClientMessage& message) {
    if (device.client != ClientId{5}) return Deed::kSay;
    const bool first = std::holds_alternative<ShareKeys>(message) && !own;
    if (first) own = message;
    return first || !playing ? Deed::kSwallow : Deed::kSay;
  };
  h.start();
  h.settle();
  REQUIRE(h.secure_step() == "share");
  SumDevice& device = h.device(5);
  playing = false;  // the test speaks for it
  for (const int wrong : {0, 1, 2}) {
    AggregationRound round = h.aggregation();
    if (wrong == 0) round.round = next(round.round);
    if (wrong == 1) round.run = RunId{1};
    if (wrong == 2) round.id.bytes[7] ^= 1;
    h.insist(device, AdvertiseKeys{round, {}});
    h.insist(device, ShareKeys{round, {}, {}, {}});
    h.insist(device, ConfirmSurvivors{round, {}, {}});
    h.insist(device, Unmask{round, {}, {}});
    REQUIRE(device.last<RoundOver>() != nullptr);
    CHECK(device.last<RoundOver>()->round == round.round);
    CHECK(device.count<RoundOver>() == 4 * (static_cast<std::size_t>(wrong) + 1));
    CHECK(h.notes().empty());
  }
  h.insist(device, *own);  // its part is what it was
  CHECK(h.secure_step() == "mask");
  CHECK(device.count<PeerShares>() == 1);
}

TEST_CASE("who answers a step again with another answer is expelled") {
  const auto twice = [](auto wanted, const std::string& why, const auto& change, bool in_sum) {
    CAPTURE(why);
    SumHarness h(eight(ThreatModel::kMaliciousServer));
    h.deed = [&, done = false](SumDevice& device, ClientMessage& message) mutable {
      auto* said = std::get_if<decltype(wanted)>(&message);
      if (done || device.client != ClientId{5} || said == nullptr) return Deed::kSay;
      done = true;
      auto other = *said;
      change(other);
      h.say(device, std::move(*said));
      message = std::move(other);
      return Deed::kSay;
    };
    check_expelled(h, why, in_sum);
  };
  twice(
      AdvertiseKeys{}, "advertised keys: other keys than before",
      [](AdvertiseKeys& m) { m.keys.mask_key[0] ^= 1; }, false);
  twice(
      ShareKeys{}, "shared keys: other shares than before",
      [](ShareKeys& m) { m.own_share[0] ^= 1; }, false);
  twice(
      ConfirmSurvivors{}, "confirmed survivors: another signature than before",
      [](ConfirmSurvivors& m) { m.signature[0] ^= 1; }, true);
  twice(
      Unmask{}, "unmask: other shares than before",
      [](Unmask& m) { m.shares[0].share[0] ^= std::byte{1}; }, true);
}

TEST_CASE("a device whose secret does not come together is named and barred from later rounds") {
  for (const bool late : {false, true}) {
    CAPTURE(late);
    SumOptions options = eight();
    options.rounds = 3;
    options.selection.min_available_clients = 7;
    SumHarness h(options);
    // The commitment to its own seed is another's: nobody can see that before the seed is there.
    misdeed<ShareKeys>(h, [](ShareKeys& m) { m.self_seed = sha256(std::vector<std::byte>(1)); });
    h.holds_strategy = late;  // it is in the pool again before it is known
    h.start();
    h.settle();
    if (late) h.release_held();
    h.holds_strategy = false;
    h.run_to_the_end();
    INFO(h.notes());
    CHECK(h.noted("round 1 abandoned"));
    CHECK(h.noted("device 5"));
    REQUIRE(h.sums.size() == 3);
    for (const auto& sum : h.sums) CHECK(sum.size() == 7);
    REQUIRE(h.device(5).last<RetryLater>() != nullptr);
    CHECK(h.device(5).last<RetryLater>()->reason ==
          "this device's shares kept a sum from being unmasked");
    CHECK(h.device(5).count<Assignment>() == 1);
  }
}

TEST_CASE("whatever a device says while its update is being judged, the update stays in the sum") {
  for (const ThreatModel model : {ThreatModel::kHonestButCurious, ThreatModel::kMaliciousServer}) {
    for (const int what : {0, 1, 2, 3, 4}) {
      CAPTURE(std::string(to_string(model)), what);
      SumHarness h(eight(model));
      h.holds_judgements = true;
      h.start();
      h.settle();
      REQUIRE(h.held.size() == 8);
      SumDevice& device = h.device(5);
      const Report report = *device.report;
      const AggregationRound round = h.aggregation();
      if (what == 0) h.insist(device, Decline{round.run, round.round, "no more"});
      if (what == 1) h.insist(device, Unmask{round, {}, {}});
      if (what == 2) h.insist(device, ShareKeys{round, {}, {}, {}});
      if (what == 3) {
        Report other = report;
        other.blob = sha256(std::vector<std::byte>(5));
        h.insist(device, other);
      }
      if (what == 4) {
        h.lose_connection(device);
        h.settle();
      }
      h.holds_judgements = false;
      h.release_held();
      if (what < 3) CHECK(h.sums.size() == 1);  // who gave up or was expelled is not waited for
      h.advance(91s);
      INFO(h.notes());
      REQUIRE(h.sums.size() == 1);
      CHECK(h.sums[0].size() == 8);
      CHECK(h.published[0].masked == 8);
    }
  }
}

TEST_CASE("a device may decline in any step, what is in the sum stays, the rest goes on") {
  for (const ThreatModel model : {ThreatModel::kHonestButCurious, ThreatModel::kMaliciousServer}) {
    for (const std::string step : {"advertise", "share", "mask", "confirm", "unmask"}) {
      if (step == "confirm" && model != ThreatModel::kMaliciousServer) continue;
      CAPTURE(std::string(to_string(model)), step);
      SumHarness h(eight(model));
      bool declined = false;
      h.deed = [&](SumDevice& device, ClientMessage& message) {
        const bool answers = of_sum(message) || std::holds_alternative<Report>(message);
        if (device.client != ClientId{5} || declined || !answers || h.secure_step() != step) {
          return Deed::kSay;
        }
        declined = true;
        message = Decline{SumHarness::kRun, RoundNumber{1}, "on battery now"};
        return Deed::kSay;
      };
      h.start();
      h.settle();
      h.advance(91s);
      INFO(h.notes());
      CHECK(declined);
      const bool masked = step == "confirm" || step == "unmask";
      REQUIRE(h.sums.size() == 1);
      CHECK(h.sums[0].contains(ClientId{5}) == masked);
      CHECK(h.noted("client 5 declined round 1: on battery now"));
      CHECK(h.published[0].recovered == (step == "mask" ? 1 : 0));
    }
  }
}

TEST_CASE("a report before the masked update is asked for is turned down and changes nothing") {
  for (const std::string step : {"advertise", "share", "unmask"}) {
    CAPTURE(step);
    SumHarness h(eight());
    Report report;
    report.run = SumHarness::kRun;
    report.round = RoundNumber{1};
    report.blob = sha256(std::vector<std::byte>(2));
    report.blob_size = 1000;
    bool said = false;
    h.deed = [&](SumDevice& device, ClientMessage& message) {
      if (device.client == ClientId{5} && !said && of_sum(message) && h.secure_step() == step) {
        said = true;
        h.tell(Received{*device.connection, report});
      }
      return Deed::kSay;
    };
    h.arrives = [](SumDevice& device, const ServerMessage& message) {
      // Such an answer is not for the sum that the device is in: it does not take it out.
      if (std::holds_alternative<ReportRejected>(message)) device.inbox.push_back(message);
      return true;
    };
    h.start();
    h.settle();
    CHECK(said);
    if (step != "unmask") {
      REQUIRE(h.device(5).last<ReportRejected>() != nullptr);
      CHECK(h.device(5).last<ReportRejected>()->reason == RejectReason::kLate);
    }
    CHECK(h.refusals() == 0);
  }
}

TEST_CASE("nothing said again makes the server send a large message twice on one connection") {
  for (const ThreatModel model : {ThreatModel::kHonestButCurious, ThreatModel::kMaliciousServer}) {
    SumHarness h(eight(model));
    SumDevice* device = nullptr;
    std::optional<AdvertiseKeys> advertised;
    std::optional<ConfirmSurvivors> confirmed;
    h.deed = [&](SumDevice& who, ClientMessage& message) {
      if (who.client != ClientId{5}) {
        // Nobody else reveals anything, so that the last step stays open.
        return std::holds_alternative<Unmask>(message) ? Deed::kSwallow : Deed::kSay;
      }
      device = &who;
      if (auto* keys = std::get_if<AdvertiseKeys>(&message)) advertised = *keys;
      if (auto* confirm = std::get_if<ConfirmSurvivors>(&message)) confirmed = *confirm;
      if (who.connection) {
        for (int i = 0; i < 5; ++i) {
          if (advertised) h.tell(Received{*who.connection, *advertised});
          if (confirmed) h.tell(Received{*who.connection, *confirmed});
        }
      }
      const bool again = of_sum(message) || std::holds_alternative<Report>(message);
      return again ? Deed::kSayTwice : Deed::kSay;
    };
    h.start();
    h.settle();
    REQUIRE(h.secure_step() == "unmask");
    for (int i = 0; i < 5; ++i) {
      h.insist(*device, *advertised);
      if (confirmed) h.insist(*device, *confirmed);
    }
    CAPTURE(std::string(to_string(model)));
    CHECK(device->count<NeighbourKeys>() == 1);
    CHECK(device->count<PeerShares>() == 1);
    CHECK(device->count<SurvivorSet>() <= 2);  // to be confirmed, and to be unmasked
    CHECK(device->count<SurvivorConfirmations>() == (confirmed ? 1 : 0));
    CHECK(h.refusals() == 0);
  }
}
