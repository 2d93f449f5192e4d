#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <covey/server/round_coordinator.hpp>
#include <limits>
#include <memory>

#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using namespace std::chrono_literals;

namespace {

/// `count` devices, all selected, all with the model, none has reported.
std::unique_ptr<CoordinatorHarness> working_fleet(std::uint64_t count, CoordinatorOptions options) {
  auto h = std::make_unique<CoordinatorHarness>(std::move(options));
  h->start();
  for (std::uint64_t c = 1; c <= count; ++c) {
    h->add(c).reports = false;
    h->connect(h->device(c));
  }
  h->settle();
  return h;
}

std::unique_ptr<CoordinatorHarness> working_fleet(std::uint64_t count) {
  return working_fleet(count, default_options(static_cast<std::uint32_t>(count)));
}

const ReportRejected& rejection_of(const ScriptedDevice& device) {
  REQUIRE(device.last<ReportRejected>() != nullptr);
  return *device.last<ReportRejected>();
}

}  // namespace

TEST_CASE("a report that is not of this round or device is rejected and changes nothing") {
  auto options = default_options(3);
  options.config.selection.min_available_clients = 2;
  options.config.selection.min_fit_clients = 2;
  auto h = working_fleet(2, options);
  h->add_fleet(3, 3);  // not selected
  ScriptedDevice& device = h->device(1);
  Report report = device.report();
  SECTION("another run") {
    report.run = RunId{1};
    h->speak(device, report);
    CHECK(rejection_of(device).reason == RejectReason::kForeign);
    CHECK(rejection_of(device).run == RunId{1});
  }
  SECTION("a round that is over") {
    report.round = RoundNumber{0};
    h->speak(device, report);
    CHECK(rejection_of(device).reason == RejectReason::kLate);
  }
  SECTION("a round to come") {
    report.round = RoundNumber{2};
    h->speak(device, report);
    CHECK(rejection_of(device).reason == RejectReason::kForeign);
  }
  SECTION("a device that was not selected") {
    h->speak(h->device(3), report);
    CHECK(rejection_of(h->device(3)).reason == RejectReason::kForeign);
  }
  CHECK(h->opened.empty());
  h->speak(device, device.report());
  h->speak(h->device(2), h->device(2).report());
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].accepted == 2);
  CHECK(h->stored[0].rejected == 0);
}

TEST_CASE("a report with a fault is rejected before a byte is uploaded, and stays rejected") {
  auto options = default_options(2);
  options.num_scalars = 1;
  options.config.selection.quorum = 0.5;
  auto h = working_fleet(2, options);
  ScriptedDevice& device = h->device(1);
  Report report = device.report();
  report.scalars = {0.5};
  const Report good = report;
  RejectReason expected{};
  SECTION("size") {
    report.blob_size = kModelBytes + 4;
    expected = RejectReason::kWrongSize;
  }
  SECTION("weight not a number") {
    report.weight = std::numeric_limits<double>::quiet_NaN();
    expected = RejectReason::kNotFinite;
  }
  SECTION("weight infinite") {
    report.weight = std::numeric_limits<double>::infinity();
    expected = RejectReason::kNotFinite;
  }
  SECTION("weight negative") {
    report.weight = -1;
    expected = RejectReason::kMalformed;
  }
  SECTION("too few scalars") {
    report.scalars.clear();
    expected = RejectReason::kMalformed;
  }
  SECTION("scalar not finite") {
    report.scalars = {std::numeric_limits<double>::quiet_NaN()};
    expected = RejectReason::kNotFinite;
  }
  h->speak(device, report);
  CHECK(rejection_of(device).reason == expected);
  h->speak(device, good);
  CHECK(device.count<ReportRejected>() == 2);
  CHECK(rejection_of(device).reason == expected);
  CHECK(h->opened.empty());
  Report other = h->device(2).report();
  other.scalars = {0.5};
  h->speak(h->device(2), other);
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].committed);
  CHECK(h->stored[0].accepted == 1);
  CHECK(h->stored[0].rejected == 1);
  CHECK(h->stored[0].bytes_up == kModelBytes);
}

TEST_CASE("an update that is judged bad is rejected with the pipeline's reason") {
  auto h = working_fleet(1);
  h->rejection = std::pair(RejectReason::kOverNorm, std::string("norm 9 exceeds 5"));
  h->speak(h->device(1), h->device(1).report());
  CHECK(rejection_of(h->device(1)).reason == RejectReason::kOverNorm);
  CHECK(rejection_of(h->device(1)).text == "norm 9 exceeds 5");
  REQUIRE(h->stored.size() == 1);
  CHECK_FALSE(h->stored[0].committed);  // nobody was accepted
  CHECK(h->stored[0].rejected == 1);
  CHECK(h->stored[0].bytes_up == kModelBytes);
}

TEST_CASE("an accepted report said again is accepted again, other content is a duplicate") {
  auto h = working_fleet(2);
  ScriptedDevice& device = h->device(1);
  const Report report = device.report();
  h->speak(device, report);
  REQUIRE(device.count<ReportAccepted>() == 1);
  h->speak(device, report);
  CHECK(device.count<ReportAccepted>() == 2);
  Report other = report;
  other.blob = sha256(filled(200).span());
  h->speak(device, other);
  CHECK(rejection_of(device).reason == RejectReason::kDuplicate);
  CHECK(h->opened.size() == 1);
  CHECK(h->counted.at({RoundNumber{1}, ClientId{1}}) == 1);
}

TEST_CASE("an answer that was lost is given after the commit, until the next cohort is drawn") {
  auto options = default_options(2);
  options.config.num_rounds = 2;
  auto h = working_fleet(2, options);
  ScriptedDevice& device = h->device(2);
  device.automatic = false;  // does not check in again by itself, so round 2 waits for it
  const Report report = device.report();
  h->speak(h->device(1), h->device(1).report());
  h->speak(device, report);
  for (std::uint64_t offset = 0; offset < kModelBytes; offset += kChunkBytes) {
    h->chunk(device, offset, kChunkBytes);
  }
  h->settle();
  REQUIRE(h->coordinator.committed_round() == RoundNumber{1});
  REQUIRE(h->coordinator.phase() == Phase::kSelection);
  h->speak(device, report);
  CHECK(device.count<ReportAccepted>() == 2);
  h->speak(device, CheckIn{device.conditions});
  REQUIRE(h->coordinator.phase() == Phase::kReporting);
  h->speak(device, report);
  CHECK(rejection_of(device).reason == RejectReason::kLate);
}

TEST_CASE("uploads are let in a few at a time, first come, first served") {
  auto options = default_options(8);
  options.config.selection.max_uploads = 3;
  auto h = working_fleet(8, options);
  const std::vector<std::uint64_t> order = {5, 2, 8, 1, 7, 3, 6, 4};
  for (const std::uint64_t c : order) h->say(h->device(c), h->device(c).report());
  h->settle();
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].accepted == 8);
  CHECK(h->most_uploads == 3);
  std::vector<ClientId> expected;
  for (const std::uint64_t c : order) expected.push_back(ClientId{c});
  CHECK(h->opened == expected);
}

TEST_CASE("a device that leaves the queue does not hold its place") {
  auto options = default_options(3);
  options.config.selection.max_uploads = 1;
  auto h = working_fleet(3, options);
  h->device(1).stop_at = 64;  // holds the only slot
  for (std::uint64_t c = 1; c <= 3; ++c) h->speak(h->device(c), h->device(c).report());
  CHECK(h->opened == std::vector{ClientId{1}});
  h->lose_connection(h->device(2));
  h->settle();
  h->lose_connection(h->device(1));
  h->settle();
  CHECK(h->opened == std::vector{ClientId{1}, ClientId{3}});
  CHECK(h->device(3).count<ReportAccepted>() == 1);
}

TEST_CASE("an interrupted upload goes on at the byte where it stopped") {
  auto h = working_fleet(1);
  ScriptedDevice& device = h->device(1);
  device.stop_at = 96;
  h->speak(device, device.report());
  h->lose_connection(device);
  h->settle();
  device.stop_at = kModelBytes;
  device.reports = true;
  device.inbox.clear();
  h->connect(device);
  h->settle();
  REQUIRE(device.count<UploadGrant>() >= 1);
  for (const ServerMessage& message : device.inbox) {
    if (const auto* grant = std::get_if<UploadGrant>(&message)) {
      CHECK(grant->offset == 96);
      break;
    }
  }
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].accepted == 1);
}

TEST_CASE("a device that stalls in its upload loses the slot to the next one") {
  auto options = default_options(2);
  options.config.selection.max_uploads = 1;
  auto h = working_fleet(2, options);
  ScriptedDevice& slow = h->device(1);
  slow.stop_at = 64;
  slow.reconnects = false;
  h->speak(slow, slow.report());
  h->speak(h->device(2), h->device(2).report());
  h->advance(29s);
  CHECK(h->opened.size() == 1);
  h->advance(11s);
  CHECK(h->device(2).count<ReportAccepted>() == 1);
  CHECK_FALSE(slow.connection);
  slow.stop_at = kModelBytes;
  slow.reports = true;
  h->connect(slow);
  h->settle();
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].accepted == 2);
}

TEST_CASE("a hostile chunk ends its connection only, the device may come back and be counted") {
  auto h = working_fleet(2);
  ScriptedDevice& device = h->device(1);
  device.stop_at = 0;  // the test sends the chunks
  device.reconnects = false;
  bool granted = true;
  const Digest blob = sha256(device.update().span());
  BlobChunk chunk{blob, 0, device.update().slice(0, kChunkBytes)};
  SECTION("without a grant") { granted = false; }
  SECTION("of other content") { chunk.blob = sha256(filled(250).span()); }
  SECTION("not the next one") { chunk.offset = kChunkBytes; }
  SECTION("at an offset that would wrap") { chunk.offset = UINT64_MAX; }
  SECTION("empty") { chunk.payload = SharedBytes(); }
  SECTION("beyond the window") { chunk.payload = device.update().slice(0, 129); }
  if (granted) {
    h->speak(device, device.report());
    REQUIRE(device.last<UploadGrant>() != nullptr);
    REQUIRE(*device.last<UploadGrant>() == UploadGrant{blob, 0, 128});
  }
  h->speak(device, chunk);
  REQUIRE(device.last<Refusal>() != nullptr);
  CHECK(device.last<Refusal>()->reason == RefusalReason::kProtocol);
  CHECK_FALSE(device.connection);
  CHECK(h->count<WriteUpload>() == 0);
  CHECK(h->device(2).connection);

  device.stop_at = kModelBytes;
  device.reports = true;
  h->connect(device);
  h->speak(h->device(2), h->device(2).report());
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].accepted == 2);
}

TEST_CASE("a grant is extended when half of the window is used up") {
  auto h = working_fleet(1);
  ScriptedDevice& device = h->device(1);
  device.stop_at = 0;
  h->speak(device, device.report());
  const Digest blob = sha256(device.update().span());
  CHECK(*device.last<UploadGrant>() == UploadGrant{blob, 0, 128});
  h->chunk(device, 0, 32);
  h->settle();
  CHECK(device.count<UploadGrant>() == 1);
  h->chunk(device, 32, 32);
  h->settle();
  CHECK(device.count<UploadGrant>() == 2);
  CHECK(*device.last<UploadGrant>() == UploadGrant{blob, 64, 128});
  h->chunk(device, 64, 128);
  h->settle();
  CHECK(*device.last<UploadGrant>() == UploadGrant{blob, 192, 64});
  h->chunk(device, 192, 64);
  h->settle();
  CHECK(device.count<UploadGrant>() == 3);
  CHECK(device.count<ReportAccepted>() == 1);
}

TEST_CASE("chunks still in flight when the round closes are nobody's fault") {
  auto options = default_options(2);
  options.config.selection.quorum = 0.5;
  options.config.selection.round_deadline_s = 20;
  options.config.num_rounds = 2;
  auto h = working_fleet(2, options);
  ScriptedDevice& slow = h->device(1);
  slow.automatic = false;
  h->speak(slow, slow.report());
  h->chunk(slow, 0, 32);
  h->settle();
  h->speak(h->device(2), h->device(2).report());
  h->advance(20s);
  REQUIRE(h->stored.size() == 1);
  CHECK(slow.count<RoundOver>() == 1);
  h->chunk(slow, 32, 32);
  h->chunk(slow, 64, 32);
  h->settle();
  CHECK(slow.count<Refusal>() == 0);
  CHECK(slow.connection);
  CHECK(h->spool.empty());
  h->speak(slow, slow.report());
  CHECK(rejection_of(slow).reason == RejectReason::kLate);
}

TEST_CASE("the round waits for a judgement that is under way at the deadline") {
  auto options = default_options(2);
  options.config.selection.quorum = 0.5;
  options.config.selection.round_deadline_s = 20;
  auto h = working_fleet(2, options);
  h->judges_at_once = false;
  h->speak(h->device(1), h->device(1).report());
  REQUIRE(h->held.size() == 1);
  h->advance(100s);
  CHECK(h->stored.empty());
  // Closed to everybody else meanwhile.
  h->speak(h->device(2), h->device(2).report());
  CHECK(rejection_of(h->device(2)).reason == RejectReason::kLate);
  h->release_held();
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].accepted == 1);
  CHECK(h->device(1).count<ReportAccepted>() == 1);
}

TEST_CASE("a device that is away while its update is judged hears of it when it comes back") {
  auto h = working_fleet(2);
  h->judges_at_once = false;
  ScriptedDevice& device = h->device(1);
  h->speak(device, device.report());
  h->lose_connection(device);
  h->settle();
  h->release_held();
  CHECK(device.count<ReportAccepted>() == 0);
  device.reports = true;
  device.automatic = false;
  const Report report = device.report();
  h->connect(device);
  h->say(device, Hello{});
  h->speak(device, report);
  CHECK(device.count<ReportAccepted>() == 1);
  CHECK(h->counted.at({RoundNumber{1}, ClientId{1}}) == 1);
}

TEST_CASE("a device that has trained anew before it was judged is counted with the new update") {
  auto h = working_fleet(1);
  ScriptedDevice& device = h->device(1);
  device.automatic = false;
  h->opens_at_once = GENERATE(true, false);
  Report old = device.report();
  old.blob = sha256(filled(200).span());
  h->speak(device, old);
  h->speak(device, device.report());
  h->release_held();  // the answer to the first OpenUpload, where it is late
  h->release_held();
  REQUIRE(device.last<UploadGrant>() != nullptr);
  CHECK(device.last<UploadGrant>()->blob == sha256(device.update().span()));
  for (std::uint64_t offset = 0; offset < kModelBytes; offset += kChunkBytes) {
    h->chunk(device, offset, kChunkBytes);
    h->settle();
  }
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].accepted == 1);
  CHECK(h->spool.empty());
}

TEST_CASE("a full disk is not the device's fault: it may report again in the round") {
  const bool at_open = GENERATE(true, false);
  auto h = working_fleet(1);
  ScriptedDevice& device = h->device(1);
  (at_open ? h->open_error : h->write_error) = failed("no space left on device");
  h->speak(device, device.report());
  CHECK(rejection_of(device).reason == RejectReason::kServerFailed);
  CHECK(h->stored.empty());
  bool noted = false;
  for (const Action& action : h->log) {
    const auto* note = std::get_if<Note>(&action);
    noted |= note != nullptr && note->text.find("no space left on device") != std::string::npos;
  }
  CHECK(noted);
  h->open_error.reset();
  h->write_error.reset();
  h->speak(device, device.report());
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].accepted == 1);
  CHECK(h->stored[0].rejected == 0);
}

TEST_CASE("an upload that cannot be read back answers its judgement") {
  auto h = working_fleet(1);
  h->judges_at_once = false;
  ScriptedDevice& device = h->device(1);
  h->speak(device, device.report());
  const auto key = std::get<UpdateJudged>(h->held.at(0)).key;
  h->held.clear();
  h->tell(UploadFailed{key, failed("read error")});
  h->settle();
  CHECK(rejection_of(device).reason == RejectReason::kServerFailed);
  h->judges_at_once = true;
  h->speak(device, device.report());
  REQUIRE(h->stored.size() == 1);
  CHECK(h->stored[0].accepted == 1);
}

TEST_CASE("the coordinator keeps no payload") {
  RoundCoordinator coordinator(default_options(1), {RunId{99}, RoundNumber{0}, fp32_model(0)});
  Actions actions;
  coordinator.start(Time{}, actions);
  const ConnectionId connection{1};
  coordinator.handle(Time{}, DeviceConnected{connection, ClientId{1}, Role::kDevice}, actions);
  coordinator.handle(Time{}, Received{connection, Hello{}}, actions);
  DeviceConditions conditions;
  conditions.num_examples = 1;
  conditions.precisions = conditions.compressors = {"fp32"};
  coordinator.handle(Time{}, Received{connection, CheckIn{conditions}}, actions);
  auto bytes = std::make_shared<const std::vector<std::byte>>(kChunkBytes);
  Report report;
  report.run = RunId{99};
  report.round = RoundNumber{1};
  report.blob_size = kModelBytes;
  coordinator.handle(Time{}, Received{connection, report}, actions);
  const UploadKey key{RunId{99}, RoundNumber{1}, ClientId{1}, report.blob};
  coordinator.handle(Time{}, UploadOpened{key, std::uint64_t{0}}, actions);
  actions.clear();
  coordinator.handle(Time{}, Received{connection, BlobChunk{report.blob, 0, {bytes, *bytes}}},
                     actions);
  REQUIRE(std::holds_alternative<WriteUpload>(actions.at(0)));
  CHECK(bytes.use_count() == 2);  // ours and the action's
  actions.clear();
  CHECK(bytes.use_count() == 1);
}
