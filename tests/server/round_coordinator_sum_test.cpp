// The coordinator's steps of a secure sum, with real keys, shares and masks: what a round is made
// of, who is in it when connections drop, and when it is given up.

#include <catch2/catch.hpp>
#include <set>

#include "sum_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

std::string name_of(ThreatModel model) { return std::string(to_string(model)); }

/// What a device says in the steps of a secure sum, by their index in ClientMessage's order of a
/// conversation.
enum class Said { kAdvertise, kShare, kReport, kChunk, kConfirm, kUnmask };

bool is(Said said, const ClientMessage& message) {
  switch (said) {
    case Said::kAdvertise:
      return std::holds_alternative<AdvertiseKeys>(message);
    case Said::kShare:
      return std::holds_alternative<ShareKeys>(message);
    case Said::kReport:
      return std::holds_alternative<Report>(message);
    case Said::kChunk:
      return std::holds_alternative<BlobChunk>(message);
    case Said::kConfirm:
      return std::holds_alternative<ConfirmSurvivors>(message);
    case Said::kUnmask:
      return std::holds_alternative<Unmask>(message);
  }
  return false;
}

std::vector<Said> steps_of(ThreatModel model) {
  std::vector<Said> steps{Said::kAdvertise, Said::kShare, Said::kReport, Said::kChunk,
                          Said::kUnmask};
  if (model == ThreatModel::kMaliciousServer) steps.push_back(Said::kConfirm);
  return steps;
}

/// Does `what` to the first message of a kind that this device says, once.
auto once(std::uint64_t client, Said said, Deed what, bool& done) {
  return [=, &done](SumDevice& device, ClientMessage& message) {
    if (done || device.client != ClientId{client} || !is(said, message)) return Deed::kSay;
    done = true;
    return what;
  };
}

std::set<ClientId> clients(std::initializer_list<std::uint64_t> numbers) {
  std::set<ClientId> ids;
  for (const std::uint64_t number : numbers) ids.insert(ClientId{number});
  return ids;
}

constexpr ThreatModel kBoth[] = {ThreatModel::kHonestButCurious, ThreatModel::kMaliciousServer};

}  // namespace

TEST_CASE("a secure round sums every device, and tells them when it is unmasked") {
  for (const ThreatModel model : kBoth) {
    CAPTURE(name_of(model));
    SumHarness h({.model = model, .rounds = 3});
    h.start();
    h.run_to_the_end();
    REQUIRE(h.sums.size() == 3);  // each was compared with the plain sum
    for (const auto& sum : h.sums) CHECK(sum == clients({1, 2, 3, 4, 5}));
    CHECK(value_of(h.coordinator->committed_round()) == 3);
    REQUIRE(h.published.size() == 3);
    for (const RoundMetrics& metrics : h.published) {
      CHECK(metrics.secure);
      CHECK(metrics.masked == 5);
      CHECK(metrics.accepted == 5);
      CHECK(metrics.recovered == 0);
      CHECK(metrics.examples == 50);  // learnt from the sum alone
      CHECK(metrics.train_steps == 25);
    }
    for (const auto& [client, device] : h.devices) {
      CHECK(device.count<ReportAccepted>() == 3);
      CHECK(device.count<RoundOver>() == 0);
      CHECK((device.count<SurvivorConfirmations>() > 0) == (model != kBoth[0]));
    }
    CHECK(h.refusals() == 0);
  }
}

TEST_CASE("a device hears that it is accepted only when the sum is unmasked") {
  SumHarness h({});
  h.deed = [](SumDevice&, ClientMessage& message) {
    return is(Said::kUnmask, message) ? Deed::kSwallow : Deed::kSay;
  };
  h.start();
  h.settle();
  CHECK(h.secure_step() == "unmask");
  for (const auto& [client, device] : h.devices) CHECK(device.count<ReportAccepted>() == 0);
  h.advance(31s);  // three heartbeats of nothing
  CHECK(h.noted("round 1 abandoned: secure aggregation: 0 of"));
  for (const auto& [client, device] : h.devices) {
    CHECK(device.count<ReportAccepted>() == 0);
    CHECK(device.count<RoundOver>() == 1);
  }
  CHECK(h.sums.empty());
}

TEST_CASE("a device whose connection drops in any step comes back and is in the sum") {
  for (const ThreatModel model : kBoth) {
    for (const Said said : steps_of(model)) {
      for (const Deed deed : {Deed::kCutBefore, Deed::kCutAfter}) {
        CAPTURE(name_of(model), static_cast<int>(said), static_cast<int>(deed));
        SumHarness h({.model = model});
        bool cut = false;
        h.deed = once(3, said, deed, cut);
        h.start();
        h.run_to_the_end();
        CHECK(cut);
        REQUIRE(h.sums.size() == 1);
        CHECK(h.sums[0] == clients({1, 2, 3, 4, 5}));
        CHECK(h.aggregations.size() == 1);
        const SumDevice& device = h.device(3);
        CHECK(device.count<Welcome>() == 2);
        CHECK(device.count<ReportAccepted>() <= 1);
        CHECK(h.refusals() == 0);
        CHECK(h.now == Time{});  // nobody had to wait
      }
    }
  }
}

TEST_CASE("what a device was sent is sent again when it was lost with the connection") {
  for (const ThreatModel model : kBoth) {
    const auto lost = [&]<typename Message>(std::type_identity<Message>) {
      SumHarness h({.model = model});
      bool cut = false;
      h.arrives = [&](SumDevice& device, const ServerMessage& message) {
        if (cut || device.client != ClientId{2} || !std::holds_alternative<Message>(message)) {
          return true;
        }
        cut = true;
        return false;
      };
      h.start();
      h.run_to_the_end();
      CAPTURE(name_of(model), typeid(Message).name());
      CHECK(cut);
      REQUIRE(h.sums.size() == 1);
      CHECK(h.sums[0].size() == 5);
      CHECK(h.published[0].masked == 5);
      CHECK(h.now == Time{});
      CHECK(h.refusals() == 0);
    };
    lost(std::type_identity<Assignment>{});
    lost(std::type_identity<NeighbourKeys>{});
    lost(std::type_identity<PeerShares>{});
    lost(std::type_identity<UploadGrant>{});
    lost(std::type_identity<SurvivorSet>{});
    lost(std::type_identity<ReportAccepted>{});
    if (model == ThreatModel::kMaliciousServer) lost(std::type_identity<SurvivorConfirmations>{});
  }
}

TEST_CASE("a device that does not come back is left out, and its masks are recovered") {
  for (const ThreatModel model : kBoth) {
    for (const Said said : steps_of(model)) {
      CAPTURE(name_of(model), static_cast<int>(said));
      SumOptions options{.model = model, .devices = 8};
      options.selection.quorum = 0.8;
      SumHarness h(options);
      bool gone = false;
      h.deed = once(3, said, Deed::kVanish, gone);
      h.start();
      h.settle();
      // Three heartbeats for each step that still waits for it, and one until they are looked at.
      h.advance(81s);
      INFO(h.notes());
      CHECK(gone);
      REQUIRE(h.sums.size() == 1);
      const bool masked = said == Said::kConfirm || said == Said::kUnmask;
      CHECK(h.sums[0].size() == (masked ? 8 : 7));
      CHECK(h.sums[0].contains(ClientId{3}) == masked);
      REQUIRE(h.published.size() == 1);
      CHECK(h.published[0].committed);
      CHECK(h.published[0].masked == (masked ? 8 : 7));
      const bool recovers = said == Said::kReport || said == Said::kChunk;
      CHECK(h.published[0].recovered == (recovers ? 1 : 0));
      CHECK(h.published[0].dropped == (masked ? 0 : 1));
    }
  }
}

TEST_CASE(
    "a device that comes back within three heartbeats is waited for, a later one is told so") {
  for (const bool in_time : {true, false}) {
    CAPTURE(in_time);
    SumOptions options{.devices = 8};
    options.selection.quorum = 0.8;
    SumHarness h(options);
    bool gone = false;
    h.deed = once(5, Said::kShare, Deed::kVanish, gone);
    h.start();
    h.settle();
    REQUIRE(h.secure_step() == "share");
    h.advance(29s);
    CHECK(h.secure_step() == "share");
    if (!in_time) h.advance(2s);
    h.connect(h.device(5));
    h.settle();
    h.run_to_the_end();
    REQUIRE(h.sums.size() == 1);
    CHECK(h.sums[0].contains(ClientId{5}) == in_time);
    CHECK(h.device(5).count<ReportAccepted>() == (in_time ? 1 : 0));
  }
}

TEST_CASE("a survivor that missed the confirmations may still help to unmask") {
  SumHarness h({.model = ThreatModel::kMaliciousServer, .devices = 8});
  bool gone = false;
  std::vector<std::pair<ClientId, ClientMessage>> withheld;
  h.deed = [&](SumDevice& device, ClientMessage& message) {
    if (device.client == ClientId{3}) {
      if (gone || !is(Said::kConfirm, message)) return Deed::kSay;
      gone = true;
      return Deed::kVanish;
    }
    if (!is(Said::kUnmask, message)) return Deed::kSay;
    withheld.emplace_back(device.client, message);
    return Deed::kSwallow;
  };
  h.start();
  h.settle();
  h.advance(31s);
  REQUIRE(h.secure_step() == "unmask");
  h.connect(h.device(3));
  h.settle();
  CHECK(h.device(3).count<SurvivorSet>() == 2);
  CHECK(h.device(3).count<SurvivorConfirmations>() == 1);
  for (auto& [client, message] : withheld) h.insist(h.devices.at(client), message);
  REQUIRE(h.sums.size() == 1);
  CHECK(h.sums[0].size() == 8);
  CHECK(h.device(3).count<ReportAccepted>() == 1);
}

TEST_CASE("devices that say that they live do not make a round wait for one that has vanished") {
  // Before its keys: the others have advertised, and send heartbeats while they wait.
  SumOptions options{.devices = 8};
  options.selection.quorum = 0.8;
  options.selection.round_deadline_s = 3600;
  SumHarness h(options);
  bool gone = false;
  h.deed = once(3, Said::kAdvertise, Deed::kVanish, gone);
  h.start();
  h.settle();
  h.advance(45s);
  REQUIRE(h.sums.size() == 1);
  CHECK(h.sums[0].size() == 7);
}

TEST_CASE("one that trains for long and says so is waited for until the deadline") {
  SumOptions options{.devices = 8};
  options.selection.quorum = 0.8;
  options.selection.round_deadline_s = 600;
  SumHarness h(options);
  std::optional<ClientMessage> late;
  h.deed = [&](SumDevice& device, ClientMessage& message) {
    if (device.client != ClientId{3} || !is(Said::kAdvertise, message) || late) return Deed::kSay;
    late = message;
    return Deed::kSwallow;
  };
  h.start();
  h.settle();
  SECTION("it is there in time") {
    h.advance(599s);
    CHECK(h.secure_step() == "advertise");
    h.insist(h.device(3), *late);
    // The deadline was the training's; it does not cut the steps behind it short.
    h.run_to_the_end();
    REQUIRE(h.sums.size() == 1);
    CHECK(h.sums[0].size() == 8);
  }
  SECTION("it is not") {
    h.advance(601s);
    h.run_to_the_end();
    REQUIRE(h.sums.size() == 1);
    CHECK(h.sums[0].size() == 7);
  }
}

TEST_CASE("a deadline that passes in a step that has just begun does not end it") {
  for (const ThreatModel model : kBoth) {
    SumOptions options{.model = model, .devices = 8};
    options.selection.quorum = 0.8;
    options.selection.round_deadline_s = 600;
    for (const Said said : steps_of(model)) {
      if (said == Said::kAdvertise) continue;
      CAPTURE(name_of(model), static_cast<int>(said));
      SumHarness h(options);
      bool holding = true;
      std::optional<ClientMessage> advertised;
      std::vector<std::pair<ClientId, ClientMessage>> withheld;
      h.deed = [&](SumDevice& device, ClientMessage& message) {
        if (is(Said::kAdvertise, message) && device.client == ClientId{1} && !advertised) {
          advertised = message;
          return Deed::kSwallow;
        }
        if (!holding || !is(said, message)) return Deed::kSay;
        withheld.emplace_back(device.client, message);
        return Deed::kSwallow;
      };
      h.start();
      h.settle();
      h.advance(595s);
      h.insist(h.device(1), *advertised);
      h.advance(10s);
      CHECK(h.aggregations.size() == 1);
      holding = false;
      for (auto& [client, message] : withheld) h.insist(h.devices.at(client), message);
      h.run_to_the_end();
      REQUIRE(h.sums.size() == 1);
      CHECK(h.sums[0].size() == 8);
      CHECK(h.aggregations.size() == 1);
    }
  }
}

TEST_CASE("below the quorum a secure round is given up, and tried again under another name") {
  for (const ThreatModel model : kBoth) {
    for (const Said said : {Said::kShare, Said::kReport}) {
      CAPTURE(name_of(model), static_cast<int>(said));
      SumHarness h({.model = model});  // quorum: all 5
      bool gone = false;
      h.deed = once(4, said, Deed::kVanish, gone);
      h.start();
      h.settle();
      h.advance(said == Said::kShare ? 31s : 601s);
      INFO(h.notes());
      CHECK(
          h.noted("round 1 abandoned: secure aggregation: 4 of 5 selected devices are left, it "
                  "needs 5"));
      CHECK(h.sums.empty());
      REQUIRE(h.published.size() == 1);
      CHECK_FALSE(h.published[0].committed);
      for (const std::uint64_t client : {1, 2, 3, 5}) {
        CHECK(h.device(client).count<RoundOver>() == 1);
        CHECK(h.device(client).count<ReportAccepted>() == 0);
      }
      h.connect(h.device(4));
      h.run_to_the_end();
      REQUIRE(h.sums.size() == 1);
      CHECK(h.sums[0].size() == 5);
      REQUIRE(h.aggregations.size() == 2);
      CHECK(h.device(1).last<Assignment>()->aggregation == h.aggregations[1]);
      CHECK(h.refusals() == 0);
    }
  }
}

TEST_CASE("a round whose devices have revealed shares in it before changes nothing and ends") {
  // As after a crash between unmasking and commit; the crash may have come before all had revealed.
  for (const std::uint64_t revealed : {5, 4, 3}) {
    CAPTURE(revealed);
    SumHarness h({.model = ThreatModel::kMaliciousServer});
    const Digest before = h.coordinator->model().digest();
    h.deed = [&](SumDevice& device, ClientMessage& message) {
      if (value_of(device.client) > revealed || !is(Said::kAdvertise, message)) return Deed::kSay;
      message = Decline{SumHarness::kRun, RoundNumber{1}, "helped before", true};
      return Deed::kSay;
    };
    h.start();
    h.run_to_the_end();
    CHECK(value_of(h.coordinator->committed_round()) == 1);
    CHECK(h.sums.size() == (revealed == 3 ? 1 : 0));  // the other two make a sum of their own
    CHECK((h.coordinator->model().digest() == before) == (revealed > 3));
    CHECK(h.noted("round 1 changes nothing: secure aggregation:") == (revealed > 3));
  }
}

TEST_CASE("fewer than the threshold cannot unmask, whatever the quorum") {
  for (const Said said : {Said::kShare, Said::kReport, Said::kUnmask}) {
    CAPTURE(static_cast<int>(said));
    SumOptions options{.devices = 6};
    options.selection.quorum = 0.1;
    SumHarness h(options);
    h.deed = [&](SumDevice& device, ClientMessage& message) {
      return value_of(device.client) > 2 && is(said, message) ? Deed::kVanish : Deed::kSay;
    };
    h.start();
    h.settle();
    for (int s = 0; s < 610 && h.published.empty(); ++s) h.advance(1s);
    INFO(h.notes());
    CHECK(h.noted("round 1 abandoned: secure aggregation:"));
    CHECK(h.sums.empty());
    CHECK(h.device(1).count<RoundOver>() >= 1);
    CHECK(h.device(2).count<RoundOver>() >= 1);
  }
}

TEST_CASE("a stop in any step ends the run and dismisses everyone") {
  for (const ThreatModel model : kBoth) {
    for (const Said said : steps_of(model)) {
      CAPTURE(name_of(model), static_cast<int>(said));
      SumHarness h({.model = model});
      h.deed = [&](SumDevice&, ClientMessage& message) {
        return is(said, message) ? Deed::kSwallow : Deed::kSay;
      };
      h.holds_judgements = said == Said::kUnmask;
      h.start();
      h.settle();
      h.tell(StopRequested{});
      h.settle();
      REQUIRE(h.finished);
      CHECK(h.finished->ok);
      CHECK(h.coordinator->phase() == Phase::kFinished);
      h.release_held();
      for (const auto& [client, device] : h.devices) {
        REQUIRE(device.last<Refusal>() != nullptr);
        CHECK(device.last<Refusal>()->reason == RefusalReason::kShuttingDown);
      }
      CHECK(h.sums.empty());
    }
  }
}
