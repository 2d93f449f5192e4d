#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>

#include "fake_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

Event allows(bool train, bool transfer) {
  return ConditionsChanged{small_options().conditions, {train, transfer, "the test says so"}};
}

}  // namespace

TEST_CASE("a device that may not use the network goes offline and goes on training") {
  World world;
  world.start();
  world.run_until_phase("training");
  const auto actions = world.event(allows(true, false));
  CHECK(all<Disconnect>(actions).size() == 1);
  CHECK(all<PauseTraining>(actions).empty());
  CHECK(world.training);
  while (world.step()) {  // until nothing is due any more: the update waits
    REQUIRE_FALSE(world.dialling);
  }
  CHECK_FALSE(world.training);
  CHECK(sent<Report>(world.log).empty());
  CHECK(world.device.phase_name() == "resting");
  world.event(allows(true, true));
  world.run_until_finished();
  CHECK(world.trainings == 1);
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE(
    "a training rests while it is not allowed, and the server hears that the device is there") {
  World world;
  world.start();
  world.run_until_phase("training");
  CHECK(all<PauseTraining>(world.event(allows(false, true))).size() == 1);
  CHECK(all<Disconnect>(world.log).empty());
  const auto beats = sent<Progress>(world.log).size();
  for (int i = 0; i < 20; ++i) world.step();
  CHECK(world.training);
  CHECK(sent<Progress>(world.log).size() > beats);
  CHECK(all<ResumeTraining>(world.event(allows(true, true))).size() == 1);
  world.run_until_finished();
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE("a model that comes while training is not allowed is trained on later") {
  World world;
  world.start();
  world.run_until_phase("downloading");
  world.event(allows(false, true));
  world.run_until_phase("training");
  CHECK(world.trainings == 0);
  CHECK(all<StartTraining>(world.event(allows(true, true))).size() == 1);
  world.run_until_finished();
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE("a device takes no new work that it may not do or has nothing for") {
  World world;
  Event why = GENERATE(allows(false, true), allows(true, false), allows(false, false),
                       Event(ConditionsChanged{DeviceConditions{}, {}}));
  SECTION("from the start") {
    world.options.permissions = std::get<ConditionsChanged>(why).permissions;
    world.options.conditions = std::get<ConditionsChanged>(why).conditions;
    world.device = Participant(world.options);
    world.start();
    CHECK(all<Connect>(world.log).empty());
  }
  SECTION("while connecting") {
    world.start();
    CHECK(all<Disconnect>(world.event(why)).size() == 1);
  }
  SECTION("in the pool") {
    world.start();
    world.run_until_phase("checking-in");
    world.to_server.clear();
    world.receive(Waiting{});
    CHECK(world.device.phase_name() == "waiting");
    CHECK(all<Disconnect>(world.event(why)).size() == 1);
  }
  while (world.step()) REQUIRE_FALSE(world.dialling);
  CHECK(world.device.phase_name() == "resting");
  world.event(allows(true, true));
  world.run_until_finished();
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE("a finished update is delivered also while training is not allowed") {
  World world;
  world.start();
  world.run_until_phase("uploading");
  world.event(allows(false, true));
  world.run_until([&] { return world.device.rounds_accepted() == 1; });
  while (world.step()) {
  }
  CHECK(world.device.phase_name() == "resting");
}

TEST_CASE("the server's window holds whatever is allowed meanwhile") {
  World world;
  world.start();
  world.run_until_phase("checking-in");
  world.to_server.clear();
  world.receive(RetryLater{{100s, 200s}, "full"});
  const Time told = world.now;
  world.event(allows(true, false));
  world.event(allows(true, true));
  world.run_until([&] { return world.dialling; });
  CHECK(world.now - told >= Duration(100s));
  CHECK(world.now - told <= Duration(200s));
}

TEST_CASE("permissions taken away for a while after any step cost nothing but time") {
  const auto taken =
      GENERATE(std::pair(false, true), std::pair(true, false), std::pair(false, false));
  std::uint32_t n = 0;
  for (bool ended = false; !ended; ++n) {
    INFO("train " << taken.first << ", transfer " << taken.second << " after step " << n);
    World world;
    world.start();
    for (std::uint32_t i = 0; i < n && !world.finished; ++i) REQUIRE(world.step());
    ended = world.finished.has_value();
    if (!ended) {
      world.event(allows(taken.first, taken.second));
      for (int i = 0; i < 8; ++i) world.step();
      REQUIRE((taken.second || !world.up));
      world.event(allows(true, true));
    }
    world.run_until_finished();
    REQUIRE(world.trainings == 1);
    REQUIRE(world.cancels == 0);
    REQUIRE(world.model_bytes_delivered == kSmallModelBytes);
    REQUIRE(world.server.upload_received == world.update.update.size());
  }
  CHECK(n > 30);
}

TEST_CASE("free memory that moves a little is not worth a check-in") {
  World world;
  world.options.conditions.free_memory_bytes = 1000;
  world.device = Participant(world.options);
  world.start();
  world.run_until_phase("waiting");
  DeviceConditions conditions = world.options.conditions;
  conditions.free_memory_bytes = 900;
  CHECK(sent<CheckIn>(world.event(ConditionsChanged{conditions, {}})).empty());
  conditions.free_memory_bytes = 100;
  CHECK(sent<CheckIn>(world.event(ConditionsChanged{conditions, {}})).size() == 1);
}
