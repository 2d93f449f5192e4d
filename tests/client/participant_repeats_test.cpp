// What a server gains by saying the same things again, in another order, to another process or on
// another connection: nothing.

#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>
#include <utility>
#include <vector>

#include "fake_server.hpp"
#include "sum_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

constexpr auto kCurious = ThreatModel::kHonestButCurious;
constexpr auto kMalicious = ThreatModel::kMaliciousServer;

AggregationId attempt(std::uint8_t number) {
  AggregationId id;
  id.bytes[0] = number;
  return id;
}

std::size_t keys_made(const Actions& log) {
  std::vector<AggregationRound> made;
  for (const AdvertiseKeys& message : sent<AdvertiseKeys>(log)) made.push_back(message.round);
  std::ranges::sort(made);
  REQUIRE(std::ranges::adjacent_find(made) == made.end());
  return made.size();
}

/// From one loss of a connection to the next attempt to connect, at most.
Duration longest_wait(World& world, int times, Duration connected, const ConnectionLost& loss) {
  Duration longest{};
  for (int i = 0; i < times; ++i) {
    world.run_until_phase("waiting");
    world.to_server.clear();
    world.to_device.clear();
    world.now += connected;
    const Time lost = world.now;
    world.up = false;
    world.event(loss);
    world.run_until([&] { return world.dialling; });
    longest = std::max(longest, world.now - lost);
  }
  return longest;
}

}  // namespace

TEST_CASE("a masked report that was rejected is not asked about without its mask") {
  for (const ThreatModel model : {kCurious, kMalicious}) {
    SumWorld world(model);
    world.start();
    world.run_until([&] { return !world.server.upload.empty(); });
    world.to_server.clear();
    world.to_device.clear();
    world.server.upload.clear();
    const auto& task = world.server.assignment;
    world.receive(ReportRejected{task.run, task.round, RejectReason::kServerFailed, "disk full",
                                 RetryWindow{1s, 2s}});
    world.run_until_phase("aggregating");
    world.cut();
    world.run_until_finished();
    CHECK(world.finished->ok);
    CHECK(world.sum_is_plain());
  }
}

TEST_CASE("a model of no bytes is declined") {
  World world;
  world.server.assignment.model_size = 0;
  world.start();
  world.run_until_phase("pausing");
  REQUIRE(sent<Decline>(world.log).size() == 1);
  CHECK(sent<Decline>(world.log)[0].reason == "the model has no bytes");
}

TEST_CASE("a second sum of a round in which shares were revealed is not had by a run in between") {
  SumWorld world(kMalicious);
  world.start();
  world.run_until([&] { return world.device.rounds_accepted() == 1; });
  world.server.device = nullptr;  // does not end the run
  world.server.assignment.run = RunId{8};
  world.server.new_attempt();
  world.run_until([&] { return world.device.rounds_accepted() == 2; });
  REQUIRE(sent<Unmask>(world.log).size() == 2);
  world.server.assignment.run = RunId{7};
  world.server.new_attempt();
  world.run_until(
      [&] { return !world.last_decline().empty() || sent<Unmask>(world.log).size() > 2; });
  CHECK(sent<Unmask>(world.log).size() == 2);
  CHECK_THAT(world.last_decline(), Catch::Contains("could show a single update"));
}

TEST_CASE("a device that can remember no further run takes part in no sum of one") {
  ParticipantOptions options = small_options();
  SavedWork& saved = options.saved.emplace();
  const bool known = GENERATE(false, true);  // run 7 among them, in an earlier round
  for (std::uint64_t i = 0; i < kMostRevealedRuns; ++i) {
    saved.revealed.emplace_back(RunId{i + (known ? 1 : 100)}, RoundNumber{0});
  }
  SumWorld world(kMalicious, options);
  world.start();
  world.run_until([&] { return world.finished || !world.last_decline().empty(); });
  CHECK(world.device.rounds_accepted() == (known ? 1 : 0));
  if (!known) CHECK_THAT(world.last_decline(), Catch::Contains("can remember no more"));
}

TEST_CASE("no sum's keys are made twice, whatever sums are asked for in between") {
  const bool killed = GENERATE(false, true);
  const bool other_round = GENERATE(false, true);
  CAPTURE(killed, other_round);
  SumWorld world(kCurious);
  world.server.waits = true;
  world.switch_on();
  world.run_until_phase("aggregating");
  const Assignment first = world.server.assignment;
  world.to_server.clear();
  Assignment second = first;
  second.aggregation = attempt(200);
  if (other_round) second.round = RoundNumber{2};
  world.receive(second);
  world.run_until_phase("aggregating");
  world.to_server.clear();
  REQUIRE(keys_made(world.log) == 2);
  if (killed) world.kill();
  if (!killed) world.receive(first);
  world.run_until([&] { return !sent<Decline>(world.log).empty(); });
  CHECK(keys_made(world.log) == 2);
  CHECK(world.last_decline() == "the server asks for a sum that this device has left");
}

TEST_CASE("the attempts at one round that a device makes keys for are bounded") {
  SumWorld world(kCurious);
  world.server.waits = true;
  world.start();
  world.run_until_phase("aggregating");
  Assignment next = world.server.assignment;
  for (std::uint8_t number = 2; number <= 70; ++number) {
    world.to_server.clear();
    next.aggregation = attempt(number);
    world.receive(next);
  }
  CHECK(keys_made(world.log) == kMostKeyedSums);
  CHECK_FALSE(world.last_decline().empty());
  next.round = RoundNumber{2};
  world.receive(next);
  world.run_until_phase("aggregating");
  CHECK(keys_made(world.log) == kMostKeyedSums + 1);
}

TEST_CASE("what an earlier process did is held to what the owner asks for now") {
  World world;
  world.switch_on();
  world.run_until_phase(GENERATE("downloading", "training", "uploading"));
  const auto reports = sent<Report>(world.log).size();
  std::string why;
  SECTION("privacy") {
    world.options.required_privacy.threat_model = kCurious;
    why = "takes part only in sums";
  }
  SECTION("size") {
    world.options.max_model_bytes = 100;
    why = "takes 100 at most";
  }
  SECTION("what else it asks of a plan") {
    world.options.check_plan = [](const TrainingPlan&) { return failed("not this one"); };
    why = "not this one";
  }
  world.kill();
  world.run_until_phase("pausing");
  CHECK(sent<Report>(world.log).size() == reports);
  bool noted = false;
  for (const Note& note : all<Note>(world.log)) {
    noted |= note.text.find("what an earlier process kept is dropped: ") != std::string::npos &&
             note.text.find(why) != std::string::npos;
  }
  CHECK(noted);
  CHECK_THAT(sent<Decline>(world.log).back().reason, Catch::Contains(why));
}

TEST_CASE("a server cannot wear out the disk with the same task under ever other names") {
  World world;
  world.switch_on();
  world.run_until_phase("waiting");
  world.to_device.clear();
  const std::uint32_t writes = world.disk->writes;
  Assignment assignment = world.server.assignment;
  int messages = 0;
  for (; world.up && messages < 5000; ++messages) {
    assignment.aggregation = attempt(static_cast<std::uint8_t>(messages % 2));
    world.receive(assignment);
  }
  CHECK(messages == 1001);
  CHECK(world.disk->writes - writes < 5 * 1001);
}

TEST_CASE("a server cannot wear out the disk by asking for an update and rejecting it") {
  World world;
  world.switch_on();
  world.run_until_phase("uploading");
  const std::uint32_t writes = world.disk->writes;
  const Assignment& task = world.server.assignment;
  int messages = 0;
  for (; world.up && messages < 5000; ++messages) {
    world.receive(ReportRejected{task.run, task.round, RejectReason::kServerFailed, "", {}});
    if (world.up) world.receive(task);
  }
  CHECK(messages <= 1001);
  CHECK(world.disk->writes - writes < 10 * 1001);
}

TEST_CASE("a server that greets, has nothing to say and hangs up is met ever more rarely") {
  World world;
  world.start();
  CHECK(longest_wait(world, 12, 1s, {"cut"}) > 5s);
}

TEST_CASE("connections that last do not lengthen the backoff, bad messages on them do") {
  World world;
  world.start();
  CHECK(longest_wait(world, 12, 60s, {"cut"}) <= 200ms);
  CHECK(longest_wait(world, 12, 60s, {"a message that does not decode", true}) > 5s);
}

TEST_CASE("what compression lost of a sum is settled when its shares are revealed") {
  const bool killed = GENERATE(false, true);
  const bool rejected = GENERATE(false, true);
  const auto model = GENERATE(kCurious, kMalicious);
  CAPTURE(killed, rejected, std::string(to_string(model)));
  SumWorld world(model);
  const SharedBytes kept = patterned_bytes(400, 31);
  world.update.residual = kept;
  std::vector<std::pair<RoundNumber, Digest>> began;
  world.on_training = [&](const TrainingTask& task) {
    began.emplace_back(task.round, sha256(task.residual.span()));
  };
  world.switch_on();
  world.run_until([&] { return !sent<Unmask>(world.log).empty(); });
  world.to_server.clear();
  world.to_device.clear();
  const auto& task = world.server.assignment;
  if (rejected) {
    world.receive(ReportRejected{task.run, task.round, RejectReason::kLate, "", {1s, 2s}});
  }
  world.server.assignment.round = RoundNumber{2};  // the server knows the first no more
  world.server.new_attempt();
  if (killed) world.kill();
  if (!killed && world.up) world.cut();
  world.run_until([&] { return began.back().first == RoundNumber{2}; });
  CHECK(began.front().second == sha256({}));
  CHECK(began.back().second == (rejected ? sha256({}) : sha256(kept.span())));
}
