#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>
#include <set>
#include <utility>
#include <vector>

#include "fake_server.hpp"
#include "sum_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

TEST_CASE("a device killed after any action ends with its update counted once") {
  const bool sent_survives = GENERATE(false, true);
  bool was_killed = true;
  std::uint32_t n = 1;
  for (; was_killed; ++n) {
    INFO("killed after action " << n << ", what it sent "
                                << (sent_survives ? "arrives" : "is lost"));
    World world;
    world.kill_after = n;
    world.sent_survives = sent_survives;
    world.switch_on();
    world.run_until_finished();
    was_killed = world.kills > 0;
    REQUIRE(world.finished->ok);
    REQUIRE(world.server.round_done);
    REQUIRE(std::ranges::equal(world.server.upload, world.update.update.span()));
    REQUIRE(world.server.upload_received == world.update.update.size());
    // What was received and not on disk yet is one piece at most.
    REQUIRE(world.model_bytes_lost <= world.options.request_bytes);
    REQUIRE(world.model_bytes_delivered == kSmallModelBytes);
    REQUIRE(world.disk_notes.empty());
  }
  CHECK(n > 45);
}

TEST_CASE("a device killed again and again still gets through") {
  World world;
  world.switch_on();
  while (!world.finished) {
    REQUIRE(world.kills < 300);
    // Connect, Hello, CheckIn and their timers, then some real work.
    world.kill_after = world.carried_out + 16;
    const auto kills = world.kills;
    world.run_until([&] { return world.finished || world.kills > kills; });
  }
  CHECK(world.kills > 3);
  CHECK(world.server.round_done);
  CHECK(world.server.upload_received == world.update.update.size());
}

// The five devices of a sum: this one may be killed anywhere, and takes part in another attempt if
// its keys were lost. What it must never do is reveal shares in two sums of a round.
TEST_CASE("a device of a secure sum killed after any action ends in a good state") {
  const auto threat_model = GENERATE(ThreatModel::kHonestButCurious, ThreatModel::kMaliciousServer);
  bool was_killed = true;
  std::uint32_t n = 1;
  for (; was_killed; ++n) {
    INFO("killed after action " << n);
    SumWorld world(threat_model);
    world.kill_after = n;
    world.switch_on();
    std::set<AggregationRound> unmasked;
    world.on_sent = [&](const ClientMessage& message) {
      if (const auto* unmask = std::get_if<Unmask>(&message)) unmasked.insert(unmask->round);
    };
    // The server tries the round once more when the device says no.
    std::size_t declines = 0;
    // Counted, and the keys by which it could be asked about are gone.
    const auto never_hears = [&] {
      return world.server.round_done && world.kills > 0 && world.device.phase_name() == "waiting";
    };
    for (int steps = 0; !world.finished && !never_hears(); ++steps) {
      REQUIRE(steps < 5000);
      REQUIRE(world.step());
      const auto said = sent<Decline>(world.log);
      if (said.size() == declines) continue;
      declines = said.size();
      if (said.back().revealed) break;
      if (!world.server.round_done) world.server.new_attempt();
    }
    was_killed = world.kills > 0;
    if (threat_model == ThreatModel::kMaliciousServer) REQUIRE(unmasked.size() <= 1);
    if (!world.server.round_done)
      continue;  // it helped to unmask one sum, and keeps out of the next
    REQUIRE(world.sum_is_plain());
    REQUIRE(world.trainings <= (world.kills > 0 ? 2u : 1u));
  }
  CHECK(n > 40);
}

TEST_CASE(
    "a device that revealed shares does not take part in another sum of the round as a new "
    "process") {
  SumWorld world(ThreatModel::kMaliciousServer);
  world.switch_on();
  world.run_until([&] { return !sent<Unmask>(world.log).empty(); });
  world.to_server.clear();
  world.kill();
  world.server.new_attempt();
  world.run_until([&] { return !sent<Decline>(world.log).empty(); });
  CHECK(sent<Decline>(world.log).back().revealed);
  CHECK(sent<Unmask>(world.log).size() == 1);
}

namespace {

SharedBytes residual_of_round(std::uint32_t round) {
  return patterned_bytes(kSmallModelBytes, 100 + round);
}

}  // namespace

TEST_CASE("what compression lost reaches the next round's training through any kill") {
  bool was_killed = true;
  std::uint32_t n = 1;
  for (; was_killed; ++n) {
    INFO("killed after action " << n);
    World world;
    world.kill_after = n;
    world.server.more_rounds = true;
    std::vector<std::pair<std::uint32_t, Digest>> residuals;  // that trainings began with
    world.on_training = [&](const TrainingTask& task) {
      residuals.emplace_back(value_of(task.round), sha256(task.residual.span()));
      world.update.residual = residual_of_round(value_of(task.round));
    };
    world.switch_on();
    world.run_until([&] { return world.device.last_accepted() == RoundNumber{1}; });
    world.server.more_rounds = false;
    world.server.round_done = false;
    world.server.report.reset();
    world.server.upload.clear();
    world.server.assignment.round = RoundNumber{2};
    world.run_until_finished();
    was_killed = world.kills > 0;
    REQUIRE_FALSE(residuals.empty());
    for (const auto& [round, residual] : residuals) {
      REQUIRE(residual == (round == 1 ? sha256({}) : sha256(residual_of_round(1).span())));
    }
  }
  CHECK(n > 60);
}

TEST_CASE("a difference to the model at hand survives any kill, and is fetched once") {
  bool was_killed = true;
  std::uint32_t n = 1;
  for (; was_killed; ++n) {
    INFO("killed after action " << n);
    World world;
    world.offer_difference();
    world.kill_after = n;
    std::vector<Digest> models;
    world.on_training = [&](const TrainingTask& task) {
      models.push_back(sha256(task.model.span()));
    };
    world.switch_on();
    world.run_until_finished();
    was_killed = world.kills > 0;
    REQUIRE(world.server.round_done);
    REQUIRE(world.model_bytes_lost <= world.options.request_bytes);
    for (const auto& request : sent<BlobRequest>(world.log)) {
      REQUIRE(request.blob == world.server.assignment.delta->blob);
    }
    for (const Digest& model : models) REQUIRE(model == world.server.assignment.model);
  }
  CHECK(n > 20);
}

TEST_CASE("a difference that comes to nothing costs one download of the whole model") {
  World world;
  world.offer_difference();
  auto& delta = *world.server.assignment.delta;
  SECTION("of unknown encoding") { delta.encoding = "none"; }
  SECTION("that makes another model") {
    world.server.model = patterned_bytes(kSmallModelBytes, 77);
    world.server.assignment.model = sha256(world.server.model.span());
  }
  SECTION("that the server forgot") { world.server.forgets_difference = true; }
  SECTION("to a model that the device does not have") { delta.base = Digest{}; }
  SECTION("that does not fit the device's memory") {
    world.options.has_room = [](std::uint64_t) { return false; };
  }
  world.switch_on();
  world.model_bytes_checked = false;
  world.run_until_finished();
  CHECK(world.finished->ok);
  CHECK(world.server.round_done);
  CHECK(world.trainings == 1);
  const auto requests = sent<BlobRequest>(world.log);
  CHECK(std::ranges::any_of(
      requests, [&](const auto& r) { return r.blob == world.server.assignment.model; }));
}

TEST_CASE("a disk that fills up at any write costs a word, not the round") {
  const bool tears = GENERATE(false, true);
  std::uint32_t n = 0;
  for (bool full = true; full; ++n) {
    INFO("full from write " << n << ", torn: " << tears);
    World world;
    world.disk->fails_from = n;
    world.disk->tears = tears;
    world.switch_on();
    world.run_until_finished();
    full = world.disk->writes > n;
    REQUIRE(world.finished->ok);
    REQUIRE(world.trainings == 1);
    REQUIRE(world.model_bytes_delivered == kSmallModelBytes);
    REQUIRE(world.server.upload_received == world.update.update.size());
    REQUIRE(world.disk_notes.empty() != full);
  }
  CHECK(n > 15);
}

TEST_CASE(
    "a training whose round is over is not begun again by a new process before the server says "
    "so") {
  World world;
  world.server.assignment.report_within = 60s;
  world.training_takes = 100s;
  world.switch_on();
  world.run_until_phase("training");
  CHECK(world.trainings == 1);
  SECTION("in time") {
    world.kill();
    CHECK(world.trainings == 2);  // at once, without a connection
  }
  SECTION("too late") {
    world.down_for = 61s;
    world.kill();
    CHECK(world.trainings == 1);
    world.run_until_phase("training");
    CHECK(world.trainings == 2);  // the server gave it more time
  }
}

TEST_CASE("a new process stays away as long as the old one was told to") {
  World world;
  world.switch_on();
  world.run_until_phase("checking-in");
  world.to_server.clear();
  world.receive(RetryLater{{100s, 200s}, "full"});
  const Time told = world.now;
  world.kill();
  CHECK(world.device.phase_name() == "pausing");
  world.run_until([&] { return world.dialling; });
  CHECK(world.now - told >= Duration(100s));
  CHECK(world.now - told <= Duration(200s));
}

TEST_CASE("a polite stop keeps what is saved, and the next process goes on with it") {
  World world;
  world.switch_on();
  world.run_until_phase("training");
  const auto actions = world.event(StopRequested{});
  CHECK(sent<Decline>(actions).empty());
  REQUIRE(all<Save>(actions).size() == 1);  // that this training did not end the process
  CHECK(all<Save>(actions)[0].work->task->starts == 0);
  world.finished.reset();
  world.kill();
  CHECK(world.training);
  world.run_until_finished();
  CHECK(world.server.round_done);
}

TEST_CASE("work of another run is dropped with a word") {
  World world;
  world.switch_on();
  world.run_until_phase("uploading");
  world.server.assignment.run = RunId{8};
  world.server.report.reset();
  world.server.upload.clear();
  world.kill();
  world.run_until_finished();
  CHECK(world.server.report->run == RunId{8});
  CHECK(world.trainings == 2);
  const auto notes = all<Note>(world.log);
  CHECK(std::ranges::any_of(notes, [](const Note& note) {
    return note.text.find("discarded undelivered (3000 bytes)") != std::string::npos;
  }));
}

TEST_CASE("what is saved at the end of a run is nothing") {
  World world;
  world.switch_on();
  world.run_until_finished();
  CHECK(world.disk->files.size() == 1);  // what is remembered of rounds
}

TEST_CASE("a new process makes no other keys for a sum that the old one made keys for") {
  SumWorld world(ThreatModel::kHonestButCurious);
  world.server.waits = true;
  world.switch_on();
  world.run_until([&] { return !sent<AdvertiseKeys>(world.log).empty(); });
  world.kill();
  world.run_until([&] { return !sent<Decline>(world.log).empty(); });
  CHECK(sent<AdvertiseKeys>(world.log).size() == 1);
  CHECK(world.last_decline() == "the server asks for a sum that this device has left");
}
