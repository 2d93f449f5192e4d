#include <catch2/catch.hpp>
#include <chrono>
#include <covey/random.hpp>
#include <covey/server/round_coordinator.hpp>
#include <set>

#include "asynchronous_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using namespace std::chrono_literals;

TEST_CASE("at most so many devices work at a time, and the next comes when one is done") {
  auto h = patient_fleet(10, asynchronous_options(5, 3, 10));
  CHECK(at_work(*h) == 3);
  for (int step = 0; step < 4; ++step) {
    const auto working = std::ranges::find_if(
        h->devices, [](const auto& entry) { return entry.second.task.has_value(); });
    report(*h, value_of(working->first));
    CHECK(at_work(*h) == 3);
  }
}

TEST_CASE("without asynchronous.concurrency the goal of the selection is at work") {
  auto options = asynchronous_options(2, 0, 10);
  options.config.selection.fraction_fit = 0.4;
  CHECK(at_work(*patient_fleet(10, options)) == 4);
}

TEST_CASE("who gets a free place is drawn uniformly from the run's seed") {
  // One place, nine that wait for it: who is second?
  const auto second = [](std::uint64_t seed) {
    auto options = asynchronous_options(2, 1, 10);
    options.config.seed = seed;
    auto h = patient_fleet(10, options);
    REQUIRE(h->device(1).task);  // the first to come
    report(*h, 1);
    for (std::uint64_t c = 2; c <= 10; ++c) {
      if (h->device(c).task) return c;
    }
    return std::uint64_t{0};
  };
  constexpr std::uint64_t kSeeds = 900;
  std::map<std::uint64_t, int> drawn;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) ++drawn[second(seed)];
  REQUIRE(drawn.size() == 9);
  for (const auto& [client, times] : drawn) {
    CAPTURE(client, times);  // seeds 1 to 900: binomial(900, 1/9), mean 100, deviation 9.4
    CHECK(std::abs(times - 100) < 5 * 9.4);
  }
  CHECK(second(5) == second(5));
}

TEST_CASE("a device that is lost gives its place up after three heartbeats") {
  auto options = asynchronous_options(2, 1, 2);
  options.config.selection.heartbeat_s = 10;
  auto h = patient_fleet(2, options);
  REQUIRE(h->device(1).task);
  h->lose_connection(h->device(1));
  h->settle();
  h->advance(29s);
  CHECK_FALSE(h->device(2).task);
  h->advance(2s);
  CHECK(h->device(2).task);
  report(*h, 2);
  h->connect(h->device(1));
  h->settle();
  CHECK(h->device(1).count<Assignment>() == 2);  // a new assignment, of the same model
  report(*h, 1);
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].lost == 1);
  CHECK(h->stored[0].late == 0);
  CHECK(h->stored[0].dropped == 1);
  CHECK(h->stored[0].accepted == 2);
}

TEST_CASE("a device that is back in time keeps its assignment and goes on where it was") {
  auto options = asynchronous_options(1, 1, 2);
  auto h = patient_fleet(2, options);
  ScriptedDevice& device = h->device(1);
  for (int times = 0; times < 3; ++times) {
    h->lose_connection(device);
    h->settle();
    h->advance(20s);
    h->connect(device);
    h->settle();
    h->advance(20s);
  }
  CHECK(device.count<Assignment>() == 4);
  CHECK(device.last<Assignment>()->round == RoundNumber{1});
  CHECK_FALSE(h->device(2).task);
  device.stop_at = 160;  // then the connection breaks in the middle of the upload
  report(*h, 1);
  h->lose_connection(device);
  h->settle();
  h->advance(5s);
  device.stop_at = kModelBytes;
  device.reports = true;
  h->connect(device);
  h->settle();
  CHECK(h->coordinator.committed_round() >= RoundNumber{1});
  std::uint64_t written = 0;
  for (const Action& action : h->log) {
    const auto* write = std::get_if<WriteUpload>(&action);
    if (write != nullptr && write->key.client == ClientId{1} &&
        write->key.round == RoundNumber{1}) {
      written += write->payload.size();
    }
  }
  CHECK(written == kModelBytes);  // no byte came twice
}

TEST_CASE("a device that is too slow is told so at its deadline, and its place is free") {
  auto options = asynchronous_options(2, 1, 2);
  options.config.selection.round_deadline_s = 100;
  auto h = patient_fleet(2, options);
  CHECK(h->device(1).last<Assignment>()->report_within == 100s);
  h->device(1).automatic = false;  // it does not come back by itself
  const Report report_1 = h->device(1).report();
  h->advance(99s);
  CHECK(h->device(1).count<RoundOver>() == 0);
  h->advance(1s);
  CHECK(h->device(1).count<RoundOver>() == 1);
  CHECK(h->device(2).task);
  h->speak(h->device(1), report_1);
  CHECK(h->device(1).last<ReportRejected>()->reason == RejectReason::kLate);
  h->advance(50s);
  report(*h, 2);  // its own deadline counts from its own assignment
  CHECK(h->device(2).count<ReportAccepted>() == 1);
}

TEST_CASE("a device that declines frees its place and is counted as declined") {
  auto h = patient_fleet(3, asynchronous_options(2, 2, 3));
  REQUIRE(h->device(1).task);
  h->speak(h->device(1), Decline{CoordinatorHarness::kRun, RoundNumber{1}, "no memory"});
  CHECK(h->device(3).task);
  report(*h, 2);
  report(*h, 3);
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].declined == 1);
  CHECK(h->stored[0].dropped == 1);
}

TEST_CASE("a device that declined or was rejected gets no work before its pause is over") {
  const bool declines = GENERATE(true, false);
  CAPTURE(declines);
  auto h = patient_fleet(1, asynchronous_options(2, 2, 2));  // with places for more
  ScriptedDevice& device = h->device(1);
  device.automatic = false;
  Report bad = device.report();
  bad.weight = -1;
  if (declines) {
    h->speak(device, Decline{CoordinatorHarness::kRun, RoundNumber{1}, "no memory"});
  } else {
    h->speak(device, bad);
    CHECK(device.last<ReportRejected>()->reason == RejectReason::kMalformed);
  }
  h->now += 1s;
  for (std::size_t times = 1; times <= 3; ++times) {
    h->speak(device, CheckIn{device.conditions});
    REQUIRE(device.count<RetryLater>() == times);
    CHECK(device.last<RetryLater>()->window.delay_min == 59s);
    CHECK(device.last<RetryLater>()->window.delay_max == 119s);
  }
  h->lose_connection(device);  // a new connection is no way around it
  h->now += 58s;
  h->connect(device);
  h->speak(device, Hello{});
  h->speak(device, CheckIn{device.conditions});
  CHECK(device.count<RetryLater>() == 4);
  CHECK(device.last<RetryLater>()->window.delay_min == 1s);
  if (!declines) {  // what it was told it is told again
    h->speak(device, bad);
    CHECK(device.count<ReportRejected>() == 2);
    CHECK(device.last<ReportRejected>()->reason == RejectReason::kMalformed);
  }
  CHECK(device.count<Assignment>() == 1);
  h->now += 1s;
  h->speak(device, CheckIn{device.conditions});
  CHECK(device.count<RetryLater>() == 4);
  CHECK(device.count<Assignment>() == 2);
}

TEST_CASE("a stalled upload is cut off, and the device goes on with it when it is back") {
  auto options = asynchronous_options(1, 1, 1);
  options.config.selection.heartbeat_s = 10;
  auto h = patient_fleet(1, options);
  ScriptedDevice& device = h->device(1);
  device.stop_at = 64;
  report(*h, 1);
  CHECK(h->count<Close>() == 0);
  device.stop_at = kModelBytes;
  device.reports = true;
  h->advance(60s);
  const auto stalled = std::ranges::count_if(h->log, [](const Action& action) {
    const auto* note = std::get_if<Note>(&action);
    return note != nullptr && note->text == "client 1 stalled in its upload for round 1; closed";
  });
  CHECK(stalled == 1);
  CHECK(h->coordinator.committed_round() >= RoundNumber{1});
}

TEST_CASE("the model that a device began with is served while somebody works on it") {
  auto h = patient_fleet(3, asynchronous_options(1, 3, 3));
  const Digest old = h->device(3).task->model;
  report(*h, 1);
  report(*h, 1);
  REQUIRE(h->device(1).task->model != old);
  ScriptedDevice& device = h->device(3);
  h->speak(device, BlobRequest{old, 0, kChunkBytes});
  REQUIRE(device.last<BlobChunk>() != nullptr);
  CHECK(device.last<BlobChunk>()->blob == old);
  CHECK(device.last<BlobChunk>()->payload.data()[0] == std::byte{0});
  h->speak(h->device(1), BlobRequest{old, 0, kChunkBytes});  // not its model
  CHECK(h->device(1).count<BlobMissing>() == 1);
}

TEST_CASE("a model is let go with the last device that works on it") {
  auto bytes = std::make_shared<std::vector<std::byte>>(kModelBytes);
  const std::weak_ptr<std::vector<std::byte>> watch = bytes;
  SharedBytes first(bytes, std::span<const std::byte>(*bytes));
  bytes.reset();
  auto options = asynchronous_options(1, 3, 3);
  options.needs_base = true;
  CoordinatorHarness h(options, RoundNumber{0}, EncodedModel{first, first});
  first = {};
  h.start();
  for (std::uint64_t c = 1; c <= 3; ++c) {
    h.add(c).reports = false;
    h.connect(h.device(c));
  }
  h.settle();
  for (auto& [client, device] : h.devices) device.inbox.clear();  // chunks share the model's bytes
  report(h, 1);
  report(h, 2);
  h.log.clear();
  CHECK_FALSE(watch.expired());
  report(h, 3);
  h.log.clear();
  CHECK(watch.expired());
}

TEST_CASE("a lost verdict is told again, other content is a duplicate") {
  auto h = patient_fleet(3, asynchronous_options(2, 3, 3));
  ScriptedDevice& device = h->device(1);
  const Report first = device.report();
  report(*h, 1);
  h->speak(device, first);
  CHECK(device.count<ReportAccepted>() == 2);
  Report other = first;
  other.blob = sha256(filled(77).span());
  h->speak(device, other);
  CHECK(device.last<ReportRejected>()->reason == RejectReason::kDuplicate);
  report(*h, 2);
  REQUIRE(h->coordinator.committed_round() == RoundNumber{1});
  h->speak(device, first);  // it has been given other work meanwhile
  CHECK(device.last<ReportRejected>()->reason == RejectReason::kLate);
  CHECK(judged(*h).size() == 2);
}

TEST_CASE("a verdict can be asked for behind the commit that it was part of") {
  auto h = patient_fleet(3, asynchronous_options(2, 2, 3));
  ScriptedDevice& device = h->device(1);
  const Report first = device.report();
  device.automatic = false;  // does not ask for other work
  h->speak(device, first);
  for (std::uint64_t offset = 0; offset < kModelBytes; offset += kChunkBytes) {
    h->chunk(device, offset, kChunkBytes);
    h->settle();
  }
  REQUIRE(device.count<ReportAccepted>() == 1);
  report(*h, 2);
  REQUIRE(h->coordinator.committed_round() == RoundNumber{1});
  h->speak(device, first);
  CHECK(device.count<ReportAccepted>() == 2);
}

TEST_CASE("a report replaced while its upload is opened is forgotten, whatever the answer") {
  auto h = patient_fleet(2, asynchronous_options(1, 2, 2));
  h->opens_at_once = false;
  ScriptedDevice& device = h->device(1);
  h->speak(device, device.report());
  h->speak(device, Decline{CoordinatorHarness::kRun, RoundNumber{1}, "changed its mind"});
  h->now += 60s;                                 // its pause
  h->speak(device, CheckIn{device.conditions});  // the same assignment once more
  h->speak(device, device.report());
  CHECK(h->held.size() == 2);
  h->release_held();
  CHECK(h->coordinator.committed_round() == RoundNumber{1});
  CHECK(h->counted.size() == 1);
}

TEST_CASE("what the server could not store may be reported again") {
  auto h = patient_fleet(2, asynchronous_options(1, 2, 2));
  ScriptedDevice& device = h->device(1);
  h->write_error = failed("disk full");
  const Report first = device.report();
  h->speak(device, first);
  REQUIRE(device.last<ReportRejected>() != nullptr);
  CHECK(device.last<ReportRejected>()->reason == RejectReason::kServerFailed);
  h->write_error.reset();
  device.sent = 0;
  h->speak(device, first);
  CHECK(h->coordinator.committed_round() == RoundNumber{1});
}

TEST_CASE("one message repeated or one connection lost, wherever, counts no update twice") {
  const Fate fate = GENERATE(Fate::kTwice, Fate::kLoseConnectionBefore, Fate::kLoseConnectionAfter);
  std::size_t messages = SIZE_MAX;
  for (std::size_t n = 0; n < messages; ++n) {
    CAPTURE(n, static_cast<int>(fate));
    auto options = asynchronous_options(2, 3, 3);
    options.config.num_rounds = 3;
    CoordinatorHarness h(options);
    std::size_t index = 0;
    h.fate = [&](const ScriptedDevice&, const ClientMessage&) {
      return index++ == n ? fate : Fate::kDeliver;
    };
    h.start();
    h.add_fleet(1, 3);
    h.advance(600s);
    REQUIRE(h.finished);
    CHECK(h.coordinator.committed_round() == RoundNumber{3});
    REQUIRE(h.stored.size() == 3);
    for (const RoundMetrics& round : h.stored) CHECK(round.accepted == 2);
    int counted = 0;
    for (const auto& [key, times] : h.counted) {
      CHECK(times == 1);
      counted += times;
    }
    CHECK(counted == 6);
    if (n >= index) messages = n;
  }
  CHECK(messages > 30);
}

TEST_CASE("random fleets keep the rules of asynchronous rounds whatever happens to connections") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    RandomStream random(seed, RandomPurpose::kFault);
    const auto buffer = static_cast<std::uint32_t>(1 + random.below(4));
    const auto concurrency = static_cast<std::uint32_t>(1 + random.below(8));
    auto options = asynchronous_options(buffer, concurrency, 8);
    options.config.num_rounds = 25;
    options.config.asynchronous.max_staleness = static_cast<std::uint32_t>(random.below(5));
    options.config.selection.round_deadline_s = 200;
    auto h = patient_fleet(8, options);
    for (int step = 0; step < 4000 && !h->finished; ++step) {
      ScriptedDevice& device = h->device(1 + random.below(8));
      switch (random.below(8)) {
        case 0:
          h->lose_connection(device);
          h->settle();
          break;
        case 1:
          h->advance(std::chrono::seconds(random.below(40)));
          break;
        case 2:
          h->judges_at_once = random.below(2) == 0;
          h->stores_at_once = random.below(2) == 0;
          h->opens_at_once = random.below(2) == 0;
          h->release_held();
          break;
        case 3:
          if (device.task && random.below(4) == 0) {
            h->speak(device, Decline{CoordinatorHarness::kRun, device.task->round, "no"});
            device.task.reset();
          }
          break;
        default:
          if (!device.connection) {
            h->connect(device);
            h->settle();
          } else if (device.task) {
            h->speak(device, device.report());
          } else {
            h->speak(device, CheckIn{device.conditions});
          }
      }
    }
    h->judges_at_once = h->stores_at_once = h->opens_at_once = true;
    for (int turn = 0; turn < 200 && !h->finished; ++turn) {
      h->release_held();
      for (auto& [client, device] : h->devices) {
        device.reports = true;
        if (!device.connection) {
          h->connect(device);
        } else {
          h->say(device, CheckIn{device.conditions});
        }
        h->settle();
      }
      h->advance(70s);
    }
    REQUIRE(h->finished);
    for (const auto& [key, times] : h->counted) CHECK(times == 1);
    std::size_t committed = 0;
    for (const RoundMetrics& round : h->stored) {
      CHECK(round.round == RoundNumber{static_cast<std::uint32_t>(++committed)});
      CHECK(round.accepted == buffer);
      CHECK(*round.staleness <= options.config.asynchronous.max_staleness);
      CHECK(round.selected == round.accepted + round.rejected + round.dropped);
      CHECK(round.dropped == round.declined + round.lost + round.late);
    }
    for (const JudgeUpdate* action : judged(*h)) {
      CHECK(action->staleness <= options.config.asynchronous.max_staleness);
    }
  }
}
