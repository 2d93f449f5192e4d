#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

CoordinatorOptions halving_options() {
  CoordinatorOptions options = default_options(2);
  options.config.num_rounds = 4;
  options.config.client.learning_rate = 0.8;
  options.config.client.schedule = {.kind = ScheduleKind::kExponential, .decay = 0.5};
  options.plan.learning_rate = 0.8f;
  options.plan.optimizer.kind = OptimizerKind::kNesterov;
  return options;
}

/// The rate of each round that the first device was assigned.
std::vector<std::pair<RoundNumber, float>> rates_seen(const CoordinatorHarness& h) {
  std::vector<std::pair<RoundNumber, float>> rates;
  for (const ServerMessage& message : h.devices.at(ClientId{1}).inbox) {
    if (const auto* assignment = std::get_if<Assignment>(&message)) {
      CHECK(assignment->plan.optimizer.kind == OptimizerKind::kNesterov);
      rates.emplace_back(assignment->round, assignment->plan.learning_rate);
    }
  }
  return rates;
}

using Rates = std::vector<std::pair<RoundNumber, float>>;

}  // namespace

TEST_CASE("devices are told each round's learning rate") {
  CoordinatorHarness h(halving_options());
  h.start();
  h.add_fleet(1, 2);
  h.advance(std::chrono::hours(1));
  REQUIRE(h.finished);
  CHECK(rates_seen(h) == Rates{{RoundNumber{1}, 0.8f},
                               {RoundNumber{2}, 0.4f},
                               {RoundNumber{3}, 0.2f},
                               {RoundNumber{4}, 0.1f}});
}

TEST_CASE("a restarted run goes on with the learning rate of its round") {
  CoordinatorHarness h(halving_options(), RoundNumber{2});
  h.start();
  h.add_fleet(1, 2);
  h.advance(std::chrono::hours(1));
  REQUIRE(h.finished);
  CHECK(rates_seen(h) == Rates{{RoundNumber{3}, 0.2f}, {RoundNumber{4}, 0.1f}});
}
