#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>

#include "fake_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

// FakeServer and World require on the way that no byte travels twice in either direction.
TEST_CASE("a connection cut after any message costs no byte twice and no second training") {
  bool was_cut = true;
  std::uint32_t n = 1;
  for (; was_cut; ++n) {
    INFO("cut after message " << n);
    World world;
    world.cut_after = n;
    world.start();
    world.run_until_finished();
    was_cut = world.cuts > 0;
    REQUIRE(world.finished->ok);
    REQUIRE(world.server.round_done);
    REQUIRE(world.trainings == 1);
    REQUIRE(world.cancels == 0);
    REQUIRE(world.model_bytes_delivered == kSmallModelBytes);
    REQUIRE(world.server.upload_received == world.update.update.size());
  }
  // 10 requests and their chunks, 6 chunks of the update and their grants, and what is around them.
  CHECK(n > 35);
}

TEST_CASE("a connection cut again and again still gets the model and the update across") {
  World world;
  world.start();
  while (!world.finished) {
    REQUIRE(world.cuts < 200);
    // Hello, Welcome, CheckIn, Waiting, Assignment, then a few messages of real work
    world.cut_after = world.delivered + 12;
    const auto cuts = world.cuts;
    world.run_until([&] { return world.finished || world.cuts > cuts; });
  }
  CHECK(world.cuts > 5);
  CHECK(world.trainings == 1);
  CHECK(world.model_bytes_delivered == kSmallModelBytes);
  CHECK(world.server.upload_received == world.update.update.size());
}

TEST_CASE("training goes on without a connection and is reported when there is one") {
  World world;
  world.training_takes = 100s;
  world.start();
  world.run_until_phase("training");
  world.cut();
  CHECK(world.cancels == 0);
  SECTION("finished while offline") {
    // The device stays offline until the training is over.
    while (world.training) {
      if (world.dialling) world.cut();
      REQUIRE(world.step());
    }
    CHECK(sent<Report>(world.log).empty());
  }
  SECTION("finished after the reconnect") {
    world.run_until_phase("training");
    CHECK(world.training);
  }
  world.run_until_finished();
  CHECK(world.trainings == 1);
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE("a server that lost the round is given the finished update without a second training") {
  World world;
  world.start();
  world.run_until([&] { return world.device.rounds_accepted() == 1; });
  const auto requests = sent<BlobRequest>(world.log).size();
  // The server restarts from its last committed round and asks for the same.
  world.server.round_done = false;
  world.server.report.reset();
  world.server.upload.clear();
  world.cut();
  world.run_until_finished();
  CHECK(world.trainings == 1);
  CHECK(sent<BlobRequest>(world.log).size() == requests);
  CHECK(std::ranges::equal(world.server.upload, world.update.update.span()));
  CHECK(world.device.rounds_accepted() == 1);  // one round, accepted twice
}

TEST_CASE("training survives a server that forgot the device and assigns the same again") {
  World world;
  world.training_takes = 100s;
  world.start();
  world.run_until_phase("training");
  world.cut();
  world.run_until_phase("waiting");
  CHECK(world.training);
  world.run_until_finished();
  CHECK(world.trainings == 1);
  CHECK(world.cancels == 0);
}

TEST_CASE("another round after a reconnect discards the training of the old one") {
  World world;
  world.training_takes = 100s;
  world.start();
  world.run_until_phase("training");
  world.cut();
  world.server.assignment.round = RoundNumber{2};
  world.run_until_finished();
  CHECK(world.cancels == 1);
  CHECK(world.trainings == 2);
  CHECK(world.server.report->round == RoundNumber{2});
}

TEST_CASE("an update that the server could not store is kept for when it asks again") {
  World world;
  world.start();
  world.run_until_phase("uploading");
  world.receive(
      ReportRejected{RunId{7}, RoundNumber{1}, RejectReason::kServerFailed, "disk full", {1s, 1s}});
  world.to_server.clear();
  world.to_device.clear();
  world.server.report.reset();
  world.server.upload.clear();
  world.run_until_finished();
  CHECK(world.trainings == 1);
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE("a verdict lost with the connection is asked for again from the pool") {
  World world;
  world.start();
  world.run_until([&] { return world.server.round_done; });
  world.cut();  // before the ReportAccepted is delivered
  world.run_until_phase("checking-in");
  world.to_server.clear();
  world.to_device.clear();
  auto actions = world.receive(Waiting{});
  REQUIRE(sent<Report>(actions).size() == 1);
  world.to_server.clear();
  SECTION("counted") {
    world.receive(ReportAccepted{RunId{7}, RoundNumber{1}, RetryWindow{1s, 2s}});
    CHECK(world.device.rounds_accepted() == 1);
  }
  SECTION("late") {
    world.receive(
        ReportRejected{RunId{7}, RoundNumber{1}, RejectReason::kLate, "", RetryWindow{1s, 2s}});
    CHECK(world.device.rounds_accepted() == 0);
  }
  CHECK(world.device.phase_name() == "waiting");  // it may be selected any moment
  // Answered: not asked again.
  DeviceConditions conditions = small_options().conditions;
  conditions.charging = false;
  CHECK(sent<CheckIn>(world.event(ConditionsChanged{conditions, {}})).size() == 1);
  actions = world.receive(Waiting{});
  CHECK(sent<Report>(actions).empty());
}

TEST_CASE("an update that is not wanted any more may still have been counted") {
  World world;
  world.start();
  world.run_until_phase("uploading");
  world.to_server.clear();
  world.to_device.clear();
  CHECK(sent<CheckIn>(world.receive(ProgressReply{RunId{7}, RoundNumber{1}, false})).size() == 1);
  CHECK(sent<Report>(world.receive(Waiting{})).size() == 1);
  world.receive(ReportAccepted{RunId{7}, RoundNumber{1}, RetryWindow{1s, 2s}});
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE("work is only taken up for exactly the same assignment") {
  World world;
  world.training_takes = 100s;
  world.start();
  world.run_until_phase("training");
  world.cut();
  Assignment& assignment = world.server.assignment;
  std::uint32_t cancels = 1;
  SECTION("the same") { cancels = 0; }
  SECTION("more time") {
    assignment.report_within = 5s;
    cancels = 0;
  }
  SECTION("run") { assignment.run = RunId{8}; }
  SECTION("round") { assignment.round = RoundNumber{2}; }
  SECTION("plan") { assignment.plan.learning_rate *= 2; }
  SECTION("model") {
    world.server.model = patterned_bytes(kSmallModelBytes, 6);
    assignment.model = sha256(world.server.model.span());
    world.model_bytes_delivered = 0;
  }
  world.run_until_finished();
  CHECK(world.cancels == cancels);
  CHECK(world.trainings == 1 + cancels);
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE("requests that a lost connection left unanswered do not count on the next") {
  World world;
  world.start();
  world.run_until_phase("downloading");
  REQUIRE(sent<BlobRequest>(world.log).size() == 4);
  world.receive(RoundOver{RunId{7}, RoundNumber{1}, RetryWindow{1s, 1s}});
  world.cut();
  world.server.assignment.round = RoundNumber{2};
  world.run_until_phase("downloading");
  CHECK(sent<BlobRequest>(world.log).size() == 8);
  world.run_until_finished();
  CHECK(world.device.rounds_accepted() == 1);
}
