#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>

#include "fake_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

TEST_CASE("a retry window is drawn from uniformly") {
  double sum = 0;
  constexpr std::uint32_t kDevices = 400;
  for (std::uint32_t client = 0; client < kDevices; ++client) {
    ParticipantOptions options = small_options();
    options.client = ClientId{client};
    World world(options);
    world.start();
    world.run_until_phase("checking-in");
    const Time from = world.now;
    const auto actions = world.receive(RetryLater{{10s, 20s}, "full"});
    world.to_server.clear();
    CHECK(all<Disconnect>(actions).empty());  // a short pause is spent connected
    world.run_until([&] { return sent<CheckIn>(world.log).size() == 2; });
    const Duration pause = world.now - from;
    REQUIRE(pause >= 10s);
    REQUIRE(pause <= 20s);
    sum += seconds(pause);
  }
  // Mean of 400 uniform draws in [10, 20]: 15 with a standard deviation of 10/sqrt(12*400) = 0.144.
  CHECK(sum / kDevices == Approx(15).margin(0.6));
}

TEST_CASE("a long pause is spent without a connection") {
  World world;
  world.start();
  world.run_until_phase("checking-in");
  const Time from = world.now;
  const auto actions = world.receive(RetryLater{{100s, 200s}, "full"});
  CHECK(all<Disconnect>(actions).size() == 1);
  CHECK(world.device.phase_name() == "pausing");
  CHECK(world.event(ConnectionLost{"our own disconnect"}).empty());
  world.run_until([&] { return all<Connect>(world.log).size() == 2; });
  CHECK(world.now - from >= 100s);
  CHECK(world.now - from <= 200s);
  world.run_until_finished();
  CHECK(world.device.rounds_accepted() == 1);
}

TEST_CASE("a connection lost in a pause is not opened before the pause is over") {
  World world;
  world.start();
  world.run_until_phase("checking-in");
  const Time from = world.now;
  world.receive(RetryLater{{20s, 20s}, "full"});
  world.cut();
  world.run_until([&] { return all<Connect>(world.log).size() == 2; });
  CHECK(world.now - from >= 20s);
}

TEST_CASE("a window without sense is survived") {
  World world;
  world.start();
  world.run_until_phase("checking-in");
  const Time from = world.now;
  world.receive(RetryLater{{Duration::max(), Duration::min()}, ""});
  world.run_until([&] { return all<Connect>(world.log).size() == 2; });
  CHECK(world.now - from == std::chrono::hours(24 * 7));
}

TEST_CASE("backoff doubles up to its bound, with full jitter") {
  ParticipantOptions options = small_options();
  options.backoff_min = 200ms;
  options.backoff_max = 5s;
  std::vector<Duration> longest(10);
  for (std::uint32_t client = 0; client < 200; ++client) {
    options.client = ClientId{client};
    World world(options);
    world.start();
    for (std::size_t attempt = 0; attempt < longest.size(); ++attempt) {
      const Time lost = world.now;
      world.cut();  // while dialling
      world.run_until([&] { return world.dialling; });
      const Duration ceiling = std::min<Duration>(5s, 200ms * (1 << attempt));
      REQUIRE(world.now - lost <= ceiling);
      longest[attempt] = std::max(longest[attempt], world.now - lost);
    }
  }
  // The largest of 200 uniform draws is above 90% of the bound but with probability 0.9^200 < 1e-9.
  for (std::size_t attempt = 0; attempt < longest.size(); ++attempt) {
    CHECK(longest[attempt] > std::min<Duration>(5s, 200ms * (1 << attempt)) * 9 / 10);
  }
}

TEST_CASE("two devices do not come back in step, one device with one seed does") {
  const auto connects = [](std::uint64_t seed, std::uint64_t client) {
    ParticipantOptions options = small_options();
    options.seed = seed;
    options.client = ClientId{client};
    World world(options);
    world.start();
    world.cut();
    world.run_until([&] { return world.dialling; });
    return world.now;
  };
  CHECK(connects(1, 1) == connects(1, 1));
  CHECK(connects(1, 1) != connects(1, 2));
  CHECK(connects(1, 1) != connects(2, 1));
}

TEST_CASE("backoff starts anew once a connection lasted a minute") {
  World world;
  world.start();
  for (int i = 0; i < 8; ++i) {
    world.cut();
    world.run_until([&] { return world.dialling; });
  }
  world.run_until_phase("waiting");
  world.to_device.clear();
  world.now += 60s;
  const Time lost = world.now;
  world.cut();
  world.run_until([&] { return world.dialling; });
  CHECK(world.now - lost <= 200ms);
}

TEST_CASE("a server that greets and then talks nonsense is met ever more rarely") {
  World world;
  world.start();
  world.server.silent = true;
  Duration longest{};
  for (int i = 0; i < 12; ++i) {
    world.run_until_phase("greeting");
    world.to_server.clear();
    const Time broken = world.now;
    world.receive(Welcome{kProtocolVersion + 1, 512, 10s});
    world.run_until([&] { return world.dialling; });
    longest = std::max(longest, world.now - broken);
  }
  CHECK(longest > 5s);
}

TEST_CASE("silence while an answer is owed ends the connection") {
  const auto phase = GENERATE("greeting", "checking-in", "downloading", "uploading");
  CAPTURE(phase);
  World world;
  world.start();
  world.run_until_phase(phase);
  world.server.silent = true;
  world.to_device.clear();
  world.to_server.clear();
  const Time from = world.now;
  world.run_until_phase("disconnected");
  CHECK(world.now - from >= 29s);
  CHECK(world.now - from <= 31s);
  world.server.silent = false;
  world.run_until_finished();
  CHECK(world.finished->ok);
  CHECK(world.trainings == 1);
}

TEST_CASE("silence after a heartbeat ends the connection, not the training") {
  World world;
  world.training_takes = 10min;
  world.start();
  world.run_until_phase("training");
  world.server.silent = true;
  const Time from = world.now;
  world.run_until_phase("disconnected");
  CHECK(world.now - from == 40s);  // first heartbeat at 10 s, 30 s to answer
  CHECK(world.training);
}

TEST_CASE("a wait for an upload slot is sat out as long as heartbeats are answered") {
  const auto heartbeat = GENERATE(10s, 60s);  // below and above answer_timeout
  World world;
  world.server.heartbeat = heartbeat;
  world.training_takes = 70s;
  world.start();
  world.run_until_phase("uploading");
  world.to_server.clear();  // the server has the report but no room
  const Time from = world.now;
  world.run_until([&] { return world.now - from > 10min; });
  CHECK(world.device.phase_name() == "uploading");
  CHECK(all<Connect>(world.log).size() == 1);
  CHECK(sent<Progress>(world.log).back().steps_done == world.update.steps);
}

TEST_CASE("a heartbeat that a lost connection left unanswered is not waited for on the next") {
  World world;
  world.server.heartbeat = 60s;
  world.training_takes = 5min;
  world.start();
  world.run_until_phase("training");
  world.event(TrainingProgress{1, 24});
  world.cut();
  world.run_until_phase("training");
  world.run_until_phase("uploading");
  CHECK(all<Connect>(world.log).size() == 2);
}

TEST_CASE("a server that gives a good chunk and then a bad one is met ever more rarely") {
  World world;
  world.start();
  Duration longest{};
  for (std::uint64_t i = 1; i <= 9; ++i) {
    world.run_until([&] { return world.model_bytes_delivered == i * 256; });
    const Time broken = world.now;
    world.receive(BlobChunk{sha256({}), 0, SharedBytes()});
    REQUIRE(world.device.phase_name() == "disconnected");
    world.run_until([&] { return world.dialling; });
    longest = std::max(longest, world.now - broken);
  }
  CHECK(longest > 5s);
}

TEST_CASE("a device that declines again and again comes back ever later") {
  World world;
  world.server.assignment.model_size += 4;
  world.start();
  std::vector<Duration> pauses;
  for (std::size_t i = 1; i <= 4; ++i) {
    world.run_until([&] { return sent<Decline>(world.log).size() == i; });
    const Time from = world.now;
    world.run_until([&] { return sent<CheckIn>(world.log).size() == i + 1; });
    pauses.push_back(world.now - from);
  }
  // The n-th is uniform in [2^n / 2, 2^n] seconds.
  for (std::size_t n = 0; n < pauses.size(); ++n) {
    CHECK(pauses[n] >= 500ms * (1 << n));
    CHECK(pauses[n] <= 1000ms * (1 << n));
  }
}

TEST_CASE("a slow link is given the time its bytes take") {
  ParticipantOptions options = small_options();
  options.request_bytes = 256 * 1024;
  World world(options);
  world.server.assignment.plan.model = *preset_model("logistic", {60000}, 10);
  world.server.model = patterned_bytes(4 * (60000 * 10 + 10), 1);
  world.server.assignment.model = sha256(world.server.model.span());
  world.server.assignment.model_size = world.server.model.size();
  world.server.chunk_bytes = 256 * 1024;
  world.start();
  world.run_until_phase("downloading");
  world.server.silent = true;
  world.to_server.clear();
  const Time from = world.now;
  world.run_until_phase("disconnected");
  CHECK(world.now - from == 94s);  // 30 s and 256 KiB at 4 KiB/s
}

TEST_CASE("pieces and patience follow what the link was seen to bring") {
  ParticipantOptions options = small_options();
  options.request_bytes = 256 * 1024;
  options.piece_time = 1s;
  World world(options);
  world.server.assignment.plan.model = *preset_model("logistic", {60000}, 10);
  world.server.model = patterned_bytes(4 * (60000 * 10 + 10), 1);
  world.server.assignment.model = sha256(world.server.model.span());
  world.server.assignment.model_size = world.server.model.size();
  world.server.chunk_bytes = 256 * 1024;
  world.start();
  world.run_until_phase("downloading");
  REQUIRE(sent<BlobRequest>(world.log).back().length == 16 * 1024);  // nothing is known yet
  const auto answer_after = [&](Duration wait) {
    world.now += wait;
    const auto request = std::get<BlobRequest>(world.to_server.front());
    world.to_server.pop_front();
    return world.receive(BlobChunk{request.blob, request.offset,
                                   world.server.model.slice(request.offset, request.length)});
  };
  SECTION("little") {
    Actions actions;
    for (int i = 0; i < 4; ++i) actions = answer_after(8s);  // 2 KiB/s
    REQUIRE(sent<BlobRequest>(actions).size() == 1);
    CHECK(sent<BlobRequest>(actions)[0].length == 4 * 1024);
    world.server.silent = true;
    world.to_server.clear();
    const Time from = world.now;
    world.run_until_phase("disconnected");
    CHECK(world.now - from == 38s);  // 30 s and four times what 4 KiB take at 2 KiB/s
  }
  SECTION("much") {
    Actions actions;
    for (int i = 0; i < 4; ++i) actions = answer_after(10ms);  // 1.6 MB/s
    REQUIRE(sent<BlobRequest>(actions).size() == 1);
    CHECK(sent<BlobRequest>(actions)[0].length == 256 * 1024);
    CHECK(world.device.traffic().model_bytes == 4 * 16 * 1024);
    world.cut();
    world.run_until_phase("downloading");
    CHECK(sent<BlobRequest>(world.log).back().length ==
          128 * 1024);  // a cut costs half of what it did
  }
}
