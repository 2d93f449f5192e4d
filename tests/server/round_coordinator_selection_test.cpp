#include <catch2/catch.hpp>
#include <chrono>
#include <covey/random.hpp>
#include <map>
#include <span>

#include "../../server/cohort_selection.hpp"
#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using namespace std::chrono_literals;

namespace {

std::vector<Candidate> candidates(std::size_t count) {
  std::vector<Candidate> pool;
  for (std::size_t i = 0; i < count; ++i) {
    // Ids that differ in high and in low bytes.
    pool.push_back({static_cast<ClientId>(i * 0x100000001ULL + 5), i % 7 + 1});
  }
  return pool;
}

}  // namespace

TEST_CASE("the goal is FedAvg's m, and decimal fractions of counts are exact") {
  SelectionConfig config;
  config.fraction_fit = 0.29;
  CHECK(selection_sizes(config, 100).goal == 29);  // 0.29 * 100 < 29 in floating point
  CHECK(selection_sizes(config, 100).start_at == 100);
  CHECK(selection_sizes(config, 100).quorum == 29);
  config.fraction_fit = 0;
  CHECK(selection_sizes(config, 100).goal == 1);  // max(C * K, 1)
  config.min_fit_clients = 10;
  CHECK(selection_sizes(config, 100).goal == 10);
  config.min_available_clients = 20;
  config.fraction_fit = 0.75;
  config.quorum = 0.5;
  CHECK(selection_sizes(config, 100).goal == 15);
  CHECK(selection_sizes(config, 100).start_at == 20);
  CHECK(selection_sizes(config, 100).quorum == 8);  // ceil(7.5)
  config.quorum = 0;
  CHECK(selection_sizes(config, 100).quorum == 1);
  config.max_waiting = 12;
  CHECK(selection_sizes(config, 100).start_at == 12);
  CHECK(cohort_size(10, 1.3, 1000) == 13);
  CHECK(cohort_size(10, 1.1, 1000) == 11);  // 10 * 1.1 > 11 in floating point
  CHECK(cohort_size(10, 1.3, 12) == 12);
}

TEST_CASE("a draw depends on its name and the set of candidates, not on their order") {
  const auto policy = GENERATE(SelectionPolicy::kUniform, SelectionPolicy::kByExamples);
  const SelectionDraw draw{11, RoundNumber{3}, 0, policy};
  auto pool = candidates(300);
  const auto first = draw_cohort(pool, 40, draw);
  CHECK(first.size() == 40);
  CHECK(std::ranges::is_sorted(first));
  CHECK(std::ranges::adjacent_find(first) == first.end());
  constexpr std::uint64_t kSeed = 42;
  CAPTURE(kSeed);
  RandomStream random(kSeed, RandomPurpose::kFault);
  for (int i = 0; i < 20; ++i) {
    random.shuffle(std::span(pool));
    CHECK(draw_cohort(pool, 40, draw) == first);
  }
  CHECK(draw_cohort(pool, 40, {12, RoundNumber{3}, 0, policy}) != first);
  CHECK(draw_cohort(pool, 40, {11, RoundNumber{4}, 0, policy}) != first);
  CHECK(draw_cohort(pool, 40, {11, RoundNumber{3}, 1, policy}) != first);
  CHECK(draw_cohort(pool, 300, draw).size() == 300);
}

TEST_CASE("a uniform draw takes every device equally often") {
  // 10 of 40 in 4000 rounds: each device is drawn 1000 times on average, binomial with standard
  // deviation sqrt(4000 * 1/4 * 3/4) = 27.4; five of them bound all 40 devices.
  std::map<ClientId, int> drawn;
  for (std::uint32_t round = 1; round <= 4000; ++round) {
    for (const ClientId c : draw_cohort(candidates(40), 10, {1, RoundNumber{round}})) ++drawn[c];
  }
  CHECK(drawn.size() == 40);
  for (const auto& [client, times] : drawn) CHECK(std::abs(times - 1000) < 5 * 27.4);
}

TEST_CASE("by examples, a device is drawn in proportion to what it has") {
  // One of four with 1, 2, 3 and 4 examples in 10000 rounds: 1000 * n times; the largest standard
  // deviation is sqrt(10000 * 0.4 * 0.6) = 49.
  const std::vector<Candidate> pool = {
      {ClientId{1}, 1}, {ClientId{2}, 2}, {ClientId{3}, 3}, {ClientId{4}, 4}};
  std::map<ClientId, int> drawn;
  for (std::uint32_t round = 1; round <= 10000; ++round) {
    const SelectionDraw draw{1, RoundNumber{round}, 0, SelectionPolicy::kByExamples};
    ++drawn[draw_cohort(pool, 1, draw).at(0)];
  }
  for (const Candidate& c : pool) {
    CHECK(std::abs(drawn[c.client] - 1000 * static_cast<int>(c.num_examples)) < 5 * 49);
  }
}

TEST_CASE("claims of any number of examples do not break the draw") {
  std::vector<Candidate> pool;
  for (std::uint64_t c = 1; c <= 100; ++c) pool.push_back({ClientId{c}, c % 2 ? UINT64_MAX : 0});
  const SelectionDraw draw{1, RoundNumber{1}, 0, SelectionPolicy::kByExamples};
  const auto cohort = draw_cohort(pool, 100, draw);
  CHECK(cohort.size() == 100);
  CHECK(std::ranges::adjacent_find(cohort) == cohort.end());
}

TEST_CASE("the order in which devices arrive does not change the cohort") {
  const auto cohort_of = [](std::vector<std::uint64_t> order) {
    auto options = default_options(30);
    options.config.selection.fraction_fit = 0.3;
    CoordinatorHarness h(options);
    h.start();
    for (const std::uint64_t c : order) {
      h.add(c).reports = false;
      h.connect(h.device(c));
    }
    h.settle();
    return h.assigned();
  };
  std::vector<std::uint64_t> order;
  for (std::uint64_t c = 1; c <= 30; ++c) order.push_back(c);
  const auto first = cohort_of(order);
  CHECK(first.size() == 9);
  constexpr std::uint64_t kSeed = 5;
  CAPTURE(kSeed);
  RandomStream random(kSeed, RandomPurpose::kFault);
  for (int i = 0; i < 5; ++i) {
    random.shuffle(std::span(order));
    CHECK(cohort_of(order) == first);
  }
}

TEST_CASE("at the selection timeout a round starts with who is there, if that is a quorum") {
  auto options = default_options(10);
  options.config.selection.quorum = 0.6;
  options.config.selection.selection_timeout_s = 30;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 5);
  h.advance(30s);
  CHECK(h.count<BeginSum>() == 0);
  CHECK(h.count<Note>() == 1);
  h.add_fleet(6, 6);
  CHECK(h.count<BeginSum>() == 0);  // waits for all ten until the timeout
  h.advance(29s);
  CHECK(h.count<BeginSum>() == 0);
  h.advance(1s);
  CHECK(h.count<BeginSum>() == 1);
  REQUIRE(h.stored.size() == 1);
  CHECK(h.stored[0].selected == 6);
  CHECK(h.stored[0].committed);
}

TEST_CASE("the pool outlives the round: who was not drawn still waits for the next") {
  auto options = default_options(10);
  options.config.selection.fraction_fit = 0.2;
  options.config.num_rounds = 3;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 10);
  REQUIRE(h.finished);
  for (const RoundMetrics& m : h.published) CHECK(m.accepted == 2);
  std::size_t check_ins = 0;
  for (const auto& [client, device] : h.devices) check_ins += device.count<Waiting>();
  CHECK(check_ins == 10 + 3 * 2);  // once each, and once more after every report
}

TEST_CASE("a device that leaves while it waits is not selected") {
  auto options = default_options(3);
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 2);
  h.lose_connection(h.device(1));
  h.settle();
  h.add_fleet(3, 3);
  CHECK(h.count<BeginSum>() == 0);
  h.connect(h.device(1));
  h.settle();
  REQUIRE(h.stored.size() == 1);
  CHECK(h.stored[0].selected == 3);
}
