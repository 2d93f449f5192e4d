#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>

#include "fake_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

bool same_bytes(const SharedBytes& a, const SharedBytes& b) {
  return std::ranges::equal(a.span(), b.span());
}

}  // namespace

TEST_CASE("a device greets, checks in, downloads, trains, uploads and is accepted") {
  World world;
  SharedBytes trained_on;
  world.start();
  world.run_until([&] { return world.training.has_value(); });
  CHECK(same_bytes(world.training->model, world.server.model));
  CHECK(world.training->plan == world.server.assignment.plan);
  CHECK(world.training->client == ClientId{3});
  world.run_until_finished();

  CHECK(world.finished->ok);
  CHECK(world.device.finished());
  CHECK(world.device.rounds_accepted() == 1);
  CHECK(std::ranges::equal(world.server.upload, world.update.update.span()));
  const Report& report = *world.server.report;
  CHECK(report.weight == world.update.weight);
  CHECK(report.scalars == world.update.scalars);
  CHECK(report.num_examples == 12);
  CHECK(report.steps == 24);
  CHECK(report.train_loss == 1.25);
  CHECK(report.train_seconds == Approx(3));
  // 2440 bytes in pieces of 256: 9 whole ones and a rest of 136.
  const auto requests = sent<BlobRequest>(world.log);
  REQUIRE(requests.size() == 10);
  CHECK(requests.back().length == 136);
}

TEST_CASE("as many requests are under way as the protocol allows, and no more") {
  World world;
  world.start();
  std::size_t most = 0;
  while (world.device.phase_name() != "training") {
    REQUIRE(world.step());
    const std::size_t asked = sent<BlobRequest>(world.log).size();
    const std::size_t answered = (world.model_bytes_delivered + 255) / 256;
    REQUIRE(asked - answered <= kMaxOutstandingRequests);
    most = std::max(most, asked - answered);
  }
  CHECK(most == kMaxOutstandingRequests);
}

TEST_CASE("pieces are never larger than the server's chunks") {
  ParticipantOptions options = small_options();
  options.request_bytes = 1 << 20;
  World world(options);
  world.server.chunk_bytes = 300;
  world.start();
  world.run_until_phase("training");
  for (const BlobRequest& request : sent<BlobRequest>(world.log)) CHECK(request.length <= 300);
}

TEST_CASE("a model that comes in one chunk is handed on without a copy") {
  ParticipantOptions options = small_options();
  options.request_bytes = 1 << 20;
  World world(options);
  world.server.chunk_bytes = 1 << 20;
  world.start();
  world.run_until_phase("training");
  CHECK(world.training->model.data() == world.server.model.data());
}

TEST_CASE("chunks of an update are slices of it, not copies") {
  World world;
  world.start();
  world.run_until_finished();
  const auto chunks = sent<BlobChunk>(world.log);
  REQUIRE(chunks.size() > 1);
  for (const BlobChunk& chunk : chunks) {
    CHECK(chunk.payload.data() == world.update.update.data() + chunk.offset);
  }
}

TEST_CASE("a model that is held already is not downloaded again") {
  World world;
  world.start();
  world.run_until_phase("pausing");
  const auto before = sent<BlobRequest>(world.log).size();
  world.server.assignment.round = RoundNumber{2};
  world.server.round_done = false;
  world.server.upload.clear();
  world.server.report.reset();
  world.run_until([&] { return world.device.rounds_accepted() == 2; });
  CHECK(sent<BlobRequest>(world.log).size() == before);
  CHECK(world.trainings == 2);
}

TEST_CASE("a host of many devices may have nothing kept: the model is downloaded again") {
  ParticipantOptions options = small_options();
  options.keep_finished_work = false;
  World world(options);
  world.start();
  world.run_until_phase("pausing");
  world.server.assignment.round = RoundNumber{2};
  world.server.round_done = false;
  world.server.upload.clear();
  world.server.report.reset();
  world.model_bytes_delivered = 0;
  world.run_until([&] { return world.device.rounds_accepted() == 2; });
  CHECK(world.model_bytes_delivered == kSmallModelBytes);
}

TEST_CASE("heartbeats are sent while training, and progress as it comes") {
  World world;
  world.training_takes = 35s;
  world.start();
  world.run_until_phase("training");
  const auto before = sent<Progress>(world.log).size();
  const auto actions = world.event(TrainingProgress{5, 24});
  REQUIRE(sent<Progress>(actions).size() == 1);
  CHECK(sent<Progress>(actions)[0] == Progress{RunId{7}, RoundNumber{1}, 5, 24});
  // At once again: remembered, and said with the next heartbeat.
  CHECK(sent<Progress>(world.event(TrainingProgress{6, 24})).empty());
  world.run_until_phase("uploading");
  const auto progress = sent<Progress>(world.log);
  CHECK(progress.size() - before == 4);  // 1 and every 10 s for 35 s
  CHECK(progress.back().steps_done == 6);
}

TEST_CASE("a device that is not wanted any more stops training and checks in") {
  World world;
  world.training_takes = 60s;
  world.start();
  world.run_until_phase("training");
  const auto actions = world.receive(ProgressReply{RunId{7}, RoundNumber{1}, false});
  CHECK(all<CancelTraining>(actions).size() == 1);
  CHECK(sent<CheckIn>(actions).size() == 1);
  CHECK(world.device.phase_name() == "checking-in");
}

TEST_CASE("RoundOver stops the work in every working phase") {
  const auto phase = GENERATE("downloading", "training", "uploading");
  CAPTURE(phase);
  World world;
  world.start();
  world.run_until_phase(phase);
  const auto actions = world.receive(RoundOver{RunId{7}, RoundNumber{1}, RetryWindow{1s, 5s}});
  CHECK(world.device.phase_name() == "pausing");
  CHECK(all<CancelTraining>(actions).size() == (std::string_view(phase) == "training" ? 1 : 0));
  CHECK_FALSE(world.training);
}

TEST_CASE("RoundOver of another round changes nothing") {
  World world;
  world.start();
  world.run_until_phase("training");
  world.receive(RoundOver{RunId{7}, RoundNumber{2}, RetryWindow{1s, 5s}});
  world.receive(RoundOver{RunId{8}, RoundNumber{1}, RetryWindow{1s, 5s}});
  CHECK(world.device.phase_name() == "training");
  CHECK(world.training);
}

TEST_CASE("another assignment replaces the work at hand") {
  World world;
  world.start();
  world.run_until_phase("training");
  world.server.assignment.round = RoundNumber{2};
  const auto actions = world.receive(world.server.assignment);
  CHECK(all<CancelTraining>(actions).size() == 1);
  REQUIRE(world.training);  // at once: the model is the same
  CHECK(world.training->round == RoundNumber{2});
  // What the first training may still hand in is not reported.
  const auto late = world.event(TrainingFinished{RunId{7}, RoundNumber{1}, make_update(), 1s});
  CHECK(sent<Report>(late).empty());
}

TEST_CASE("answers to requests of a download given up are not taken for another's") {
  World world;
  world.start();
  world.run_until_phase("downloading");
  const auto asked = sent<BlobRequest>(world.log);
  REQUIRE(asked.size() == 4);
  const SharedBytes old_model = world.server.model;
  world.server.model = patterned_bytes(kSmallModelBytes, 2);
  world.server.assignment = make_assignment(world.server.model, 2);
  world.to_server.clear();
  auto actions = world.receive(world.server.assignment);
  CHECK(sent<BlobRequest>(actions).empty());  // four answers are still owed
  for (const BlobRequest& request : asked) {
    actions = world.receive(
        BlobChunk{request.blob, request.offset, old_model.slice(request.offset, request.length)});
    CHECK(sent<BlobRequest>(actions).size() == 1);
    CHECK(all<Disconnect>(actions).empty());
  }
  world.run_until_phase("training");
  CHECK(same_bytes(world.training->model, world.server.model));
}

TEST_CASE("a waiting device checks in again every five minutes and stays in the pool") {
  World world;
  world.start();
  world.run_until_phase("waiting");
  world.to_device.clear();  // no assignment
  const Time since = world.now;
  REQUIRE(world.timer);
  world.run_until([&] { return sent<CheckIn>(world.log).size() == 2; });
  CHECK(world.now - since == 5min);
  world.server.silent = true;
  world.to_server.clear();
  world.receive(Waiting{});
  CHECK(world.device.phase_name() == "waiting");
}

TEST_CASE("changed conditions are told while waiting") {
  World world;
  world.start();
  world.run_until_phase("waiting");
  DeviceConditions conditions = small_options().conditions;
  conditions.charging = false;
  const auto actions = world.event(ConditionsChanged{conditions, {}});
  REQUIRE(sent<CheckIn>(actions).size() == 1);
  CHECK_FALSE(sent<CheckIn>(actions)[0].conditions.charging);
}

TEST_CASE("a rejected report ends the task") {
  World world;
  world.start();
  world.run_until_phase("uploading");
  world.receive(ReportRejected{RunId{7}, RoundNumber{1}, RejectReason::kLate, "closed", {1s, 1s}});
  CHECK(world.device.phase_name() == "pausing");
  CHECK(world.device.rounds_accepted() == 0);
}

TEST_CASE("failed training is declined with its reason, and tried again if the round is") {
  World world;
  world.start();
  world.run_until_phase("training");
  world.training.reset();
  auto actions = world.event(
      TrainingFinished{RunId{7}, RoundNumber{1}, failed("the loss became NaN in epoch 1"), 1s});
  REQUIRE(sent<Decline>(actions).size() == 1);
  CHECK(sent<Decline>(actions)[0].reason == "the loss became NaN in epoch 1");
  CHECK(world.device.phase_name() == "pausing");
  // The server asks again for the same round: it was abandoned, and this is its next attempt.
  world.run_until_phase("training");
  CHECK(world.trainings == 2);
}

TEST_CASE("a plan this device cannot carry out is declined before anything is downloaded") {
  ParticipantOptions options = small_options();
  options.conditions.precisions = {"fp32"};
  options.conditions.compressors = {"fp32"};
  options.max_model_bytes = 1 << 20;
  World world(options);
  Assignment& assignment = world.server.assignment;
  std::string word;
  SECTION("a model size that is not the network's") {
    assignment.model_size += 4;
    word = "2444 bytes";
  }
  SECTION("an absurd model size") {
    assignment.model_size = UINT64_MAX;
    word = "18446744073709551615 bytes";
  }
  SECTION("a model too large for the device") {
    assignment.plan.model = *preset_model("logistic", {60000}, 10);
    assignment.model_size = 4 * (60000 * 10 + 10);
    word = "at most";
  }
  SECTION("a network that does not fit together") {
    assignment.plan.model.input_shape.clear();
    word = "network";
  }
  SECTION("an unknown precision") {
    assignment.plan.precision = "int8";
    word = "int8";
  }
  SECTION("an unknown compressor") {
    assignment.plan.compressor = "top-k";
    word = "top-k";
  }
  world.start();
  world.run_until_phase("pausing");
  const auto declines = sent<Decline>(world.log);
  REQUIRE(declines.size() == 1);
  CHECK_THAT(declines[0].reason, Catch::Contains(word));
  CHECK(sent<BlobRequest>(world.log).empty());
}
