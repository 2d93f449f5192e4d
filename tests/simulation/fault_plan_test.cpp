#include "simulation/fault_plan.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <covey/simulation/faults.hpp>
#include <set>
#include <string>
#include <vector>

using namespace covey;
using namespace covey::simulation;

namespace {

FaultConfig faulty() {
  FaultConfig config;
  config.seed = 7;
  return config;
}

std::vector<MessageFate> fates(const FaultConfig& config, std::size_t count) {
  FaultPlan plan(config);
  std::vector<MessageFate> fates(count);
  for (auto& fate : fates) fate = plan.message();
  return fates;
}

proto::Encoded sample() {
  BlobChunk chunk;
  chunk.blob = sha256(std::as_bytes(std::span("model", 5)));
  chunk.offset = 64;
  chunk.payload = SharedBytes(std::vector<std::byte>(100, std::byte{0x5a}));
  return proto::encode(ClientMessage(chunk));
}

std::vector<std::byte> all_bytes(const proto::Encoded& encoded) {
  std::vector<std::byte> bytes = encoded.header;
  bytes.insert(bytes.end(), encoded.payload.span().begin(), encoded.payload.span().end());
  return bytes;
}

std::size_t bits_that_differ(const proto::Encoded& a, const proto::Encoded& b) {
  const auto x = all_bytes(a), y = all_bytes(b);
  REQUIRE(x.size() == y.size());
  std::size_t bits = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    bits += static_cast<std::size_t>(std::popcount(std::to_integer<unsigned>(x[i] ^ y[i])));
  }
  return bits;
}

RunConfig small_run() {
  RunConfig config;
  config.num_rounds = 9;
  config.selection.selection_timeout_s = 20;
  config.selection.round_deadline_s = 100;
  return config;
}

}  // namespace

TEST_CASE("the same seed repeats every fault of a plan, another seed has others") {
  FaultConfig config = faulty();
  config.drop = config.duplicate = config.cut = config.delay = 0.3;
  const auto numbers = [&](std::uint64_t seed) {
    config.seed = seed;
    std::vector<double> all;
    for (const MessageFate& fate : fates(config, 200)) {
      all.push_back(fate.lost + 2 * fate.twice + 4 * fate.cut_behind + seconds(fate.delay));
    }
    return all;
  };
  CHECK(numbers(7) == numbers(7));
  CHECK(numbers(7) != numbers(8));
}

TEST_CASE("a message's faults come at their rates") {
  FaultConfig config = faulty();
  config.drop = 0.1;
  config.duplicate = 0.2;
  config.reorder = 0.3;
  config.truncate = 0.05;
  config.corrupt = 0.4;
  config.cut = 0.15;
  config.delay = 0.25;
  config.delay_s = 8;
  constexpr std::size_t kMessages = 20000;
  double lost = 0, twice = 0, overtaken = 0, cut = 0, truncated = 0, corrupted = 0, late = 0,
         delay_s = 0;
  for (const MessageFate& fate : fates(config, kMessages)) {
    lost += fate.lost;
    twice += fate.twice;
    overtaken += fate.overtaken;
    cut += fate.cut_behind;
    truncated += fate.damage == Damage::kTruncated;
    corrupted += fate.damage == Damage::kCorrupted;
    late += fate.delay > Duration{};
    delay_s += seconds(fate.delay);
    CHECK(fate.delay <= from_seconds(8));
  }
  // Four standard deviations of a share of 20000: 4 sqrt(p (1 - p) / 20000) <= 0.0142.
  constexpr double kMargin = 0.0142;
  CHECK(lost / kMessages == Approx(0.1).margin(kMargin));
  CHECK(twice / kMessages == Approx(0.2).margin(kMargin));
  CHECK(overtaken / kMessages == Approx(0.3).margin(kMargin));
  CHECK(cut / kMessages == Approx(0.15).margin(kMargin));
  CHECK(truncated / kMessages == Approx(0.05).margin(kMargin));
  CHECK(corrupted / kMessages == Approx(0.4 * 0.95).margin(kMargin));  // where it is not truncated
  CHECK(late / kMessages == Approx(0.25).margin(kMargin));
  CHECK(delay_s / late == Approx(4).margin(0.15));  // uniform in [0, 8]
}

TEST_CASE("one fault more leaves the others where they were") {
  FaultConfig few = faulty();
  few.drop = 0.1;
  FaultConfig many = few;
  many.duplicate = many.corrupt = many.delay = many.cut = 0.5;
  const auto a = fates(few, 500), b = fates(many, 500);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i].lost == b[i].lost);
}

TEST_CASE("a truncated message loses its end and nothing else") {
  FaultPlan plan(faulty());
  const auto whole = all_bytes(sample());
  std::set<std::size_t> lengths;
  for (int i = 0; i < 300; ++i) {
    proto::Encoded encoded = sample();
    plan.damage(Damage::kTruncated, encoded);
    const auto rest = all_bytes(encoded);
    REQUIRE(rest.size() < whole.size());
    CHECK(std::equal(rest.begin(), rest.end(), whole.begin()));
    lengths.insert(rest.size());
  }
  CHECK(*lengths.begin() < sample().header.size());   // some in the header,
  CHECK(*lengths.rbegin() > sample().header.size());  // some in the payload
}

TEST_CASE("a corrupted message differs in one to eight bits and shares nothing with the original") {
  FaultPlan plan(faulty());
  const proto::Encoded original = sample();
  std::size_t single = 0;
  for (int i = 0; i < 400; ++i) {
    proto::Encoded encoded = original;
    plan.damage(Damage::kCorrupted, encoded);
    const std::size_t bits = bits_that_differ(encoded, original);
    CHECK(bits <= 8);  // two flips of one bit leave it as it was
    single += bits == 1;
  }
  CHECK(single > 150);
  CHECK(all_bytes(original) == all_bytes(sample()));
}

TEST_CASE("faults stop at their time, and with their round") {
  FaultConfig config = faulty();
  config.until_s = 100;
  config.until_round = 3;
  const FaultPlan plan(config);
  CHECK(plan.strikes(Time{} + from_seconds(99), RoundNumber{2}));
  CHECK_FALSE(plan.strikes(Time{} + from_seconds(100), RoundNumber{2}));
  CHECK_FALSE(plan.strikes(Time{} + from_seconds(5), RoundNumber{3}));
  config.until_s = config.until_round = 0;
  CHECK(FaultPlan(config).strikes(Time{} + from_seconds(1e8), RoundNumber{1000000}));
  config.seed = 0;
  CHECK_FALSE(FaultPlan(config).strikes(Time{}, RoundNumber{}));
}

TEST_CASE("clocks are wrong by no more than the skew, each device's always the same") {
  FaultConfig config = faulty();
  config.clock_skew = 0.2;
  const FaultPlan plan(config);
  std::set<double> rates;
  for (std::uint64_t client = 0; client < 50; ++client) {
    const double rate = plan.clock_rate(ClientId{client});
    CHECK(std::fabs(rate - 1) <= 0.2);
    CHECK(rate == plan.clock_rate(ClientId{client}));
    rates.insert(rate);
  }
  CHECK(rates.size() == 50);
}

TEST_CASE("a server that dies around a commit does so at each of its points") {
  FaultConfig config = faulty();
  config.commit_crash = 0.5;
  FaultPlan plan(config);
  std::array<int, 4> places{};
  for (int i = 0; i < 4000; ++i) ++places[static_cast<std::size_t>(plan.commit_crash())];
  CHECK(places[0] == Approx(2000).margin(130));  // 4 sqrt(4000 / 4)
  for (const int place : {1, 2, 3}) CHECK(places[static_cast<std::size_t>(place)] > 550);
}

TEST_CASE("seeds switch subsets of the faults on, each at times alone among the crashes") {
  std::set<std::string> seen;
  int drops = 0, without_crash = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    const FaultConfig faults = faults_of_seed(seed, small_run());
    CHECK(faults.seed == seed);
    CHECK(faults.until_round == 5);
    CHECK(faults.until_s == 5 * 120.0);
    drops += faults.drop > 0;
    without_crash +=
        faults.server_crash == 0 && faults.commit_crash == 0 && faults.device_crash == 0;
    std::string subset;
    for (const double rate :
         {faults.delay, faults.drop, faults.duplicate, faults.reorder, faults.truncate,
          faults.corrupt, faults.cut, faults.device_crash, faults.server_crash, faults.commit_crash,
          faults.disk_full, faults.clock_skew}) {
      CHECK((rate >= 0 && rate < 1));
      subset += rate > 0 ? '1' : '0';
    }
    seen.insert(subset);
    CHECK(subset.find('1') != std::string::npos);
  }
  CHECK(seen.size() > 350);  // of 4095 subsets, birthday: about 20 of 400 fall together
  CHECK(drops == Approx(200).margin(40));  // 4 sqrt(100)
  CHECK(without_crash > 20);               // an eighth: 50
}

TEST_CASE("faults written as overrides read back as they were") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const FaultConfig faults = faults_of_seed(seed, small_run());
    const auto config = parse_run_text("", "test.toml", fault_overrides(faults));
    INFO((config.ok() ? "" : config.error().message));
    REQUIRE(config.ok());
    CHECK(config->faults.drop == faults.drop);
    CHECK(config->faults.until_s == faults.until_s);
    CHECK(config->faults.until_round == faults.until_round);
    CHECK(fault_overrides(config->faults) == fault_overrides(faults));
  }
}
