#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>

#include "fake_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

void check_disconnected(const World& world, const Actions& actions) {
  CHECK(all<Disconnect>(actions).size() == 1);
  CHECK(world.device.phase_name() == "disconnected");
  CHECK_FALSE(world.device.finished());
}

}  // namespace

TEST_CASE("a chunk that answers no request breaks the connection and changes nothing") {
  World world;
  world.start();
  world.run_until([&] { return world.model_bytes_delivered == 512; });
  const Digest blob = world.server.assignment.model;
  const SharedBytes& model = world.server.model;
  BlobChunk chunk{blob, 512, model.slice(512, 256)};
  SECTION("of another blob") { chunk.blob = sha256({}); }
  SECTION("at an offset behind the next") { chunk.offset = 768; }
  SECTION("at an offset held already") { chunk.offset = 256; }
  SECTION("beyond the end") { chunk.offset = UINT64_MAX - 4; }
  SECTION("longer than asked for") { chunk.payload = model.slice(512, 257); }
  SECTION("empty") { chunk.payload = SharedBytes(); }
  check_disconnected(world, world.receive(chunk));
  world.run_until_finished();  // the download goes on where it was
  CHECK(world.finished->ok);
  CHECK(world.model_bytes_delivered == kSmallModelBytes);
}

TEST_CASE("a model with the wrong hash is downloaded once more, then declined") {
  World world;
  world.server.model = patterned_bytes(kSmallModelBytes, 77);  // not what the assignment names
  world.start();
  world.run_until([&] { return world.model_bytes_delivered == kSmallModelBytes; });
  world.model_bytes_delivered = 0;
  CHECK(world.device.phase_name() == "downloading");
  SECTION("right the second time") {
    world.to_device.clear();
    const auto asked = sent<BlobRequest>(world.log).size();
    REQUIRE(asked == 14);
    world.server.model = patterned_bytes(kSmallModelBytes, 1);
    world.run_until_finished();
    CHECK(world.device.rounds_accepted() == 1);
  }
  SECTION("wrong again") {
    world.run_until_phase("pausing");
    REQUIRE(sent<Decline>(world.log).size() == 1);
    CHECK_THAT(sent<Decline>(world.log)[0].reason, Catch::Contains("hash"));
    CHECK(world.trainings == 0);
  }
}

TEST_CASE("a missing model is declined") {
  World world;
  world.start();
  world.run_until_phase("downloading");
  world.receive(BlobMissing{world.server.assignment.model});
  CHECK(world.device.phase_name() == "pausing");
  CHECK(sent<Decline>(world.log).size() == 1);
}

TEST_CASE("a grant that makes no sense breaks the connection") {
  World world;
  world.start();
  world.run_until_phase("uploading");
  UploadGrant grant{world.update.digest, 0, 1024};
  SECTION("for another blob") { grant.blob = sha256({}); }
  SECTION("beyond the update's end") { grant.offset = world.update.update.size() + 1; }
  check_disconnected(world, world.receive(grant));
  world.run_until_finished();
  CHECK(world.finished->ok);
}

TEST_CASE("repeated and overlapping grants send no byte twice on a connection") {
  World world;
  world.start();
  world.run_until_phase("uploading");
  const Digest blob = world.update.digest;
  const auto bytes = [](const Actions& actions) {
    std::size_t total = 0;
    for (const BlobChunk& chunk : sent<BlobChunk>(actions)) total += chunk.payload.size();
    return total;
  };
  CHECK(bytes(world.receive(UploadGrant{blob, 0, 1024})) == 1024);
  CHECK(bytes(world.receive(UploadGrant{blob, 0, 1024})) == 0);
  CHECK(bytes(world.receive(UploadGrant{blob, 512, 1024})) == 512);
  CHECK(bytes(world.receive(UploadGrant{blob, 0, UINT32_MAX})) == 3000 - 1536);
  CHECK(bytes(world.receive(UploadGrant{blob, 3000, 1024})) == 0);
}

TEST_CASE("no message in no phase makes the device crash or leave for good") {
  const auto phase = GENERATE("greeting", "checking-in", "waiting", "downloading", "training",
                              "uploading", "pausing");
  CAPTURE(phase);
  const Digest other = sha256({});
  const RunId run{7};
  const RoundNumber round{1};
  const std::vector<ServerMessage> messages = {
      Welcome{0, 0, Duration::min()},
      Welcome{kProtocolVersion, 512, Duration::max()},
      Refusal{RefusalReason::kShuttingDown, "again later"},
      Waiting{},
      RetryLater{{Duration::min(), Duration::max()}, ""},
      RetryLater{{Duration::max(), Duration::min()}, ""},
      make_assignment(patterned_bytes(kSmallModelBytes, 5), 9),
      Assignment{},
      BlobChunk{other, UINT64_MAX, patterned_bytes(9, 1)},
      BlobMissing{other},
      UploadGrant{other, UINT64_MAX, UINT32_MAX},
      ProgressReply{run, round, true},
      ProgressReply{run, round, false},
      ReportAccepted{run, round, {}},
      ReportAccepted{run, RoundNumber{5}, {}},
      ReportRejected{run, round, RejectReason::kOverNorm, "", {}},
      RoundOver{run, round, {}},
      RoundOver{RunId{1}, round, {}},
      StatusReply{"{}"}};
  for (std::size_t i = 0; i < messages.size(); ++i) {
    CAPTURE(i);
    World world;
    world.start();
    world.run_until_phase(phase);
    world.receive(messages[i]);
    REQUIRE_FALSE(world.device.finished());
    world.to_server.clear();
    world.to_device.clear();
    // However it took that: it finds its way to the end of the run.
    if (world.up) world.cut();
    world.server.round_done = true;
    world.run_until_finished();
    REQUIRE(world.finished->ok);
  }
}

TEST_CASE("a refusal ends or delays the device by its reason") {
  World world;
  world.start();
  world.run_until_phase("greeting");
  SECTION("the run is over") {
    world.receive(Refusal{RefusalReason::kRunFinished, "40 rounds"});
    REQUIRE(world.finished);
    CHECK(world.finished->ok);
  }
  SECTION("shutting down: it comes back") {
    world.receive(Refusal{RefusalReason::kShuttingDown, ""});
    CHECK_FALSE(world.finished);
    world.run_until_finished();
    CHECK(world.device.rounds_accepted() == 1);
  }
  SECTION("revoked") {
    world.receive(Refusal{RefusalReason::kRevoked, "certificate 3 is revoked"});
    REQUIRE(world.finished);
    CHECK_FALSE(world.finished->ok);
    CHECK_THAT(world.finished->reason, Catch::Contains("certificate 3 is revoked"));
  }
  SECTION("version") {
    world.receive(Refusal{RefusalReason::kVersion, "speaks 2"});
    REQUIRE(world.finished);
    CHECK_FALSE(world.finished->ok);
  }
  CHECK(world.finished);
  CHECK_FALSE(world.up);
}

TEST_CASE("a refusal in the middle of training stops it") {
  World world;
  world.start();
  world.run_until_phase("training");
  world.receive(Refusal{RefusalReason::kRunFinished, ""});
  CHECK(world.cancels == 1);
  CHECK(world.finished->ok);
}

TEST_CASE("a stop is polite in every phase") {
  const auto phase = GENERATE("connecting", "greeting", "checking-in", "waiting", "downloading",
                              "training", "uploading", "pausing");
  CAPTURE(phase);
  World world;
  world.start();
  world.run_until_phase(phase);
  const std::string_view name = phase;
  const bool works = name == "downloading" || name == "training" || name == "uploading";
  const auto actions = world.event(StopRequested{});
  REQUIRE(world.finished);
  CHECK(world.finished->ok);
  CHECK(sent<Decline>(actions).size() == (works ? 1 : 0));
  CHECK(all<CancelTraining>(actions).size() == (name == "training" ? 1 : 0));
  CHECK(all<Disconnect>(actions).size() == 1);
  CHECK(std::holds_alternative<Finished>(actions.back()));
  CHECK(world.event(TimerFired{}).empty());
  CHECK(world.event(ConnectionLost{"late"}).empty());
}

TEST_CASE("a stop without a connection cancels the training that went on") {
  World world;
  world.start();
  world.run_until_phase("training");
  world.cut();
  const auto actions = world.event(StopRequested{});
  CHECK(all<CancelTraining>(actions).size() == 1);
  CHECK(all<Send>(actions).empty());
  CHECK(all<Disconnect>(actions).empty());
}
