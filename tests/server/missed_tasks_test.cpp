// Selection where some devices never bring an update.

#include <catch2/catch.hpp>
#include <string>

#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using std::chrono::minutes;

TEST_CASE("devices that bring no update do not stop a run, whatever is drawn by") {
  const std::string policy = GENERATE("oort", "power-of-choice");
  const std::string fault = GENERATE("silent", "declines", "rejected");
  CAPTURE(policy, fault);
  CoordinatorOptions options = default_options(12);
  options.config.num_rounds = 20;
  options.config.selection.fraction_fit = 0.5;
  options.config.selection.quorum = 0.5;
  options.config.selection.policy = policy;
  CoordinatorHarness h(options);
  h.start();
  for (std::uint64_t client = 1; client <= 12; ++client) {
    h.add(client).reports = client <= 6;
    h.connect(h.device(client));
  }
  h.settle();
  for (int turn = 0; turn < 1000 && !h.finished; ++turn) {
    for (std::uint64_t client = 7; client <= 12; ++client) {
      ScriptedDevice& device = h.device(client);
      if (!device.task || fault == "silent") continue;
      if (fault == "declines") {
        h.speak(device, Decline{device.task->run, device.task->round, "no memory"});
        device.task.reset();
        h.speak(device, CheckIn{device.conditions});
      } else {
        Report bad = device.report();
        bad.weight = -1;
        h.speak(device, bad);
      }
    }
    h.advance(minutes(1));
  }
  REQUIRE(h.finished);
  CHECK(value_of(h.coordinator.committed_round()) == 20);
  const auto abandoned =
      std::ranges::count_if(h.stored, [](const RoundMetrics& round) { return !round.committed; });
  CAPTURE(abandoned);
  CHECK(abandoned <= 5);  // until each of the six was tried
  std::uint32_t dropped = 0;
  for (const RoundMetrics& round : h.stored) dropped += round.dropped + round.rejected;
  CAPTURE(dropped);
  CHECK(dropped <= 60);  // half of the cohorts of 20 rounds, as a uniform draw takes
}
