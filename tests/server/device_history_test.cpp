// What the coordinator remembers of devices for policies and limits.

#include "../../server/device_history.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace covey;
using namespace covey::server;
using Seconds = std::chrono::seconds;

namespace {

constexpr ClientId kDevice{7};

Report report_of(double loss, std::uint64_t examples) {
  Report report;
  report.train_loss = loss;
  report.num_examples = examples;
  return report;
}

RoundNumber round_of(std::uint32_t number) { return RoundNumber{number}; }

}  // namespace

TEST_CASE("of a device its last accepted report counts") {
  DeviceHistory history({});
  CHECK(history.find(kDevice) == nullptr);
  history.reported(kDevice, round_of(1), report_of(2.5, 10), Seconds(30));
  history.reported(kDevice, round_of(1), report_of(1.5, 40), Seconds(20));
  REQUIRE(history.find(kDevice) != nullptr);
  CHECK(history.find(kDevice)->tried());
  CHECK(history.find(kDevice)->train_loss == 1.5f);
  CHECK(history.find(kDevice)->num_examples == 40);
  CHECK(history.find(kDevice)->duration_s == 20.0f);
  CHECK(history.find(kDevice)->statistical_utility() == 60);
  CHECK(history.devices() == 1);
}

TEST_CASE("a loss that is no number leaves the last one, and is a trial without a loss") {
  DeviceHistory history({});
  history.reported(kDevice, round_of(1), report_of(std::numeric_limits<double>::quiet_NaN(), 10),
                   Seconds(1));
  CHECK(history.find(kDevice)->tried());
  CHECK_FALSE(history.find(kDevice)->has_loss());
  CHECK(history.find(kDevice)->statistical_utility() == 0);
  history.reported(kDevice, round_of(1), report_of(3, 10), Seconds(1));
  history.reported(kDevice, round_of(1), report_of(1e300, 10),
                   Seconds(1));  // more than a float holds
  CHECK(history.find(kDevice)->train_loss == 3.0f);
}

TEST_CASE("claims of examples beyond counting are cut, and a loss below zero has no utility") {
  DeviceHistory history({});
  history.reported(kDevice, round_of(1), report_of(1, UINT64_MAX), Seconds(1));
  CHECK(history.find(kDevice)->num_examples == UINT32_MAX);
  history.reported(kDevice, round_of(1), report_of(-4, 10), Seconds(1));
  CHECK(history.find(kDevice)->statistical_utility() == 0);
}

TEST_CASE("a device that is waited for in vain is at least so slow, until it reports") {
  DeviceHistory history({});
  history.reported(kDevice, round_of(1), report_of(1, 10), Seconds(20));
  history.missed(kDevice, round_of(1), Seconds(15));
  CHECK(history.find(kDevice)->duration_s == 20.0f);
  history.missed(kDevice, round_of(1), Seconds(60));
  CHECK(history.find(kDevice)->duration_s == 60.0f);
  history.reported(kDevice, round_of(1), report_of(1, 10), Seconds(25));
  CHECK(history.find(kDevice)->duration_s == 25.0f);
}

TEST_CASE("a missed task is a trial, and every one in a row halves what a device is worth") {
  DeviceHistory history({});
  history.arrived(kDevice, round_of(3));
  CHECK_FALSE(history.find(kDevice)->tried());
  history.missed(kDevice, round_of(4), Seconds(10));
  const DeviceRecord& record = *history.find(kDevice);
  CHECK(record.tried());
  CHECK(record.last_tried == 4);
  CHECK_FALSE(record.has_loss());
  CHECK(record.discounted(8) == 4);
  history.missed(kDevice, round_of(4), Seconds(10));  // the round was drawn again
  CHECK(record.discounted(8) == 2);
  CHECK(record.discounted(-8) == -32);  // below zero, worth less is further below
  history.reported(kDevice, round_of(6), report_of(3, 10), Seconds(10));
  CHECK(record.last_tried == 6);
  CHECK(record.discounted(8) == 8);
  for (int task = 0; task < 300; ++task) history.missed(kDevice, round_of(7), Seconds(10));
  CHECK(record.discounted(1) == std::ldexp(1, -255));  // and does not wrap
}

TEST_CASE("availability counts the rounds in which a device was there") {
  DeviceHistory history({});
  CHECK(history.rounds_available(kDevice, round_of(9)) == 0);
  history.arrived(kDevice, round_of(2));
  CHECK(history.rounds_available(kDevice, round_of(2)) == 1);
  CHECK(history.rounds_available(kDevice, round_of(4)) == 3);  // 2, 3, 4: it is still there
  history.left(kDevice, round_of(4));
  CHECK(history.rounds_available(kDevice, round_of(9)) == 3);
  history.arrived(kDevice, round_of(4));  // back in the same round: counted already
  history.left(kDevice, round_of(4));
  CHECK(history.rounds_available(kDevice, round_of(9)) == 3);
  history.arrived(kDevice, round_of(8));
  CHECK(history.rounds_available(kDevice, round_of(9)) == 5);  // and 8, 9
  history.arrived(kDevice, round_of(9));  // checks in again, connected all along
  CHECK(history.rounds_available(kDevice, round_of(9)) == 5);
}

TEST_CASE("leaving twice, or without having come, changes nothing") {
  DeviceHistory history({});
  history.left(kDevice, round_of(3));
  CHECK(history.devices() == 0);
  history.arrived(kDevice, round_of(3));
  history.left(kDevice, round_of(3));
  history.left(kDevice, round_of(8));
  CHECK(history.rounds_available(kDevice, round_of(9)) == 1);
}

TEST_CASE("between two rounds of a device lie as many as it has to rest") {
  DeviceHistory history({.max_participations = 0, .min_rounds_between = 2});
  history.participated(kDevice, round_of(4));
  const auto standing = [&](std::uint32_t round) {
    history.begin_round(round_of(round));
    return history.standing(kDevice, round_of(round));
  };
  CHECK(standing(5) == DeviceHistory::Standing::kResting);
  CHECK(history.rounds_to_rest(kDevice, round_of(5)) == 2);
  CHECK(history.barred() == 1);
  CHECK(standing(6) == DeviceHistory::Standing::kResting);
  CHECK(history.barred() == 1);
  CHECK(standing(7) == DeviceHistory::Standing::kFree);
  CHECK(history.rounds_to_rest(kDevice, round_of(7)) == 0);
  CHECK(history.barred() == 0);
  CHECK(history.standing(ClientId{8}, round_of(5)) == DeviceHistory::Standing::kFree);
}

TEST_CASE("participations of before a restart count against the limit") {
  DeviceHistory history({.max_participations = 3, .min_rounds_between = 0},
                        {.participations = {{ClientId{1}, 3}, {ClientId{2}, 2}, {ClientId{3}, 1}}});
  const auto standing = [&](std::uint64_t client) {
    return history.standing(ClientId{client}, round_of(9));
  };
  CHECK(history.barred() == 1);
  CHECK(standing(1) == DeviceHistory::Standing::kExhausted);
  CHECK(standing(2) == DeviceHistory::Standing::kFree);
  history.participated(ClientId{2}, round_of(8));
  CHECK(standing(2) == DeviceHistory::Standing::kExhausted);
  CHECK(history.barred() == 2);
  history.begin_round(round_of(9));
  CHECK(history.barred() == 2);
}

TEST_CASE("devices that rested when the server stopped rest on when it starts again") {
  using Standing = DeviceHistory::Standing;
  // Committed up to round 6, two rounds of rest: who was in round 3 or 4 is free in round 7.
  DeviceHistory::Past past;
  past.committed = round_of(6);
  past.last_rounds = {{ClientId{1}, round_of(6)},
                      {ClientId{2}, round_of(5)},
                      {ClientId{3}, round_of(4)},
                      {ClientId{4}, round_of(3)},
                      {ClientId{5}, round_of(6)}};
  past.participations = {{ClientId{1}, 1}, {ClientId{5}, 4}};
  DeviceHistory history({.max_participations = 4, .min_rounds_between = 2}, past);
  const auto standing = [&](std::uint64_t client, std::uint32_t round) {
    return history.standing(ClientId{client}, round_of(round));
  };
  CHECK(standing(1, 7) == Standing::kResting);
  CHECK(standing(2, 7) == Standing::kResting);
  CHECK(standing(3, 7) == Standing::kFree);
  CHECK(standing(4, 7) == Standing::kFree);
  CHECK(standing(5, 7) == Standing::kExhausted);
  CHECK(history.barred() == 3);
  history.begin_round(round_of(8));
  CHECK(standing(2, 8) == Standing::kFree);
  CHECK(history.barred() == 2);
  history.begin_round(round_of(9));
  CHECK(standing(1, 9) == Standing::kFree);
  CHECK(history.barred() == 1);  // the exhausted one
}

TEST_CASE("a device that rests is no less available for being sent away") {
  DeviceHistory history({.max_participations = 0, .min_rounds_between = 3});
  history.arrived(kDevice, round_of(1));
  history.participated(kDevice, round_of(1));
  history.left(kDevice, round_of(2));
  history.arrived(kDevice, round_of(5));
  CHECK(history.rounds_available(kDevice, round_of(5)) == 5);
}
