// Who is drawn under the policies that ask what is known of the devices.

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <map>
#include <set>

#include "../../server/cohort_selection.hpp"
#include "../../server/oort_selection.hpp"

using namespace covey;
using namespace covey::server;

namespace {

using Seconds = std::chrono::seconds;
constexpr std::uint64_t kSeed = 17;

std::vector<Candidate> candidates(std::uint64_t count, std::uint64_t examples = 10) {
  std::vector<Candidate> pool;
  for (std::uint64_t client = 0; client < count; ++client) {
    pool.push_back({ClientId{client}, examples});
  }
  return pool;
}

void report(DeviceHistory& history, std::uint64_t client, double loss, std::uint64_t examples = 10,
            std::int64_t took_s = 10, std::uint32_t round = 1) {
  Report report;
  report.train_loss = loss;
  report.num_examples = examples;
  history.reported(ClientId{client}, RoundNumber{round}, report, Seconds(took_s));
}

void miss(DeviceHistory& history, std::uint64_t client, int times = 1, std::int64_t waited_s = 10) {
  for (int i = 0; i < times; ++i) {
    history.missed(ClientId{client}, RoundNumber{1}, Seconds(waited_s));
  }
}

SelectionDraw by(SelectionPolicy policy, const DeviceHistory& history, std::uint64_t seed = kSeed,
                 std::uint32_t round = 1) {
  SelectionDraw draw;
  draw.seed = seed;
  draw.round = RoundNumber{round};
  draw.policy = policy;
  draw.history = &history;
  return draw;
}

/// How often each device is drawn by that many seeds.
std::map<std::uint64_t, int> tally(std::uint64_t seeds, const std::vector<Candidate>& pool,
                                   std::size_t count, SelectionDraw draw) {
  INFO("seeds 0 to " << seeds - 1);
  std::map<std::uint64_t, int> drawn;
  for (draw.seed = 0; draw.seed < seeds; ++draw.seed) {
    for (const ClientId client : draw_cohort(pool, count, draw)) ++drawn[value_of(client)];
  }
  return drawn;
}

/// Five standard deviations of a binomial count.
double spread(double trials, double chance) {
  return 5 * std::sqrt(trials * chance * (1 - chance));
}

SelectionConfig exploiting() {
  SelectionConfig config;
  config.exploration = config.exploration_min = 0;
  return config;
}

}  // namespace

TEST_CASE(
    "every policy draws the same devices in any order of check-in, and others in another draw") {
  DeviceHistory history({});
  auto pool = candidates(200);
  for (std::uint64_t client = 0; client < 200; client += 2) {
    report(history, client, 1 + static_cast<double>(client % 7), 10 + client,
           5 + static_cast<int>(client % 11));
    if (client % 3 == 0) history.arrived(ClientId{client}, RoundNumber{1});
  }
  const OortPreferences oort((SelectionConfig()));
  for (const auto policy : {SelectionPolicy::kByAvailability, SelectionPolicy::kOort,
                            SelectionPolicy::kPowerOfChoice}) {
    SelectionDraw draw = by(policy, history, kSeed, 30);
    draw.oort = &oort;
    INFO("policy " << static_cast<int>(policy) << " seed " << kSeed);
    const auto first = draw_cohort(pool, 40, draw);
    CHECK(first.size() == 40);
    CHECK(std::set<ClientId>(first.begin(), first.end()).size() == 40);
    CHECK(std::ranges::is_sorted(first));
    std::ranges::reverse(pool);
    CHECK(draw_cohort(pool, 40, draw) == first);
    std::swap(pool[3], pool[150]);
    CHECK(draw_cohort(pool, 40, draw) == first);
    draw.attempt = 1;
    CHECK(draw_cohort(pool, 40, draw) != first);
    CHECK(draw_cohort(pool, 200, draw).size() == 200);
    CHECK(draw_cohort(pool, 0, draw).empty());
  }
}

// ---- by availability

TEST_CASE("by availability those come first who were there in the fewest rounds") {
  DeviceHistory history({});
  for (std::uint64_t client = 0; client < 20; ++client) {
    history.arrived(ClientId{client}, RoundNumber{static_cast<std::uint32_t>(client) + 1});
  }
  const auto drawn =
      draw_cohort(candidates(20), 5, by(SelectionPolicy::kByAvailability, history, 3, 30));
  CHECK(drawn == std::vector{ClientId{15}, ClientId{16}, ClientId{17}, ClientId{18}, ClientId{19}});
}

TEST_CASE("by availability equals are drawn alike") {
  DeviceHistory history({});
  for (std::uint64_t client = 0; client < 2; ++client)
    history.arrived(ClientId{client}, RoundNumber{5});
  for (std::uint64_t client = 2; client < 10; ++client)
    history.arrived(ClientId{client}, RoundNumber{1});
  const double trials = 4000;
  const auto drawn =
      tally(4000, candidates(10), 4, by(SelectionPolicy::kByAvailability, history, 0, 9));
  CHECK(drawn.at(0) == 4000);  // always: they came later
  CHECK(drawn.at(1) == 4000);
  for (std::uint64_t client = 2; client < 10; ++client) {  // two places for eight
    CHECK(std::abs(drawn.at(client) - trials / 4) < spread(trials, 0.25));
  }
}

// ---- power of choice

TEST_CASE("power of choice takes the largest last losses of its candidates") {
  DeviceHistory history({});
  for (std::uint64_t client = 0; client < 10; ++client) {
    report(history, client, 10 - static_cast<double>(client));
  }
  SelectionDraw draw = by(SelectionPolicy::kPowerOfChoice, history);
  draw.candidates = 10;  // everyone
  CHECK(draw_cohort(candidates(10), 3, draw) == std::vector{ClientId{0}, ClientId{1}, ClientId{2}});
  draw.candidates = 1000;  // more than there are
  CHECK(draw_cohort(candidates(10), 3, draw).size() == 3);
}

TEST_CASE("power of choice takes a device without a known loss before any other") {
  DeviceHistory history({});
  report(history, 0, 100);
  report(history, 1, 1);
  SelectionDraw draw = by(SelectionPolicy::kPowerOfChoice, history);
  draw.candidates = 4;
  CHECK(draw_cohort(candidates(4), 3, draw) == std::vector{ClientId{0}, ClientId{2}, ClientId{3}});
}

TEST_CASE("power of choice ranks a device by half its loss for every task missed in a row") {
  DeviceHistory history({});
  report(history, 0, 8);
  report(history, 1, 3);
  report(history, 2, 1);
  SelectionDraw draw = by(SelectionPolicy::kPowerOfChoice, history);
  draw.candidates = 4;
  const auto best_of = [&](std::uint64_t pool) { return draw_cohort(candidates(pool), 1, draw); };
  CHECK(best_of(3) == std::vector{ClientId{0}});
  miss(history, 0);  // 4
  CHECK(best_of(3) == std::vector{ClientId{0}});
  miss(history, 0);  // 2
  CHECK(best_of(3) == std::vector{ClientId{1}});
  CHECK(best_of(4) == std::vector{ClientId{3}});  // never asked
  miss(history, 3);                               // half of the others' mean, 4
  CHECK(best_of(4) == std::vector{ClientId{1}});
  report(history, 0, 8);
  CHECK(best_of(4) == std::vector{ClientId{0}});
}

TEST_CASE("power of two choices of three draws as its two candidates fall") {
  DeviceHistory history({});
  for (std::uint64_t client = 0; client < 3; ++client)
    report(history, client, 1 + static_cast<double>(client));
  // Each pair is as likely as another: the largest loss is in two of three pairs, the smallest wins
  // none.
  const auto drawn = tally(3000, candidates(3), 1, by(SelectionPolicy::kPowerOfChoice, history));
  CHECK(drawn.count(0) == 0);
  CHECK(std::abs(drawn.at(2) - 2000) < spread(3000, 2.0 / 3));
}

TEST_CASE("power of choice draws its candidates in proportion to their examples") {
  DeviceHistory history({});
  auto pool = candidates(2);
  pool[0].num_examples = 30;
  SelectionDraw draw = by(SelectionPolicy::kPowerOfChoice, history);
  draw.candidates = 1;
  const auto drawn = tally(4000, pool, 1, draw);
  CHECK(std::abs(drawn.at(0) - 3000) < spread(4000, 0.75));
}

// ---- Oort

TEST_CASE("oort's exploration decays by the round and stops at its least") {
  const OortPreferences oort((SelectionConfig()));
  CHECK(oort.exploration(RoundNumber{1}) == Approx(0.9));
  CHECK(oort.exploration(RoundNumber{11}) == Approx(0.9 * std::pow(0.98, 10)));
  CHECK(oort.exploration(RoundNumber{500}) == Approx(0.2));
}

TEST_CASE("oort gives untried devices their share of a cohort, and more where few are tried") {
  DeviceHistory history({});
  for (std::uint64_t client = 0; client < 50; ++client) report(history, client, 1);
  const OortPreferences oort((SelectionConfig()));
  const auto tried_of = [&](std::uint32_t round, std::uint64_t pool) {
    SelectionDraw draw = by(SelectionPolicy::kOort, history, kSeed, round);
    draw.oort = &oort;
    const auto drawn = draw_cohort(candidates(pool), 20, draw);
    return std::ranges::count_if(drawn, [](ClientId client) { return value_of(client) < 50; });
  };
  CHECK(tried_of(1, 100) == 2);     // (1 - 0.9) * 20
  CHECK(tried_of(500, 100) == 16);  // (1 - 0.2) * 20
  CHECK(tried_of(1, 60) == 10);     // only ten are untried
  CHECK(tried_of(1, 50) == 20);
  const DeviceHistory nobody({});
  SelectionDraw draw = by(SelectionPolicy::kOort, nobody, kSeed, 500);
  draw.oort = &oort;
  CHECK(draw_cohort(candidates(30), 20, draw).size() == 20);
}

TEST_CASE("oort takes a missed task for a trial") {
  DeviceHistory history({});
  for (std::uint64_t client = 0; client < 10; ++client) miss(history, client);
  SelectionConfig config;
  config.exploration = config.exploration_min = 1;
  const OortPreferences oort(config);
  SelectionDraw draw = by(SelectionPolicy::kOort, history);
  draw.oort = &oort;
  const auto drawn = tally(100, candidates(20), 10, draw);
  for (std::uint64_t client = 0; client < 10; ++client) CHECK(drawn.count(client) == 0);
  CHECK(draw_cohort(candidates(10), 10, draw).size() == 10);  // where there are no others
}

TEST_CASE("oort halves the utility of a device for every task missed in a row") {
  DeviceHistory history({});
  report(history, 0, 8);
  report(history, 1, 3);
  report(history, 2, 1);
  const OortPreferences oort(exploiting());
  SelectionDraw draw = by(SelectionPolicy::kOort, history);
  draw.oort = &oort;
  const auto only = [&](std::uint64_t pool, std::uint64_t client) {
    const auto drawn = tally(50, candidates(pool), 1, draw);
    return drawn.size() == 1 && drawn.contains(client);
  };
  CHECK(only(3, 0));
  miss(history, 0, 2);  // 20 of 80
  CHECK(only(3, 1));
  miss(history, 0, 2);  // 5
  report(history, 1, 1);
  miss(history, 3);  // without a loss: half of the others' mean, (80 + 10 + 10) / 3
  CHECK(only(4, 3));
}

TEST_CASE("oort's exploration decays where rounds are abandoned, too") {
  OortPreferences oort((SelectionConfig()));
  for (int i = 0; i < 10; ++i) oort.round_abandoned();
  CHECK(oort.exploration(RoundNumber{1}) == Approx(0.9 * std::pow(0.98, 10)));
  CHECK(oort.exploration(RoundNumber{3}) == Approx(0.9 * std::pow(0.98, 12)));
}

TEST_CASE("oort draws by utility among those above 95 percent of the cut-off") {
  DeviceHistory history({});
  report(history, 0, 10);   // utility 100, the highest: 1 once brought into [0, 1]
  report(history, 1, 9.9);  // 99: 89 / 90
  report(history, 2, 1);    // 10, the lowest: 0
  const OortPreferences oort(exploiting());
  SelectionDraw draw = by(SelectionPolicy::kOort, history);
  draw.oort = &oort;
  const auto drawn = tally(4000, candidates(3), 1, draw);
  const double chance = 1 / (1 + 89.0 / 90);
  CHECK(drawn.count(2) == 0);
  CHECK(std::abs(drawn.at(0) - 4000 * chance) < spread(4000, chance));
}

TEST_CASE("oort clips utilities at their 95th percentile") {
  DeviceHistory history({});
  // Ten of utility 10, 48 of 100, two of a million: number 57 of 60, from 0, is one of 100.
  for (std::uint64_t client = 0; client < 58; ++client)
    report(history, client, client < 10 ? 1 : 10);
  report(history, 58, 1e5);
  report(history, 59, 1e5);
  const OortPreferences oort(exploiting());
  SelectionDraw draw = by(SelectionPolicy::kOort, history);
  draw.oort = &oort;
  const auto drawn = tally(2000, candidates(60), 1, draw);
  // All 50 devices of utility 100 and more are alike.
  CHECK(drawn.count(0) == 0);
  CHECK(std::abs(drawn.at(59) - 40) < spread(2000, 1.0 / 50));
  CHECK(std::abs(drawn.at(30) - 40) < spread(2000, 1.0 / 50));
}

TEST_CASE("oort passes by devices slower than it prefers, as much as round-penalty says") {
  DeviceHistory history({});
  report(history, 0, 1, 10, 10);
  report(history, 1, 1, 10, 10);
  report(history, 2, 1, 10, 40);  // (10 / 40)^2 of the others' score
  SelectionConfig config = exploiting();
  const OortPreferences oort(config);
  SelectionDraw draw = by(SelectionPolicy::kOort, history);
  draw.oort = &oort;
  CHECK(tally(500, candidates(3), 1, draw).count(2) == 0);
  config.round_penalty = 0;
  const OortPreferences patient(config);
  draw.oort = &patient;
  const auto drawn = tally(3000, candidates(3), 1, draw);
  CHECK(std::abs(drawn.at(2) - 1000) < spread(3000, 1.0 / 3));
}

TEST_CASE("oort comes back to devices that it has not heard of for long") {
  DeviceHistory history({});
  report(history, 0, 1, 10, 10, 1);
  report(history, 1, 1, 10, 10, 99);
  const OortPreferences oort(exploiting());
  SelectionDraw draw = by(SelectionPolicy::kOort, history, 0, 100);
  draw.oort = &oort;
  // 1 + sqrt(0.1 ln 100 / 1) = 1.68 against 1 + sqrt(0.1 ln 100 / 99) = 1.07: below the cut-off.
  CHECK(tally(200, candidates(2), 1, draw).count(1) == 0);
}

TEST_CASE("oort's pacer puts up with slower devices when the fast have less to teach") {
  OortPreferences oort((SelectionConfig()));
  CHECK(oort.preferred_percentile() == 30);
  for (int round = 0; round < 20; ++round) oort.round_committed(10);
  for (int round = 0; round < 19; ++round) oort.round_committed(9);
  CHECK(oort.preferred_percentile() == 30);  // the window is not full yet
  oort.round_committed(9);
  CHECK(oort.preferred_percentile() == 35);
  for (int round = 0; round < 20; ++round) oort.round_committed(9);  // no less than before
  CHECK(oort.preferred_percentile() == 35);
  for (int round = 0; round < 20 * 20; ++round) oort.round_committed(8 - round / 100.0);
  CHECK(oort.preferred_percentile() == 100);  // and no further
}

TEST_CASE("a draw from 20000 waiting devices of a million known takes a moment") {
  DeviceHistory history({});
  for (std::uint64_t client = 0; client < 1'000'000; ++client) {
    report(history, client, 1 + static_cast<double>(client % 100) / 10, 10,
           5 + static_cast<int>(client % 50));
  }
  std::vector<Candidate> pool;
  for (std::uint64_t client = 0; client < 20'000; ++client)
    pool.push_back({ClientId{50 * client}, 10});
  const OortPreferences oort(exploiting());
  for (const auto policy : {SelectionPolicy::kByAvailability, SelectionPolicy::kOort,
                            SelectionPolicy::kPowerOfChoice}) {
    SelectionDraw draw = by(policy, history, kSeed, 100);
    draw.oort = &oort;
    const auto began = std::chrono::steady_clock::now();
    const auto drawn = draw_cohort(pool, 10'000, draw);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    INFO("policy " << static_cast<int>(policy) << ": " << took.count() << " s");
    CHECK(drawn.size() == 10'000);
    CHECK(took.count() < 1);  // some 10 ms on one core; the rest is for a busy machine
  }
}
