#include <catch2/catch.hpp>
#include <chrono>
#include <covey/server/round_coordinator.hpp>

#include "asynchronous_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;

TEST_CASE("a full buffer moves the model, and everybody else goes on working") {
  auto h = patient_fleet(4, asynchronous_options(2, 4, 4));
  for (std::uint64_t c = 1; c <= 4; ++c) CHECK(round_of(h->device(c)) == 1);
  h->now += 3s;
  report(*h, 2);
  CHECK(h->stored.empty());
  CHECK(h->device(2).count<ReportAccepted>() == 1);
  CHECK_FALSE(h->device(2).task);  // counted already: it waits for the next sum
  h->now += 4s;
  report(*h, 1);
  REQUIRE(h->stored.size() == 1);
  CHECK(h->coordinator.committed_round() == RoundNumber{1});
  CHECK(h->coordinator.phase() == Phase::kReporting);
  const RoundMetrics& round = h->published.at(0);
  CHECK(round.selected == 2);
  CHECK(round.accepted == 2);
  CHECK(round.dropped == 0);
  CHECK(round.staleness == 0.0);
  CHECK(round.examples == 20);
  CHECK(round.train_steps == 10);
  CHECK(round.train_loss == 1.5);  // (1 + 2) / 2, of equally many examples
  CHECK(round.accuracy == 0.5);
  CHECK(round.bytes_up == 2 * kModelBytes);
  CHECK(round.bytes_down == 4 * kModelBytes);
  CHECK(round.started == Time{});
  CHECK(round.ended == Time{7s});
  // Those two have the new model, the others have heard nothing and keep the old one.
  CHECK(round_of(h->device(1)) == 2);
  CHECK(round_of(h->device(2)) == 2);
  CHECK(h->device(1).task->model == h->coordinator.model().digest());
  for (std::uint64_t c = 3; c <= 4; ++c) {
    CHECK(round_of(h->device(c)) == 1);
    CHECK(h->device(c).count<RoundOver>() == 0);
    CHECK(h->device(c).count<Assignment>() == 1);
  }
  report(*h, 3);
  report(*h, 1);
  REQUIRE(h->stored.size() == 2);
  CHECK(h->stored[1].staleness == 0.5);
  CHECK(h->stored[1].started == Time{7s});
  CHECK(h->stored[1].bytes_down == 2 * kModelBytes);
}

TEST_CASE(
    "an update is judged with the rounds committed since its model, and that model if asked") {
  const bool needs_base = GENERATE(false, true);
  auto options = asynchronous_options(1, 3, 3);
  options.needs_base = needs_base;
  auto h = patient_fleet(3, options);
  const Digest first = h->device(3).task->model;
  report(*h, 1);
  report(*h, 1);
  report(*h, 2);
  report(*h, 3);
  const auto actions = judged(*h);
  REQUIRE(actions.size() == 4);
  CHECK(actions[0]->staleness == 0);
  CHECK(actions[1]->staleness == 0);
  CHECK(actions[2]->staleness == 2);
  CHECK(actions[3]->staleness == 3);
  CHECK(actions[3]->key.round == RoundNumber{1});
  if (needs_base) {
    CHECK(actions[3]->base.digest() == first);
    CHECK(actions[1]->base.digest() != first);
  } else {
    CHECK(actions[3]->base.empty());
  }
  REQUIRE(h->stored.size() == 4);
  CHECK(h->stored[3].staleness == 3.0);
}

TEST_CASE("work on a model older than max-staleness is void, and told so") {
  auto options = asynchronous_options(1, 3, 3);
  options.config.asynchronous.max_staleness = 1;
  auto h = patient_fleet(3, options);
  const Report old = h->device(3).report();
  report(*h, 1);
  CHECK(h->device(3).count<RoundOver>() == 0);
  h->device(3).automatic = false;  // it does not take new work by itself
  report(*h, 1);
  REQUIRE(h->device(3).count<RoundOver>() == 1);
  CHECK(h->device(3).last<RoundOver>()->round == RoundNumber{1});
  h->speak(h->device(3), old);
  REQUIRE(h->device(3).last<ReportRejected>() != nullptr);
  CHECK(h->device(3).last<ReportRejected>()->reason == RejectReason::kLate);
  CHECK(judged(*h).size() == 2);
  // Device 2 was on that model as well. Both count in the round in which their part ended.
  CHECK(h->stored[1].late == 0);
  report(*h, 1);
  CHECK(h->stored[2].late == 2);
  CHECK(h->stored[2].dropped == 2);
  CHECK(h->stored[2].selected == 3);
}

TEST_CASE("an update of exactly max-staleness counts") {
  auto options = asynchronous_options(1, 2, 2);
  options.config.asynchronous.max_staleness = 2;
  auto h = patient_fleet(2, options);
  report(*h, 1);
  report(*h, 1);
  report(*h, 2);
  CHECK(judged(*h).back()->staleness == 2);
  CHECK(h->device(2).count<ReportAccepted>() == 1);
}

TEST_CASE("an update that is there while a round commits is judged for the next sum") {
  auto h = patient_fleet(4, asynchronous_options(2, 4, 4));
  h->stores_at_once = false;
  report(*h, 1);
  report(*h, 2);
  REQUIRE(h->held.size() == 1);
  report(*h, 3);
  CHECK(h->spool.size() == 1);  // its bytes are taken
  CHECK(judged(*h).size() == 2);
  CHECK(h->device(3).count<ReportAccepted>() == 0);
  h->speak(h->device(3), Progress{CoordinatorHarness::kRun, RoundNumber{1}, 5, 5});
  CHECK(h->device(3).last<ProgressReply>()->wanted);
  h->log.clear();
  h->release_held();
  CHECK(h->coordinator.committed_round() == RoundNumber{1});
  std::vector<int> order;  // the sum is begun before anything is judged for it
  for (const Action& action : h->log) {
    if (std::holds_alternative<BeginSum>(action)) order.push_back(1);
    if (std::holds_alternative<JudgeUpdate>(action)) order.push_back(2);
  }
  CHECK(order == std::vector<int>{1, 2});
  CHECK(judged(*h).front()->staleness == 1);
  CHECK(h->device(3).count<ReportAccepted>() == 1);
  report(*h, 1);
  h->release_held();
  CHECK(h->stored.at(1).accepted == 2);
  CHECK(h->stored.at(1).staleness == 0.5);
}

TEST_CASE("an update that waits for a sum is void with its model, which nobody keeps any more") {
  auto bytes = std::make_shared<std::vector<std::byte>>(kModelBytes);
  const std::weak_ptr<std::vector<std::byte>> watch = bytes;
  SharedBytes first(bytes, std::span<const std::byte>(*bytes));
  bytes.reset();
  auto options = asynchronous_options(1, 3, 3);
  options.config.asynchronous.max_staleness = 1;
  options.needs_base = true;
  CoordinatorHarness h(options, RoundNumber{0}, EncodedModel{first, first});
  first = {};
  h.start();
  for (std::uint64_t c = 1; c <= 3; ++c) {
    h.add(c).reports = false;
    h.connect(h.device(c));
  }
  h.settle();
  h.stores_at_once = false;
  report(h, 1);
  report(h, 2);      // waits for the second sum
  h.release_held();  // round 1 is committed, the second sum is full
  REQUIRE(judged(h).size() == 2);
  h.device(3).automatic = false;
  const Report old = h.device(3).report();
  report(h, 1);  // of round 2: before device 3 in the line for the third sum
  h.device(3).automatic = true;
  h.speak(h.device(3), old);  // of round 1
  CHECK(h.device(3).count<ReportRejected>() == 0);
  for (auto& [client, device] : h.devices) device.inbox.clear();  // chunks share the model's bytes
  h.log.clear();
  CHECK_FALSE(watch.expired());
  h.release_held();  // round 2 is committed, and the update of device 1 fills the third sum
  CHECK(h.coordinator.committed_round() == RoundNumber{2});
  REQUIRE(judged(h).size() == 1);
  CHECK(judged(h)[0]->key.client == ClientId{1});
  REQUIRE(h.device(3).last<ReportRejected>() != nullptr);
  CHECK(h.device(3).last<ReportRejected>()->reason == RejectReason::kLate);
  h.log.clear();
  CHECK(watch.expired());
  h.release_held();
  CHECK(h.stored.back().late == 1);
}

TEST_CASE("a device that replaces an update which waits for a sum gets in line again") {
  auto h = patient_fleet(4, asynchronous_options(1, 4, 4));
  h->stores_at_once = false;
  report(*h, 1);
  ScriptedDevice& device = h->device(2);
  device.automatic = false;
  const auto upload = [&](std::uint8_t content) {
    Report announced = device.report();
    announced.blob = sha256(filled(content).span());
    h->speak(device, announced);
    for (std::uint64_t offset = 0; offset < kModelBytes; offset += kChunkBytes) {
      h->speak(device, BlobChunk{announced.blob, offset, filled(content, kChunkBytes)});
    }
  };
  for (std::uint8_t content = 50; content < 60; ++content) upload(content);
  report(*h, 3);
  upload(60);
  CHECK(device.last<Refusal>() == nullptr);
  for (int commits = 0; commits < 3; ++commits) h->release_held();
  const auto order = judged(*h);
  REQUIRE(order.size() == 3);
  CHECK(order[1]->key.client == ClientId{3});
  CHECK(order[2]->key.client == ClientId{2});
  CHECK(order[2]->key.blob == sha256(filled(60).span()));
  CHECK(h->spool.empty());
}

TEST_CASE("an update that waits for a sum can be taken back or turn out to be bad") {
  const bool declines = GENERATE(true, false);
  CAPTURE(declines);
  auto h = patient_fleet(3, asynchronous_options(1, 3, 3));
  h->stores_at_once = false;
  report(*h, 1);
  Report again = h->device(2).report();
  again.weight = -1;
  report(*h, 2);
  if (declines) {
    h->speak(h->device(2), Decline{CoordinatorHarness::kRun, RoundNumber{1}, "no memory"});
  } else {
    h->speak(h->device(2), again);
  }
  CHECK(h->spool.empty());
  report(*h, 3);
  h->release_held();
  h->release_held();
  REQUIRE(h->stored.size() == 2);
  CHECK(judged(*h).size() == 2);
  CHECK(judged(*h)[1]->key.client == ClientId{3});
  CHECK(h->stored[1].declined + h->stored[1].rejected == 1);
}

TEST_CASE("a sum never takes more updates than the buffer holds") {
  auto h = patient_fleet(5, asynchronous_options(2, 5, 5));
  h->judges_at_once = false;
  for (std::uint64_t c = 1; c <= 5; ++c) report(*h, c);
  CHECK(judged(*h).size() == 2);  // the others wait for a verdict on these
  h->release_held();
  CHECK(h->coordinator.committed_round() == RoundNumber{1});
  CHECK(h->stored.at(0).accepted == 2);
  CHECK(judged(*h).size() == 4);
  h->rejection = std::pair(RejectReason::kOverNorm, std::string("too long"));
  h->release_held();
  h->rejection.reset();
  h->release_held();
  CHECK(h->coordinator.committed_round() == RoundNumber{2});
}

TEST_CASE("a place is free again when an update is rejected, and its device has to pause") {
  auto options = asynchronous_options(2, 1, 3);
  auto h = patient_fleet(1, options);
  h->rejection = std::pair(RejectReason::kOverNorm, std::string("too long"));
  ScriptedDevice& device = h->device(1);
  report(*h, 1);
  CHECK(device.count<ReportRejected>() == 1);
  CHECK(device.count<Assignment>() == 1);
  REQUIRE(device.last<RetryLater>() != nullptr);
  CHECK(device.last<RetryLater>()->window.delay_min >= 60s);
  h->rejection.reset();
  h->add_fleet(2, 2);  // takes the place
  CHECK(h->device(2).count<Assignment>() == 1);
  CHECK(h->device(2).count<ReportAccepted>() == 1);
  h->now += 60s;
  h->speak(device, CheckIn{device.conditions});  // behind its pause it gets the same model again
  CHECK(round_of(device) == 1);
  report(*h, 1);
  CHECK(h->stored.at(0).rejected == 1);
  CHECK(h->stored.at(0).accepted == 2);
  CHECK(h->stored.at(0).selected == 3);
}

TEST_CASE("a strategy that fails costs the sum and leaves the model, and work goes on") {
  auto h = patient_fleet(3, asynchronous_options(2, 3, 3));
  h->apply_error = failed("singular");
  report(*h, 1);
  report(*h, 2);
  CHECK(h->coordinator.committed_round() == RoundNumber{0});
  REQUIRE(h->published.size() == 1);
  CHECK_FALSE(h->published[0].committed);
  h->apply_error.reset();
  CHECK(round_of(h->device(1)) == 1);  // given the same model once more
  CHECK(h->device(3).count<RoundOver>() == 0);
  report(*h, 3);
  report(*h, 1);
  CHECK(h->coordinator.committed_round() == RoundNumber{1});
  CHECK(h->stored.back().accepted == 2);
}

TEST_CASE("a round that cannot be stored is tried again, and nobody has the new model before") {
  auto h = patient_fleet(3, asynchronous_options(2, 3, 3));
  h->store_error = failed("disk full");
  report(*h, 1);
  report(*h, 2);
  CHECK_FALSE(h->device(1).task);
  h->advance(1s);
  report(*h, 3);
  CHECK(h->coordinator.committed_round() == RoundNumber{0});
  h->store_error.reset();
  h->advance(10s);
  CHECK(h->coordinator.committed_round() == RoundNumber{1});
  CHECK(round_of(h->device(1)) == 2);
  CHECK(h->device(3).count<ReportAccepted>() == 1);
}

TEST_CASE("the run ends with its last round, and no work is given out that nobody would count") {
  auto options = asynchronous_options(2, 3, 3);
  options.config.num_rounds = 2;
  auto h = patient_fleet(3, options);
  for (std::uint64_t c = 1; c <= 3; ++c) report(*h, c);
  h->device(2).stop_at = 64;
  report(*h, 2);
  CHECK(h->spool.size() == 1);
  report(*h, 1);
  REQUIRE(h->finished);
  CHECK(h->spool.empty());  // nor are half an update's bytes kept
  CHECK(h->finished->ok);
  CHECK(h->coordinator.committed_round() == RoundNumber{2});
  for (const auto& [client, device] : h->devices) {
    CHECK(device.last<Refusal>()->reason == RefusalReason::kRunFinished);
    for (const ServerMessage& message : device.inbox) {
      const auto* task = std::get_if<Assignment>(&message);
      if (task != nullptr) CHECK(value_of(task->round) <= 2);
    }
  }
}

TEST_CASE("a stop while an asynchronous round is stored waits for the outcome") {
  auto h = patient_fleet(2, asynchronous_options(2, 2, 2));
  h->stores_at_once = false;
  report(*h, 1);
  report(*h, 2);
  for (auto& [client, device] : h->devices) device.reconnects = false;
  h->tell(StopRequested{});
  h->settle();
  CHECK_FALSE(h->finished);
  h->release_held();
  REQUIRE(h->finished);
  CHECK(h->finished->reason == "stopped");
  CHECK(h->coordinator.committed_round() == RoundNumber{1});
  CHECK(h->published.size() == 1);
}

TEST_CASE("a server that starts again forgets who was at work, and goes on") {
  std::vector<Report> unknown;
  {
    auto h = patient_fleet(4, asynchronous_options(2, 4, 4));
    report(*h, 1);
    report(*h, 2);
    REQUIRE(h->coordinator.committed_round() == RoundNumber{1});
    for (std::uint64_t c = 1; c <= 4; ++c) unknown.push_back(h->device(c).report());
  }
  CoordinatorHarness h(asynchronous_options(2, 4, 4), RoundNumber{1}, fp32_model(1));
  h.start();
  CHECK(h.published.size() == 1);  // its evaluation may have been lost
  for (std::uint64_t c = 1; c <= 4; ++c) {
    ScriptedDevice& device = h.add(c);
    device.automatic = false;
    h.connect(device);
    h.speak(device, Hello{});
    h.speak(device, unknown[static_cast<std::size_t>(c - 1)]);
    REQUIRE(device.last<ReportRejected>() != nullptr);
    CHECK(device.last<ReportRejected>()->reason == RejectReason::kLate);
    CHECK(device.last<Refusal>() == nullptr);
  }
  CHECK(judged(h).empty());
  for (std::uint64_t c = 1; c <= 4; ++c) {
    h.device(c).automatic = true;
    h.device(c).reports = false;
    h.speak(h.device(c), CheckIn{h.device(c).conditions});
    CHECK(round_of(h.device(c)) == 2);
  }
  report(h, 3);
  report(h, 4);
  CHECK(h.coordinator.committed_round() == RoundNumber{2});
}

TEST_CASE("the log says when a round gets no updates for the selection timeout") {
  auto options = asynchronous_options(2, 2, 2);
  options.config.selection.selection_timeout_s = 60;
  auto h = patient_fleet(2, options);
  report(*h, 1);
  h->advance(59s);
  CHECK(h->count<Note>() == 0);
  h->advance(2s);
  REQUIRE(h->count<Note>() == 1);
  for (const Action& action : h->log) {
    if (const auto* note = std::get_if<Note>(&action)) {
      CHECK_THAT(note->text, Contains("1 of 2 are in, 1 devices are at work and 1 wait"));
    }
  }
}

TEST_CASE("the status tells an operator how full the buffer is") {
  auto h = patient_fleet(3, asynchronous_options(2, 3, 3));
  report(*h, 1);
  report(*h, 2);
  report(*h, 1);
  const std::string status = h->coordinator.status_json(h->now);
  CHECK_THAT(status, Contains("\"phase\":\"reporting\"") && Contains("\"round\":2") &&
                         Contains("\"accepted\":1") && Contains("\"buffer\":2") &&
                         Contains("\"at_work\":2") && Contains("\"oldest_staleness\":1"));
}
