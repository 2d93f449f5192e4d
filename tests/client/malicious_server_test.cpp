#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>

#include "fake_server.hpp"

// A server can waste a device's time within the limits that client/README.md states, and nothing
// more.

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

std::size_t notes(const Actions& actions, const std::string& text) {
  std::size_t found = 0;
  for (const Note& note : all<Note>(actions)) found += note.text.find(text) != std::string::npos;
  return found;
}

Assignment endless_assignment(const SharedBytes& model) {
  Assignment assignment = make_assignment(model);
  assignment.plan.local_epochs = UINT32_MAX;
  assignment.report_within = Duration::max();
  return assignment;
}

}  // namespace

TEST_CASE("a training that would never end is given up when the owner's time for it is over") {
  ParticipantOptions options = small_options();
  options.max_training_time = 60s;
  World world(options);
  world.server.assignment = endless_assignment(world.server.model);
  world.training_takes = std::chrono::hours(24 * 365);
  world.start();
  world.run_until_phase("training");
  const Time began = world.now;
  SECTION("while the server goes on wanting it") {
    world.run_until_phase("pausing");
    CHECK(world.now - began == 60s);
    const auto declines = sent<Decline>(world.log);
    REQUIRE(declines.size() == 1);
    CHECK(declines[0].reason == "training took longer than the 60 s it may take");
  }
  SECTION("without a connection") {
    world.event(ConditionsChanged{options.conditions, {.transfer = false, .reason = "metered"}});
    world.run_until([&] { return world.cancels == 1; });
    CHECK(world.now - began == 60s);
    CHECK(notes(world.log, "training took longer than the 60 s it may take") == 1);
  }
  SECTION("rests are not counted") {
    world.now += 40s;
    world.event(ConditionsChanged{options.conditions, {.train = false, .reason = "warm"}});
    world.now += 1000s;
    world.event(ConditionsChanged{options.conditions, {}});
    world.run_until_phase("pausing");
    CHECK(world.now - began == 1060s);
  }
  CHECK(world.cancels == 1);
  CHECK_FALSE(world.finished);
}

TEST_CASE("a training shorter than the owner's time for it is not disturbed") {
  ParticipantOptions options = small_options();
  options.max_training_time = 4s;
  World world(options);  // trains for three seconds
  world.start();
  world.run_until_finished();
  CHECK(world.cancels == 0);
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE("a server that goes on talking nonsense cannot fill the log") {
  World world;
  world.start();
  world.run_until_phase("waiting");
  world.log.clear();
  int messages = 0;
  while (world.up && messages < 5000) {
    world.receive(StatusReply{"{}"});
    ++messages;
  }
  CHECK(messages == 1001);
  CHECK(all<Note>(world.log).size() <= 1001);
  CHECK(world.device.phase_name() == "disconnected");
  world.run_until_finished();
  CHECK(world.finished->ok);
}

TEST_CASE("a server cannot wear out the disk with ever new tasks") {
  World world;
  world.switch_on();
  world.run_until_phase("waiting");
  world.to_device.clear();
  const std::uint32_t writes = world.disk->writes;
  std::uint32_t tasks = 0;
  while (world.up && tasks < 5000) {
    world.receive(make_assignment(world.server.model, 100 + tasks));
    ++tasks;
  }
  CHECK(tasks == 1001);
  CHECK(world.disk->writes - writes < 5 * 1001);
  CHECK(notes(world.log, "faster than anybody could train") == 1);
  // A second later it takes one more.
  world.run_until_phase("waiting");
  world.to_device.clear();
  world.now += 1s;
  world.receive(make_assignment(world.server.model, 9000));
  CHECK(world.device.phase_name() == "downloading");
}

TEST_CASE("a server cannot have an update sent in pieces that take more memory than the update") {
  World world;
  world.start();
  world.run_until_phase("greeting");
  world.receive(Welcome{kProtocolVersion, GENERATE(0u, 1u, 255u), 10s});
  CHECK_FALSE(world.up);
  world.run_until_finished();
  CHECK(world.finished->ok);
}

TEST_CASE("no retry window keeps a device away for more than a week") {
  World world;
  world.start();
  world.run_until_phase("waiting");
  world.to_device.clear();
  const Time then = world.now;
  world.receive(RetryLater{{Duration::max(), Duration::max()}, "for ever"});
  REQUIRE(world.timer);
  CHECK(*world.timer - then <= std::chrono::hours(24 * 7));
  world.run_until_finished();
  CHECK(world.finished->ok);
}

TEST_CASE("heartbeats are at most ten a second, whatever the server asks for") {
  World world;
  world.server.heartbeat = GENERATE(Duration(0), Duration(1), Duration::min());
  world.training_takes = 30s;
  world.start();
  world.run_until_finished();
  CHECK(sent<Progress>(world.log).size() <= 330);
  CHECK(world.finished->ok);
}

TEST_CASE("a task that does not fit is declined before anything is asked for or kept") {
  World world;
  Assignment assignment = make_assignment(world.server.model);
  std::string reason;
  SECTION("a model of another size than its network") {
    assignment.model_size = UINT64_MAX;
    reason = "the plan's network takes 2440";
  }
  SECTION("a network of more parameters than work") {
    assignment.plan.model = *preset_model("logistic", {1 << 20}, 1 << 16);
    reason = "at most";
  }
  SECTION("a precision that nobody knows") {
    assignment.plan.precision = "fp64";
    reason = "precision";
  }
  world.server.assignment = assignment;
  world.switch_on();
  world.run_until_phase("pausing");
  CHECK(sent<BlobRequest>(world.log).empty());
  REQUIRE(sent<Decline>(world.log).size() == 1);
  CHECK_THAT(sent<Decline>(world.log)[0].reason, Catch::Contains(reason));
  CHECK(world.disk->files.size() <= 1);
}

TEST_CASE("a server that asks again for what was declined is met ever more rarely") {
  World world;
  world.server.assignment.plan.precision = "fp64";
  world.start();
  const auto declined = [&] { return sent<Decline>(world.log).size(); };
  world.run_until([&] { return declined() == 10; });
  const Time then = world.now;
  world.run_until([&] { return declined() == 20; });
  CHECK(world.now - then >= 10 * small_options().backoff_max / 2);
}
