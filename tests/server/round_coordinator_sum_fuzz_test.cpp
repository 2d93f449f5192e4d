// Secure rounds on unreliable connections in any order: thousands of seeded schedules.

#include <catch2/catch.hpp>

#include "sum_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

struct Schedule {
  std::uint64_t seed = 0;
  ThreatModel model = ThreatModel::kHonestButCurious;
  std::uint32_t devices = 5;
  std::uint32_t rounds = 8;
  double mischief = 0;  ///< how often something goes wrong, per message
};

SumOptions options_of(const Schedule& schedule) {
  SumOptions options{.model = schedule.model,
                     .devices = schedule.devices,
                     .rounds = schedule.rounds,
                     .seed = schedule.seed};
  options.selection.quorum = 0.6;
  options.selection.round_deadline_s = 120;
  options.selection.selection_timeout_s = 20;
  options.selection.max_uploads = 2;
  options.selection.over_selection = 1.3;
  options.selection.fraction_fit = 0.7;
  return options;
}

ClientMessage decline_of(const SumHarness& h) {
  return Decline{SumHarness::kRun, next(h.coordinator->committed_round()), "not now"};
}

/// What a device's message may come to, or the device may do just before.
Deed misfortune(SumHarness& h, RandomStream& random, double mischief, SumDevice& device,
                ClientMessage& message) {
  if (random.uniform() >= mischief) return Deed::kSay;
  switch (random.below(8)) {
    case 0:
      return Deed::kCutBefore;
    case 1:
      return Deed::kCutAfter;
    case 2:
      return Deed::kVanish;
    case 3: {  // a chunk or a Hello said twice is a fault of the connection, not of the device
      const bool repeatable =
          !std::holds_alternative<BlobChunk>(message) && !std::holds_alternative<Hello>(message);
      return repeatable ? Deed::kSayTwice : Deed::kCutAfter;
    }
    case 4:
      message = decline_of(h);
      return Deed::kSay;
    case 5:
      if (device.report) message = *device.report;  // at any moment, perhaps an old one
      return Deed::kSay;
    case 6:
      if (device.sum) message = device.sum->advertise();
      return Deed::kSay;
    default:
      return std::holds_alternative<Hello>(message) ? Deed::kSay : Deed::kSwallow;
  }
}

/// Runs to the end of all rounds; SumHarness compares every unmasked sum with the plain one.
void play(const Schedule& schedule) {
  CAPTURE(schedule.seed, std::string(to_string(schedule.model)), schedule.devices);
  SumHarness h(options_of(schedule));
  RandomStream random(schedule.seed, RandomPurpose::kFault, RoundNumber{9});
  h.any_order.emplace(schedule.seed, RandomPurpose::kFault, RoundNumber{10});
  h.deed = [&](SumDevice& device, ClientMessage& message) {
    return misfortune(h, random, schedule.mischief, device, message);
  };
  h.start();
  for (std::uint64_t steps = 0; !h.finished; ++steps) {
    INFO(h.coordinator->status_json(h.now));
    REQUIRE(steps < 200'000);
    auto& device = h.device(1 + random.below(schedule.devices));
    const double what = random.uniform();
    if (what < 0.002 * schedule.mischief) {
      h.lose_connection(device);
    } else if (what < 0.02) {
      h.connect(device);
    } else if (what < 0.03) {
      h.advance(std::chrono::milliseconds(random.below(3000)));
    } else if (!h.step()) {
      h.advance(1s);
    }
  }
  CHECK(h.finished->ok);
  CHECK(value_of(h.coordinator->committed_round()) == schedule.rounds);
  CHECK(h.sums.size() >= schedule.rounds);
  std::size_t committed = 0;
  for (const RoundMetrics& metrics : h.published) {
    if (!metrics.committed) continue;
    CHECK(metrics.masked == metrics.accepted);
    CHECK(metrics.examples == 10 * metrics.masked);  // the figures in the sum agree with it
    CHECK(metrics.masked + metrics.recovered <= metrics.selected);
    ++committed;
  }
  CHECK(committed == schedule.rounds);
  const std::set<AggregationId> names(h.aggregations.begin(), h.aggregations.end());
  CHECK(names.size() == h.aggregations.size());
}

}  // namespace

TEST_CASE("whatever happens to connections, a round ends and its sum is that of who is in it") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    RandomStream random(seed, RandomPurpose::kFault, RoundNumber{11});
    play({.seed = seed,
          .model = seed % 2 == 0 ? ThreatModel::kMaliciousServer : ThreatModel::kHonestButCurious,
          .devices = static_cast<std::uint32_t>(4 + random.below(5)),
          .mischief = 0.15 * random.uniform()});
  }
}

TEST_CASE("messages in any order, without a fault, sum every device of every round") {
  for (std::uint64_t seed = 100; seed < 110; ++seed) {
    CAPTURE(seed);
    SumHarness h({.model = ThreatModel::kMaliciousServer, .rounds = 5, .seed = seed});
    h.any_order.emplace(seed, RandomPurpose::kFault, RoundNumber{10});
    h.start();
    h.settle();
    REQUIRE(h.finished);
    CHECK(h.finished->ok);
    REQUIRE(h.sums.size() == 5);
    for (const auto& sum : h.sums) CHECK(sum.size() == 5);
    CHECK(h.now == Time{});
    CHECK(h.refusals() == 0);
  }
}
