#include <catch2/catch.hpp>
#include <chrono>
#include <covey/server/round_coordinator.hpp>

#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using namespace std::chrono_literals;

namespace {

ScriptedDevice& manual(CoordinatorHarness& h, std::uint64_t client, Role role = Role::kDevice) {
  ScriptedDevice& device = h.add(client, role);
  device.automatic = false;
  device.reconnects = false;
  h.connect(device);
  h.settle();
  return device;
}

}  // namespace

TEST_CASE("a device of another protocol version is refused with both ranges named") {
  CoordinatorHarness h(default_options(100));  // more than ever come: devices wait
  h.start();
  ScriptedDevice& device = manual(h, 1);
  h.speak(device, Hello{4, 6, "covey/9"});
  REQUIRE(device.last<Refusal>() != nullptr);
  CHECK(device.last<Refusal>()->reason == RefusalReason::kVersion);
  CHECK(device.last<Refusal>()->text ==
        "this server speaks protocol versions 1 to 1, the device 4 to 6");
  CHECK_FALSE(device.connection);
}

TEST_CASE("a newer device that still speaks this version is welcome") {
  CoordinatorHarness h(default_options(100));  // more than ever come: devices wait
  h.start();
  ScriptedDevice& device = manual(h, 1);
  h.speak(device, Hello{1, 6, "covey/9"});
  REQUIRE(device.last<Welcome>() != nullptr);
  CHECK(device.last<Welcome>()->version == 1);
  CHECK(device.last<Welcome>()->max_chunk_bytes == kChunkBytes);
  CHECK(device.last<Welcome>()->heartbeat_interval == Duration(10s));
}

TEST_CASE("anything before Hello, and a second Hello, is refused") {
  CoordinatorHarness h(default_options(100));  // more than ever come: devices wait
  h.start();
  ScriptedDevice& eager = manual(h, 1);
  h.speak(eager, CheckIn{eager.conditions});
  REQUIRE(eager.last<Refusal>() != nullptr);
  CHECK(eager.last<Refusal>()->reason == RefusalReason::kProtocol);
  CHECK_FALSE(eager.connection);
  ScriptedDevice& twice = manual(h, 2);
  h.speak(twice, Hello{});
  h.speak(twice, Hello{});
  REQUIRE(twice.last<Refusal>() != nullptr);
  CHECK(twice.last<Refusal>()->reason == RefusalReason::kProtocol);
}

TEST_CASE("of two connections of one device the newer one wins") {
  CoordinatorHarness h(default_options(100));  // more than ever come: devices wait
  h.start();
  h.add_fleet(1, 1);
  ScriptedDevice& device = h.device(1);
  const ConnectionId older = *device.connection;
  device.reconnects = false;
  h.connect(device);
  h.settle();
  CHECK(device.connection != older);
  CHECK(device.count<Waiting>() == 2);
  std::size_t closed = 0;
  for (const Action& action : h.log) {
    if (const auto* close = std::get_if<Close>(&action)) closed += close->connection == older;
  }
  CHECK(closed == 1);
  // What the old connection still says is heard by nobody, and its end changes nothing.
  h.tell(Received{older, CheckIn{device.conditions}});
  h.tell(DeviceGone{older});
  h.settle();
  CHECK(device.count<Waiting>() == 2);
  CHECK(h.coordinator.status_json(h.now).find("\"pool\":1") != std::string::npos);
}

TEST_CASE("an operator may ask for the status and nothing else") {
  CoordinatorHarness h(default_options(100));  // more than ever come: devices wait
  h.start();
  ScriptedDevice& person = manual(h, 1, Role::kOperator);
  h.speak(person, Hello{});
  h.speak(person, StatusRequest{});
  REQUIRE(person.last<StatusReply>() != nullptr);
  CHECK(person.last<StatusReply>()->json == h.coordinator.status_json(h.now));
  CHECK(person.connection);
  h.speak(person, CheckIn{person.conditions});
  REQUIRE(person.last<Refusal>() != nullptr);
  CHECK(person.last<Refusal>()->reason == RefusalReason::kNotAuthorised);
  CHECK_FALSE(person.connection);
}

TEST_CASE("a device may not ask for the status") {
  CoordinatorHarness h(default_options(100));  // more than ever come: devices wait
  h.start();
  ScriptedDevice& device = manual(h, 1);
  h.speak(device, Hello{});
  h.speak(device, StatusRequest{});
  REQUIRE(device.last<Refusal>() != nullptr);
  CHECK(device.last<Refusal>()->reason == RefusalReason::kNotAuthorised);
  CHECK(device.count<StatusReply>() == 0);
}

TEST_CASE("an operator with a device's number does not displace the device") {
  CoordinatorHarness h(default_options(100));  // more than ever come: devices wait
  h.start();
  h.add_fleet(1, 1);
  h.tell(DeviceConnected{ConnectionId{1000}, ClientId{1}, Role::kOperator});
  h.settle();
  CHECK(h.count<Close>() == 0);
  CHECK(h.coordinator.status_json(h.now).find("\"connections\":2") != std::string::npos);
}

TEST_CASE("devices that cannot take part are sent away with the reason and a window") {
  auto options = default_options(100);
  options.config.selection.require_charging = true;
  options.config.selection.require_unmetered = true;
  CoordinatorHarness h(options);
  h.start();
  struct Case {
    const char* reason;
    std::function<void(DeviceConditions&)> spoil;
  };
  const std::vector<Case> cases = {
      {"the device has no examples", [](auto& c) { c.num_examples = 0; }},
      {"the device is not charging", [](auto& c) { c.charging = false; }},
      {"the network is metered", [](auto& c) { c.metered = true; }},
      {"the device cannot train in fp32", [](auto& c) { c.precisions = {"int8"}; }},
      {"the device cannot encode updates as fp32", [](auto& c) { c.compressors.clear(); }},
  };
  std::uint64_t client = 0;
  for (const Case& c : cases) {
    ScriptedDevice& device = h.add(++client);
    c.spoil(device.conditions);
    h.connect(device);
    h.settle();
    REQUIRE(device.last<RetryLater>() != nullptr);
    CHECK(device.last<RetryLater>()->reason == c.reason);
    CHECK(device.last<RetryLater>()->window == RetryWindow{60s, 120s});
    CHECK(device.count<Waiting>() == 0);
  }
  ScriptedDevice& fit = h.add(++client);
  h.connect(fit);
  h.settle();
  CHECK(fit.count<Waiting>() == 1);
  // A waiting device whose conditions change leaves the pool.
  fit.conditions.charging = false;
  h.speak(fit, CheckIn{fit.conditions});
  CHECK(fit.count<RetryLater>() == 1);
  CHECK(h.coordinator.status_json(h.now).find("\"pool\":0") != std::string::npos);
}

TEST_CASE("when the pool is full the retry window grows with those who are ahead") {
  auto options = default_options(100);
  options.config.selection.max_waiting = 4;
  options.config.selection.min_fit_clients = 50;
  // A round is under way, so that the pool fills up and is not drawn from.
  options.config.selection.min_available_clients = 1;
  CoordinatorHarness h(options);
  h.start();
  h.add(1).reports = false;
  h.connect(h.device(1));
  h.settle();
  REQUIRE(h.device(1).count<Assignment>() == 1);
  h.add_fleet(2, 12);
  for (std::uint64_t c = 2; c <= 5; ++c) CHECK(h.device(c).count<Waiting>() == 1);
  for (std::uint64_t c = 6; c <= 12; ++c) REQUIRE(h.device(c).count<RetryLater>() == 1);
  // Ahead of device 6 are 4 waiting and itself turned away: ceil(5 / 4) = 2 times the usual window;
  // ahead of device 12 are 4 + 7: ceil(11 / 4) = 3 times.
  CHECK(h.device(6).last<RetryLater>()->window == RetryWindow{60s, 240s});
  CHECK(h.device(12).last<RetryLater>()->window == RetryWindow{60s, 360s});
  // A device that waits already is not sent away.
  h.speak(h.device(2), CheckIn{h.device(2).conditions});
  CHECK(h.device(2).count<Waiting>() == 2);
}

TEST_CASE("the retry window of the run file is what devices get with every answer to a report") {
  auto options = default_options(2);
  options.config.selection.retry_min_s = 300;
  options.config.selection.retry_max_s = 900;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 2);
  CHECK(h.device(1).last<ReportAccepted>()->retry == RetryWindow{300s, 900s});
}

TEST_CASE("a selected device that comes back is given the same task with the time that is left") {
  CoordinatorHarness h(default_options(2));
  h.start();
  for (std::uint64_t c = 1; c <= 2; ++c) {
    h.add(c).reports = false;
    h.connect(h.device(c));
  }
  h.settle();
  ScriptedDevice& device = h.device(1);
  const Assignment first = *device.last<Assignment>();
  CHECK(first.report_within == Duration(600s));
  h.lose_connection(device);
  h.settle();
  h.advance(5s);
  h.connect(device);
  h.settle();
  REQUIRE(device.count<Assignment>() == 2);
  Assignment expected = first;
  expected.report_within = Duration(595s);
  CHECK(*device.last<Assignment>() == expected);
}

TEST_CASE("only a selected device gets the model, in slices of at most a chunk") {
  auto options = default_options(2);
  options.config.selection.min_available_clients = 1;
  options.config.selection.min_fit_clients = 1;
  CoordinatorHarness h(options);
  h.start();
  h.add(1).reports = false;
  h.connect(h.device(1));
  h.settle();
  h.add_fleet(2, 2);
  const Digest model = sha256(filled(0).span());
  ScriptedDevice& selected = h.device(1);
  ScriptedDevice& other = h.device(2);
  selected.automatic = false;
  h.speak(selected, BlobRequest{model, kModelBytes - 8, 1000});
  REQUIRE(selected.last<BlobChunk>() != nullptr);
  CHECK(selected.last<BlobChunk>()->payload.size() == 8);
  h.speak(selected, BlobRequest{model, 16, UINT32_MAX});
  CHECK(selected.last<BlobChunk>()->payload.size() == kChunkBytes);
  // A slice of the model itself: no copy is made for a receiver.
  CHECK(selected.last<BlobChunk>()->payload.data() == h.coordinator.model().data() + 16);

  h.speak(other, BlobRequest{model, 0, 10});
  CHECK(other.count<BlobChunk>() == 0);
  CHECK(other.count<BlobMissing>() == 1);
  CHECK(other.connection);
  h.speak(selected, BlobRequest{sha256(filled(77).span()), 0, 10});
  CHECK(selected.count<BlobMissing>() == 1);
  CHECK(selected.connection);
}

TEST_CASE("a request past the model's end or for no bytes ends the connection") {
  const auto request = GENERATE(std::pair<std::uint64_t, std::uint32_t>(kModelBytes, 1),
                                std::pair<std::uint64_t, std::uint32_t>(UINT64_MAX, 1),
                                std::pair<std::uint64_t, std::uint32_t>(0, 0));
  CoordinatorHarness h(default_options(1));
  h.start();
  ScriptedDevice& device = h.add(1);
  device.reports = false;
  device.reconnects = false;
  h.connect(device);
  h.settle();
  h.speak(device, BlobRequest{device.task->model, request.first, request.second});
  REQUIRE(device.last<Refusal>() != nullptr);
  CHECK(device.last<Refusal>()->reason == RefusalReason::kProtocol);
  CHECK_FALSE(device.connection);
}

TEST_CASE("last round's model is gone") {
  auto options = default_options(1);
  options.config.num_rounds = 2;
  CoordinatorHarness h(options);
  h.start();
  ScriptedDevice& device = h.add(1);
  h.connect(device);
  // Let round 1 pass, stop in round 2 before the report.
  h.fate = [&](const ScriptedDevice& d, const ClientMessage& message) {
    if (d.task && d.task->round == RoundNumber{2} && std::holds_alternative<BlobRequest>(message)) {
      h.devices.begin()->second.reports = false;
    }
    return Fate::kDeliver;
  };
  h.settle();
  REQUIRE(h.coordinator.committed_round() == RoundNumber{1});
  REQUIRE_FALSE(h.finished);
  h.speak(device, BlobRequest{sha256(filled(0).span()), 0, 32});
  CHECK(device.count<BlobMissing>() == 1);
}

TEST_CASE("progress on a task that is over is answered with: not wanted") {
  CoordinatorHarness h(default_options(2));
  h.start();
  for (std::uint64_t c = 1; c <= 2; ++c) {
    h.add(c).reports = false;
    h.connect(h.device(c));
  }
  h.settle();
  ScriptedDevice& device = h.device(1);
  h.speak(device, Progress{CoordinatorHarness::kRun, RoundNumber{1}, 1, 9});
  CHECK(device.last<ProgressReply>()->wanted);
  h.speak(device, Progress{CoordinatorHarness::kRun, RoundNumber{2}, 1, 9});
  CHECK_FALSE(device.last<ProgressReply>()->wanted);
  h.speak(device, Progress{RunId{5}, RoundNumber{1}, 1, 9});
  CHECK_FALSE(device.last<ProgressReply>()->wanted);
  h.speak(device, Decline{CoordinatorHarness::kRun, RoundNumber{1}, "busy"});
  h.speak(device, Progress{CoordinatorHarness::kRun, RoundNumber{1}, 1, 9});
  CHECK_FALSE(device.last<ProgressReply>()->wanted);
}
