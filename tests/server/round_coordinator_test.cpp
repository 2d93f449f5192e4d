#include <catch2/catch.hpp>
#include <chrono>
#include <covey/server/round_coordinator.hpp>
#include <string>

#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using namespace std::chrono_literals;

namespace {

int total_counted(const CoordinatorHarness& h, RoundNumber round) {
  int total = 0;
  for (const auto& [key, times] : h.counted) total += key.first == round ? times : 0;
  return total;
}

}  // namespace

TEST_CASE("a round passes from selection to commit and its metrics say how it went") {
  CoordinatorHarness h(default_options(3));
  h.start();
  REQUIRE(h.coordinator.phase() == Phase::kSelection);
  h.add_fleet(1, 3);
  REQUIRE(h.finished);
  CHECK(h.finished->ok);
  CHECK(h.coordinator.phase() == Phase::kFinished);
  CHECK(h.coordinator.committed_round() == RoundNumber{1});
  CHECK(h.coordinator.model().data()[0] == std::byte{1});
  REQUIRE(h.published.size() == 1);
  const RoundMetrics& m = h.published[0];
  CHECK(m.committed);
  CHECK(m.selected == 3);
  CHECK(m.accepted == 3);
  CHECK(m.rejected == 0);
  CHECK(m.dropped == 0);
  CHECK(m.examples == 30);
  CHECK(m.train_steps == 15);
  CHECK(m.train_loss == Approx(2.0));  // mean of 1, 2, 3: equal numbers of examples
  CHECK(m.bytes_up == 3 * kModelBytes);
  CHECK(m.bytes_down == 3 * kModelBytes);
  CHECK(m.accuracy == 0.5);
  CHECK(m.loss == 1.5);
  CHECK(h.spool.empty());
  for (const auto& [client, device] : h.devices) {
    CHECK(device.count<ReportAccepted>() == 1);
    REQUIRE(device.last<Refusal>() != nullptr);
    CHECK(device.last<Refusal>()->reason == RefusalReason::kRunFinished);
  }
}

TEST_CASE("nothing is announced before the round is durable") {
  CoordinatorHarness h(default_options(2));
  h.start();
  h.add_fleet(1, 2);
  std::vector<std::string> order;
  for (const Action& action : h.log) {
    if (std::holds_alternative<BeginSum>(action)) order.push_back("begin");
    if (std::holds_alternative<ApplyStrategy>(action)) order.push_back("apply");
    if (std::holds_alternative<CommitRound>(action)) order.push_back("commit");
    if (std::holds_alternative<EvaluateModel>(action)) order.push_back("evaluate");
    if (std::holds_alternative<PublishMetrics>(action)) order.push_back("publish");
    if (std::holds_alternative<RunFinished>(action)) order.push_back("finished");
  }
  CHECK(order ==
        std::vector<std::string>{"begin", "apply", "commit", "evaluate", "publish", "finished"});
}

TEST_CASE(
    "several rounds run with the same devices, evaluated every so many rounds and at the end") {
  auto options = default_options(4);
  options.config.num_rounds = 5;
  options.config.eval_every = 2;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 4);
  REQUIRE(h.finished);
  REQUIRE(h.published.size() == 5);
  for (std::uint32_t i = 0; i < 5; ++i) {
    CHECK(h.published[i].round == RoundNumber{i + 1});
    CHECK(h.published[i].accepted == 4);
    CHECK(h.published[i].accuracy.has_value() == (i == 1 || i == 3 || i == 4));
  }
}

TEST_CASE("the run stops at the target accuracy when asked to") {
  auto options = default_options(2);
  options.config.num_rounds = 50;
  options.config.target_accuracy = 0.4;
  options.config.stop_at_target = true;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 2);
  REQUIRE(h.finished);
  CHECK(h.finished->ok);
  CHECK(h.coordinator.committed_round() == RoundNumber{1});
}

TEST_CASE("with over-selection the round closes at the goal and the rest are told it is over") {
  auto options = default_options(10);
  options.config.selection.fraction_fit = 0.5;
  options.config.selection.over_selection = 1.3;  // ceil(5 * 1.3) = 7 selected for a goal of 5
  CoordinatorHarness h(options);
  h.start();
  // Selected or not is not known yet: all work but none reports until the test says so.
  for (std::uint64_t c = 1; c <= 10; ++c) h.add(c).reports = false;
  for (auto& [client, device] : h.devices) h.connect(device);
  h.settle();
  const auto cohort = h.assigned();
  REQUIRE(cohort.size() == 7);
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(h.stored.empty());
    ScriptedDevice& device = h.devices.at(cohort[i]);
    h.speak(device, device.report());
  }
  REQUIRE(h.stored.size() == 1);
  CHECK(h.stored[0].selected == 7);
  CHECK(h.stored[0].accepted == 5);
  CHECK(h.stored[0].dropped == 2);
  for (std::size_t i = 5; i < 7; ++i) CHECK(h.devices.at(cohort[i]).count<RoundOver>() == 1);
  for (std::size_t i = 0; i < 5; ++i) CHECK(h.devices.at(cohort[i]).count<RoundOver>() == 0);
}

TEST_CASE("at the deadline a quorum commits the round, fewer abandon it") {
  const int reporting = GENERATE(5, 6, 7, 8);  // quorum: ceil(0.7 * 10) = 7
  auto options = default_options(10);
  options.config.selection.quorum = 0.7;
  options.config.selection.round_deadline_s = 25;  // less than three heartbeats: only the deadline
  CoordinatorHarness h(options);
  h.start();
  for (std::uint64_t c = 1; c <= 10; ++c) {
    ScriptedDevice& device = h.add(c);
    device.reports = c <= static_cast<std::uint64_t>(reporting);
    h.connect(device);
  }
  h.settle();
  h.advance(24s);
  CHECK(h.stored.empty());
  h.advance(1s);
  REQUIRE(h.stored.size() == 1);
  CHECK(h.stored[0].accepted == static_cast<std::uint32_t>(reporting));
  CHECK(h.stored[0].committed == (reporting >= 7));
  CHECK(h.coordinator.committed_round() == RoundNumber{reporting >= 7 ? 1U : 0U});
  CHECK(h.device(10).count<RoundOver>() == 1);
}

TEST_CASE("an abandoned round keeps its number, pauses a heartbeat and draws another cohort") {
  auto options = default_options(20);
  options.config.selection.fraction_fit = 0.25;
  options.config.selection.round_deadline_s = 20;
  CoordinatorHarness h(options);
  h.start();
  for (std::uint64_t c = 1; c <= 20; ++c) {
    h.add(c).reports = false;
    h.connect(h.device(c));
  }
  h.settle();
  const auto first = h.assigned();
  REQUIRE(first.size() == 5);
  for (auto& [client, device] : h.devices) {
    device.inbox.clear();
    device.reports = true;
  }
  h.advance(20s);
  REQUIRE(h.stored.size() == 1);
  CHECK_FALSE(h.stored[0].committed);
  CHECK(h.published.size() == 1);
  CHECK(h.coordinator.phase() == Phase::kSelection);
  CHECK(h.count<BeginSum>() == 1);
  h.advance(10s);
  CHECK(h.count<BeginSum>() == 2);
  REQUIRE(h.stored.size() == 2);
  CHECK(h.stored[1].round == RoundNumber{1});
  CHECK(h.stored[1].committed);
  CHECK(h.assigned() != first);
}

TEST_CASE(
    "the round need not wait for its deadline when the quorum is in and the rest are silent") {
  auto options = default_options(4);
  options.config.selection.quorum = 0.5;
  options.config.selection.round_deadline_s = 600;
  CoordinatorHarness h(options);
  h.start();
  for (std::uint64_t c = 1; c <= 4; ++c) {
    h.add(c).reports = c <= 2;
    h.connect(h.device(c));
  }
  h.settle();
  h.lose_connection(h.device(3));
  h.settle();
  // Device 4 is connected and says that it works: the round waits for it.
  for (int i = 0; i < 10; ++i) {
    h.advance(10s);
    h.speak(h.device(4), Progress{CoordinatorHarness::kRun, RoundNumber{1}, 1, 10});
    CHECK(h.device(4).last<ProgressReply>()->wanted);
    CHECK(h.stored.empty());
  }
  h.advance(40s);
  REQUIRE(h.stored.size() == 1);
  CHECK(h.stored[0].accepted == 2);
  CHECK(h.stored[0].dropped == 2);
}

TEST_CASE("a round in which everybody declined is abandoned at once") {
  CoordinatorHarness h(default_options(2));
  h.start();
  for (std::uint64_t c = 1; c <= 2; ++c) {
    h.add(c).reports = false;
    h.connect(h.device(c));
  }
  h.settle();
  h.speak(h.device(1), Decline{CoordinatorHarness::kRun, RoundNumber{1}, "hot\nforged line"});
  CHECK(h.stored.empty());
  h.speak(h.device(2), Decline{CoordinatorHarness::kRun, RoundNumber{1}, "hot"});
  REQUIRE(h.stored.size() == 1);
  CHECK_FALSE(h.stored[0].committed);
  for (const Action& action : h.log) {
    if (const auto* note = std::get_if<Note>(&action)) {
      CHECK(note->text.find('\n') == std::string::npos);
    }
  }
}

TEST_CASE("one message repeated, whichever it is, counts no update twice") {
  std::size_t messages = SIZE_MAX;
  for (std::size_t n = 0; n < messages; ++n) {
    CAPTURE(n);
    CoordinatorHarness h(default_options(2));
    std::size_t index = 0;
    h.fate = [&](const ScriptedDevice&, const ClientMessage&) {
      return index++ == n ? Fate::kTwice : Fate::kDeliver;
    };
    h.start();
    h.add_fleet(1, 2);
    h.advance(30s);
    REQUIRE(h.finished);
    CHECK(h.coordinator.committed_round() == RoundNumber{1});
    CHECK(total_counted(h, RoundNumber{1}) == 2);
    for (const auto& [key, times] : h.counted) CHECK(times == 1);
    if (n >= index) messages = n;  // no message was repeated any more
  }
  CHECK(messages > 20);
}

TEST_CASE("a connection lost at any message, before or after it arrives, does not lose the round") {
  const Fate fate = GENERATE(Fate::kLoseConnectionBefore, Fate::kLoseConnectionAfter);
  std::size_t messages = SIZE_MAX;
  for (std::size_t n = 0; n < messages; ++n) {
    CAPTURE(n, static_cast<int>(fate));
    auto options = default_options(3);
    options.config.num_rounds = 2;
    CoordinatorHarness h(options);
    std::size_t index = 0;
    h.fate = [&](const ScriptedDevice&, const ClientMessage&) {
      return index++ == n ? fate : Fate::kDeliver;
    };
    h.start();
    h.add_fleet(1, 3);
    REQUIRE(h.finished);
    CHECK(h.coordinator.committed_round() == RoundNumber{2});
    CHECK(total_counted(h, RoundNumber{1}) == 3);
    CHECK(total_counted(h, RoundNumber{2}) == 3);
    for (const auto& [key, times] : h.counted) CHECK(times == 1);
    CHECK(h.spool.empty());
    if (n >= index) messages = n;
  }
  CHECK(messages > 40);
}

TEST_CASE("a model that cannot be stored is not announced, and the round goes on when it can") {
  CoordinatorHarness h(default_options(2));
  h.store_error = failed("disk full");
  h.start();
  h.add_fleet(1, 2);
  CHECK(h.coordinator.committed_round() == RoundNumber{0});
  CHECK(h.coordinator.model().data()[0] == std::byte{0});
  h.advance(120s);  // tried again and again, in vain
  CHECK_FALSE(h.finished);
  CHECK(h.coordinator.committed_round() == RoundNumber{0});
  CHECK(h.published.empty());
  h.store_error.reset();
  h.advance(70s);  // the longest wait is 64 s
  REQUIRE(h.finished);
  CHECK(h.finished->ok);
  CHECK(h.coordinator.committed_round() == RoundNumber{1});
  CHECK(h.published.size() == 1);
}

TEST_CASE("a stop while the store fails ends the run with the reason") {
  CoordinatorHarness h(default_options(2));
  h.store_error = failed("disk full");
  h.start();
  h.add_fleet(1, 2);
  h.tell(StopRequested{});
  h.settle();
  REQUIRE(h.finished);
  CHECK_FALSE(h.finished->ok);
  CHECK(h.coordinator.committed_round() == RoundNumber{0});
  CHECK(h.device(1).last<Refusal>()->reason == RefusalReason::kShuttingDown);
}

TEST_CASE("a strategy that fails abandons the round and leaves the model") {
  CoordinatorHarness h(default_options(2));
  h.apply_error = failed("the new model would not be finite");
  h.start();
  h.add_fleet(1, 2);
  REQUIRE(h.stored.size() == 1);
  CHECK_FALSE(h.stored[0].committed);
  CHECK(h.coordinator.model().data()[0] == std::byte{0});
  CHECK_FALSE(h.finished);
  h.apply_error.reset();
  h.advance(10s);
  REQUIRE(h.finished);
  CHECK(h.coordinator.committed_round() == RoundNumber{1});
}

TEST_CASE("a run goes on behind its last committed round") {
  auto options = default_options(2);
  options.config.num_rounds = 9;
  CoordinatorHarness h(options, RoundNumber{7});
  h.start();
  h.add_fleet(1, 2);
  REQUIRE(h.finished);
  // Round 7's evaluation was not stored, so it is made up for.
  REQUIRE(h.published.size() == 3);
  CHECK(h.published[0].round == RoundNumber{7});
  CHECK(h.published[0].accuracy);
  CHECK(h.published[1].round == RoundNumber{8});
  CHECK(h.published[2].round == RoundNumber{9});
}

TEST_CASE("a run that was complete finishes at once and turns devices away") {
  auto options = default_options(2);
  options.config.num_rounds = 7;
  CoordinatorHarness h(options, RoundNumber{7});
  h.start();
  REQUIRE(h.finished);
  CHECK(h.finished->ok);
  ScriptedDevice& device = h.add(1);
  h.connect(device);
  h.settle();
  REQUIRE(device.last<Refusal>() != nullptr);
  CHECK(device.last<Refusal>()->reason == RefusalReason::kRunFinished);
}

TEST_CASE("a stop abandons the round in flight and records nothing") {
  CoordinatorHarness h(default_options(3));
  h.start();
  for (std::uint64_t c = 1; c <= 3; ++c) {
    h.add(c).reports = c == 1;
    h.connect(h.device(c));
  }
  h.settle();
  h.tell(StopRequested{});
  h.settle();
  REQUIRE(h.finished);
  CHECK(h.finished->ok);
  CHECK(h.finished->reason == "stopped");
  CHECK(h.stored.empty());
  for (const auto& [client, device] : h.devices) {
    CHECK(device.last<Refusal>()->reason == RefusalReason::kShuttingDown);
    CHECK_FALSE(device.connection);
  }
}

TEST_CASE("a stop while a round is being stored waits for the outcome") {
  auto options = default_options(2);
  options.config.num_rounds = 5;
  CoordinatorHarness h(options);
  h.stores_at_once = false;
  h.start();
  h.add_fleet(1, 2);
  REQUIRE(h.coordinator.phase() == Phase::kCommit);
  h.tell(StopRequested{});
  h.device(1).reconnects = false;
  h.device(2).reconnects = false;
  h.settle();
  CHECK(h.coordinator.phase() == Phase::kStopping);
  CHECK(h.device(1).last<Refusal>()->reason == RefusalReason::kShuttingDown);
  CHECK_FALSE(h.finished);
  h.release_held();
  REQUIRE(h.finished);
  CHECK(h.finished->ok);
  CHECK(h.coordinator.committed_round() == RoundNumber{1});
  CHECK(h.published.size() == 1);
}

TEST_CASE("the timer is set only when the earliest deadline moves, and fires for each of them") {
  CoordinatorHarness h(default_options(100));
  h.start();
  REQUIRE(h.timers_set == 1);
  h.add_fleet(1, 99);
  CHECK(h.timers_set == 1);
  CHECK(*h.timer == Time{} + 60s);
  // Fired too early: nothing is due, and it is set again.
  h.tell(TimerFired{});
  h.settle();
  CHECK(h.timers_set == 2);
  CHECK(*h.timer == Time{} + 60s);
}

TEST_CASE("the status tells an operator how the round stands") {
  CoordinatorHarness h(default_options(3));
  h.start();
  for (std::uint64_t c = 1; c <= 3; ++c) {
    h.add(c).reports = c == 1;
    h.connect(h.device(c));
  }
  h.settle();
  h.lose_connection(h.device(3));
  h.settle();
  const std::string json = h.coordinator.status_json(h.now + 100s);
  CAPTURE(json);
  CHECK(json.find("\"phase\":\"reporting\"") != std::string::npos);
  CHECK(json.find("\"round\":1") != std::string::npos);
  CHECK(json.find("\"selected\":3") != std::string::npos);
  CHECK(json.find("\"accepted\":1") != std::string::npos);
  CHECK(json.find("\"dropped\":1") != std::string::npos);
  CHECK(json.find("\"deadline_s\":500.0") != std::string::npos);
  CHECK(json.find(sha256(filled(0).span()).hex()) != std::string::npos);
}
