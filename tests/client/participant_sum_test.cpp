// A device in a secure sum, against a server that follows the protocol, and against one that does
// not.

#include <catch2/catch.hpp>

#include "sum_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

constexpr ThreatModel kBoth[] = {ThreatModel::kHonestButCurious, ThreatModel::kMaliciousServer};
constexpr auto kMalicious = ThreatModel::kMaliciousServer;

bool says(const std::string& sentence, const std::string& part) {
  INFO(sentence);
  CHECK(sentence.find(part) != std::string::npos);
  return sentence.find(part) != std::string::npos;
}

/// Whether 16 bytes in a row of `secret`, from any multiple of 8 on, are somewhere in `bytes`.
bool shows(std::span<const std::byte> bytes, std::span<const std::byte> secret) {
  for (std::size_t i = 0; i + 16 <= secret.size(); i += 8) {
    const auto part = secret.subspan(i, 16);
    if (std::ranges::all_of(part, [](std::byte b) { return b == std::byte{0}; })) continue;
    if (!std::ranges::search(bytes, part).empty()) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a device goes through a secure sum and is accepted when it is unmasked") {
  for (const ThreatModel model : kBoth) {
    CAPTURE(std::string(to_string(model)));
    SumWorld world(model);
    world.start();
    world.run_until_finished();
    CHECK(world.finished->ok);
    CHECK(world.device.rounds_accepted() == 1);
    CHECK(world.sum_is_plain());
    CHECK(world.trainings == 1);
    CHECK(world.maskings == 1);
    CHECK(sent<Decline>(world.log).empty());
    CHECK(sent<ConfirmSurvivors>(world.log).size() == (model == kMalicious ? 1 : 0));
  }
}

TEST_CASE("a connection cut after any message changes neither keys, masks nor the sum") {
  for (const ThreatModel model : kBoth) {
    bool was_cut = true;
    std::uint32_t n = 1;
    for (; was_cut; ++n) {
      CAPTURE(std::string(to_string(model)), n);
      SumWorld world(model);
      world.cut_after = n;
      world.start();
      world.run_until_finished();
      was_cut = world.cuts > 0;
      REQUIRE(world.finished->ok);
      REQUIRE(world.device.rounds_accepted() == 1);
      REQUIRE(world.server.attempts == 1);
      REQUIRE(world.sum_is_plain());
      REQUIRE(world.trainings == 1);
      REQUIRE(world.server.blobs.size() == 1);
      REQUIRE(sent<Decline>(world.log).empty());
    }
    CHECK(n > 40);
  }
}

TEST_CASE("what is not masked never leaves the device") {
  for (const ThreatModel model : kBoth) {
    for (const std::uint32_t cut_after : {0U, 31U, 34U, 37U, 40U}) {
      SumWorld world(model);
      if (cut_after > 0) world.cut_after = cut_after;
      world.start();
      world.run_until_finished();
      REQUIRE(world.server.upload.size() == world.update.update.size());
      const auto secret = world.update.update.span();
      CHECK(shows(secret, secret));
      CHECK_FALSE(shows(world.server.upload, secret));
      for (const BlobChunk& chunk : sent<BlobChunk>(world.log)) {
        CHECK_FALSE(shows(chunk.payload.span(), secret));
      }
      for (const Report& report : sent<Report>(world.log)) {
        CHECK(report.blob != world.update.digest);
        CHECK(report.weight == 0);
        CHECK(report.scalars.empty());
        CHECK(report.num_examples == 0);
        CHECK(report.steps == 0);
        CHECK(report.train_loss == 0);
        CHECK(report.train_seconds == 0);
      }
    }
  }
}

TEST_CASE("a device whose owner asks for more privacy than the plan gives declines and says why") {
  ParticipantOptions options = small_options();
  bool in_the_open = false;
  std::string why;
  SECTION("threat model") {
    options.required_privacy.threat_model = kMalicious;
    why = "secure against a server that is malicious-server; the plan says honest-but-curious";
  }
  SECTION("no secure aggregation at all") {
    options.required_privacy.threat_model = ThreatModel::kHonestButCurious;
    in_the_open = true;
    why = "secure against a server that is honest-but-curious; the plan says";
  }
  SECTION("corruption") {
    options.required_privacy.corruption = 0.2;
    why =
        "the plan reckons with 0.05 of the devices working with the server, this device's owner "
        "with 0.2";
  }
  SumWorld world(ThreatModel::kHonestButCurious, options);
  if (in_the_open) world.server.assignment.plan.secure_aggregation = {};
  world.start();
  world.run_until([&] { return !world.last_decline().empty(); });
  says(world.last_decline(), why);
  CHECK(sent<BlobRequest>(world.log).empty());  // nothing was downloaded or trained for it
  CHECK(world.trainings == 0);
}

TEST_CASE("a sum of too few devices is declined before any key is shared") {
  ParticipantOptions options = small_options();
  options.required_privacy.min_devices = 6;
  SumWorld world(ThreatModel::kHonestButCurious, options);
  world.start();
  world.run_until([&] { return !world.last_decline().empty(); });
  says(world.last_decline(), "the sum would be of 5 devices, this device takes part in those of 6");
  CHECK(sent<ShareKeys>(world.log).empty());
  CHECK(sent<Report>(world.log).empty());
}

TEST_CASE("a device without an identity declines a plan that needs one") {
  SumWorld world(ThreatModel::kHonestButCurious);
  world.server.set_up(kMalicious);
  world.start();
  world.run_until([&] { return !world.last_decline().empty(); });
  says(world.last_decline(), "this device has no identity");
  CHECK(sent<AdvertiseKeys>(world.log).empty());
}

TEST_CASE("two sets of survivors get one answer, and the device leaves the sum") {
  for (const ThreatModel model : kBoth) {
    CAPTURE(std::string(to_string(model)));
    SumWorld world(model);
    world.start();
    world.run_until([&] { return world.server.upload.size() == world.update.update.size(); });
    world.server.waits = true;
    const auto answers = [&] {
      return sent<Unmask>(world.log).size() + sent<ConfirmSurvivors>(world.log).size();
    };
    world.run_until([&] { return answers() == 1; });
    SurvivorSet other = *world.server.sum->survivor_set(kUnderTest);
    world.receive(other);  // the same again: the same answer
    CHECK(answers() == 2);
    other.survivors[0] ^= std::byte{1};
    world.receive(other);
    CHECK(answers() == 2);
    says(world.last_decline(), "secure aggregation: ");
    CHECK(world.device.phase_name() == "pausing");

    // Asked for the same sum again it makes no other keys for it.
    const auto advertised = sent<AdvertiseKeys>(world.log).size();
    world.to_server.clear();
    world.to_device.clear();
    world.receive(world.server.assignment);
    world.run_until([&] { return sent<Decline>(world.log).size() == 2; });
    CHECK(sent<AdvertiseKeys>(world.log).size() == advertised);
  }
}

TEST_CASE("another attempt at the round has new keys and the same update") {
  for (const ThreatModel model : kBoth) {
    for (const std::string phase : {"advertised", "shared", "masking", "uploading", "uploaded"}) {
      CAPTURE(std::string(to_string(model)), phase);
      SumWorld world(model);
      world.masks = phase != "masking";
      world.start();
      world.run_until([&] {
        if (phase == "advertised") return !sent<AdvertiseKeys>(world.log).empty();
        if (phase == "shared") return !sent<ShareKeys>(world.log).empty();
        if (phase == "masking") return world.maskings == 1;
        if (phase == "uploading") return !world.server.upload.empty();
        return world.server.upload.size() == world.update.update.size();
      });
      const auto old_keys = sent<AdvertiseKeys>(world.log).back();
      // The server died and comes back from its last committed round.
      world.server.new_attempt();
      world.cut();
      world.run_until([&] { return sent<AdvertiseKeys>(world.log).size() > 1; });
      world.masks = true;
      world.run_until_finished();
      CHECK(world.device.rounds_accepted() == 1);
      CHECK(world.trainings == 1);
      CHECK(world.sum_is_plain());
      const auto new_keys = sent<AdvertiseKeys>(world.log).back();
      CHECK(new_keys.round.id != old_keys.round.id);
      CHECK(new_keys.keys.mask_key != old_keys.keys.mask_key);
      CHECK(new_keys.keys.cipher_key != old_keys.keys.cipher_key);
      if (world.server.blobs.size() == 2) CHECK(world.server.blobs[0] != world.server.blobs[1]);
    }
  }
}

TEST_CASE("who has revealed shares in a round helps no malicious server with another sum of it") {
  for (const ThreatModel model : kBoth) {
    for (const bool later : {false, true}) {
      CAPTURE(std::string(to_string(model)), later);
      SumWorld world(model);
      world.start();
      world.run_until([&] { return world.device.rounds_accepted() == 1; });
      REQUIRE(sent<Unmask>(world.log).size() == 1);
      world.server.device = nullptr;  // does not end the run
      if (later) {                    // there was another round in between
        world.server.assignment.round = RoundNumber{2};
        world.server.new_attempt();
        world.run_until([&] { return world.device.rounds_accepted() == 2; });
        world.server.assignment.round = RoundNumber{1};
      }
      const auto revealed = sent<Unmask>(world.log).size();
      world.server.new_attempt();
      world.run_until([&] {
        return !world.last_decline().empty() || sent<Unmask>(world.log).size() > revealed;
      });
      CHECK(sent<Unmask>(world.log).size() == revealed + (model == kMalicious ? 0 : 1));
      if (model == kMalicious) says(world.last_decline(), "could show a single update");
    }
  }
}

TEST_CASE("an update that the server could not store is masked and sent again with the same keys") {
  for (const ThreatModel model : kBoth) {
    SumWorld world(model);
    world.start();
    world.run_until([&] { return !world.server.upload.empty(); });
    world.to_server.clear();
    world.to_device.clear();
    world.server.upload.clear();
    const auto& task = world.server.assignment;
    world.receive(ReportRejected{task.run, task.round, RejectReason::kServerFailed, "disk full",
                                 RetryWindow{1s, 2s}});
    world.run_until_finished();  // the server requires the same keys and the same masked bytes
    CHECK(world.device.rounds_accepted() == 1);
    CHECK(world.sum_is_plain());
    CHECK(world.trainings == 1);
  }
}

TEST_CASE("a device that is asked to stop says so in every step, and is gone") {
  for (const ThreatModel model : kBoth) {
    for (int messages = 0;; ++messages) {
      CAPTURE(std::string(to_string(model)), messages);
      SumWorld world(model);
      world.start();
      int seen = 0;
      const auto sum_messages = [&] {
        return static_cast<int>(
            sent<AdvertiseKeys>(world.log).size() + sent<ShareKeys>(world.log).size() +
            sent<Report>(world.log).size() + sent<BlobChunk>(world.log).size() +
            sent<ConfirmSurvivors>(world.log).size() + sent<Unmask>(world.log).size());
      };
      world.run_until([&] {
        seen = sum_messages();
        return seen > messages || world.finished;
      });
      if (world.finished) {
        CHECK(messages > 5);
        break;
      }
      const auto actions = world.event(StopRequested{});
      CHECK(sent<Decline>(actions).size() == 1);
      REQUIRE(world.finished);
      CHECK(world.finished->ok);
      world.event(Received{ReportAccepted{}});
      CHECK(sum_messages() == seen);
    }
  }
}
