#include <catch2/catch.hpp>
#include <chrono>
#include <covey/random.hpp>
#include <covey/server/round_coordinator.hpp>

#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using namespace std::chrono_literals;

namespace {

/// Devices that say anything at any time, a pipeline that answers late and in any order.
class Chaos {
 public:
  explicit Chaos(std::uint64_t seed)
      : random_(seed, RandomPurpose::kFault), harness_(options(random_)) {
    harness_.judges_at_once = harness_.opens_at_once = harness_.stores_at_once = false;
    harness_.start();
    for (std::uint64_t client = 1; client <= kDevices; ++client) {
      ScriptedDevice& device = harness_.add(client);
      device.automatic = random_.below(2) == 0;
      harness_.connect(device);
    }
    harness_.settle();
  }

  void step() {
    ScriptedDevice& device = harness_.device(1 + random_.below(kDevices));
    switch (random_.below(10)) {
      case 0:
        harness_.lose_connection(device);
        break;
      case 1:
        harness_.lose_connection(device);
        harness_.connect(device);
        break;
      case 2:
        harness_.connect(device);  // a second connection of the same device
        break;
      case 3:
        harness_.advance(from_seconds(random_.uniform(0, 20)));
        break;
      case 4:
      case 5:
        answer_one();
        break;
      default:
        harness_.say(device, message(device));
    }
    harness_.settle();
    const auto twice = [](const auto& entry) { return entry.second > 1; };
    if (std::ranges::any_of(harness_.counted, twice)) FAIL("an update was counted twice");
  }

  /// From now on everybody is well-behaved.
  void calm() {
    harness_.judges_at_once = harness_.opens_at_once = harness_.stores_at_once = true;
    for (auto& [client, device] : harness_.devices) {
      device.automatic = true;
      harness_.lose_connection(device);
    }
    harness_.settle();
    harness_.release_held();
    harness_.release_held();
    for (auto& [client, device] : harness_.devices) {
      device.task.reset();
      if (!device.connection) harness_.connect(device);
    }
    harness_.settle();
    harness_.advance(2000s);
  }

  const CoordinatorHarness& harness() const { return harness_; }

 private:
  static constexpr std::uint64_t kDevices = 6;

  static CoordinatorOptions options(RandomStream& random) {
    auto options = default_options(kDevices);
    options.config.num_rounds = 30;
    options.config.selection.min_available_clients =
        1 + static_cast<std::uint32_t>(random.below(4));
    options.config.selection.over_selection = random.uniform(1, 2);
    options.config.selection.quorum = random.uniform(0, 1);
    options.config.selection.max_uploads = 1 + static_cast<std::uint32_t>(random.below(3));
    options.config.selection.round_deadline_s = random.uniform(10, 200);
    return options;
  }

  void answer_one() {
    auto& held = harness_.held;
    if (held.empty()) return;
    const auto i = static_cast<std::ptrdiff_t>(random_.below(held.size()));
    harness_.tell(std::move(held[static_cast<std::size_t>(i)]));
    held.erase(held.begin() + i);
  }

  RoundNumber round() {
    const std::uint32_t current = value_of(harness_.coordinator.committed_round()) + 1;
    return RoundNumber{random_.below(8) == 0 ? static_cast<std::uint32_t>(random_.below(5))
                                             : current};
  }
  RunId run() { return random_.below(20) == 0 ? RunId{1} : CoordinatorHarness::kRun; }

  ClientMessage message(const ScriptedDevice& device) {
    const SharedBytes update = device.update();
    switch (random_.below(8)) {
      case 0:
        return Hello{};
      case 1:
      case 2:
        return CheckIn{device.conditions};
      case 3:
        return BlobRequest{sha256(harness_.coordinator.model().span()),
                           random_.below(kModelBytes + 9),
                           static_cast<std::uint32_t>(random_.below(200))};
      case 4: {
        const std::uint64_t offset = 32 * random_.below(8);
        return BlobChunk{sha256(update.span()), offset,
                         update.slice(static_cast<std::size_t>(offset), random_.below(33))};
      }
      case 5:
        return Progress{run(), round(), 1, 2};
      case 6:
        return Decline{run(), round(), "no"};
      default: {
        Report report;
        report.run = run();
        report.round = round();
        report.blob = random_.below(6) == 0 ? Digest{} : sha256(update.span());
        report.blob_size = random_.below(12) == 0 ? 1 : kModelBytes;
        report.weight = random_.below(12) == 0 ? -1 : 1;
        return report;
      }
    }
  }

  RandomStream random_;
  CoordinatorHarness harness_;
};

}  // namespace

TEST_CASE("whatever devices say, updates count once and the run goes on when they behave again") {
  std::uint32_t committed = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    Chaos chaos(seed);
    for (int i = 0; i < 400; ++i) chaos.step();
    const RoundNumber before = chaos.harness().coordinator.committed_round();
    chaos.calm();
    REQUIRE(chaos.harness().coordinator.committed_round() > before);
    committed += value_of(before);
  }
  CHECK(committed > 20);  // the chaos itself is not so wild that nothing ever gets through
}
