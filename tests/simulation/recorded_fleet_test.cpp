#include <catch2/catch.hpp>
#include <covey/simulation/recorded_fleet.hpp>
#include <nlohmann/json.hpp>

using namespace covey;
using namespace covey::simulation;
using server::FleetEvent;
using Kind = server::FleetEventKind;

namespace {

constexpr ClientId kFirst{0}, kSecond{1};
constexpr RoundNumber kOne{1};

FleetEvent report(double at, ClientId client, double train_s) {
  return {at, Kind::kReported, client, kOne, 600, train_s, 10, 5};
}

FleetEvent committed(double at, double duration) {
  return {at, Kind::kCommitted, std::nullopt, kOne, std::nullopt, duration};
}

/// Device 0 takes part; device 1 leaves in the middle of the round and comes back behind it.
std::vector<FleetEvent> one_round() {
  return {{1000, Kind::kStarted},
          {1001, Kind::kConnected, kFirst},
          {1002, Kind::kConnected, kSecond},
          {1003, Kind::kAssigned, kFirst, kOne, 400},
          {1003, Kind::kAssigned, kSecond, kOne, 400},
          {1004, Kind::kGone, kSecond},
          report(1008, kFirst, 4),
          {1009, Kind::kAccepted, kFirst, kOne},
          committed(1010, 8),
          {1012, Kind::kConnected, kSecond},
          {1020, Kind::kCheckedIn, kFirst}};
}

RunConfig two_epochs() {
  RunConfig config;
  config.client.local_epochs = 2;
  return config;
}

}  // namespace

TEST_CASE("a device's speeds follow from when it was assigned, reported and accepted") {
  const RecordedFleet fleet = RecordedFleet::make(one_round(), two_epochs());
  const auto trace = fleet.capacity_trace(2);
  REQUIRE(trace);
  const auto json = nlohmann::json::parse(*trace);
  // 4 s for 10 examples in 2 epochs are 200 ms each, a third of them the forward pass.
  CHECK(json["1"]["computation"].get<double>() == Approx(200.0 / 3));
  // 6 s from assignment to acceptance, 4 of them training: 1000 bytes in 2 s.
  CHECK(json["1"]["communication"].get<double>() == Approx(4));
  CHECK(json["2"] == json["1"]);  // never reported: as those that did
}

TEST_CASE("a device is there while it is connected, and stays if it is at the end") {
  const RecordedFleet fleet = RecordedFleet::make(one_round(), two_epochs());
  CHECK(fleet.duration_s() == 20);
  const auto json = nlohmann::json::parse(fleet.availability_trace(3));
  const double finish = json["1"]["finish_time"];
  CHECK(finish > 1e6);
  CHECK(json["1"]["active"] == std::vector<double>{1});
  CHECK(json["1"]["inactive"] == std::vector<double>{finish});
  CHECK(json["2"]["active"] == std::vector<double>{2, 12});
  CHECK(json["2"]["inactive"] == std::vector<double>{4, finish});
  CHECK(json["3"]["active"].empty());  // was never there
}

TEST_CASE("a round's cohort and who was accepted of it are told") {
  const RecordedFleet fleet = RecordedFleet::make(one_round(), two_epochs());
  REQUIRE(fleet.rounds().size() == 1);
  const RecordedRound& round = fleet.rounds().front();
  CHECK(round.cohort == std::set<ClientId>{kFirst, kSecond});
  CHECK(round.accepted == std::set<ClientId>{kFirst});
  CHECK(round.duration_s == 8);
}

TEST_CASE("a server that died took all connections with it") {
  auto events = one_round();
  events.push_back({1100, Kind::kStarted});
  events.push_back({1101, Kind::kConnected, kFirst});
  events.push_back({1102, Kind::kGone, kFirst});
  const auto json =
      nlohmann::json::parse(RecordedFleet::make(events, two_epochs()).availability_trace(2));
  CHECK(json["1"]["active"] == std::vector<double>{1, 101});
  CHECK(json["1"]["inactive"] == std::vector<double>{20, 102});
  CHECK(json["2"]["inactive"] == std::vector<double>{4, 20});
}

TEST_CASE("a pause between two connections is no transfer, and an abandoned round no cohort") {
  const std::vector<FleetEvent> events = {{0, Kind::kStarted},
                                          {1, Kind::kConnected, kSecond},
                                          {1, Kind::kAssigned, kSecond, kOne, 400},
                                          {2, Kind::kAbandoned, std::nullopt, kOne},
                                          {3, Kind::kConnected, kFirst},
                                          {3, Kind::kAssigned, kFirst, kOne, 400},
                                          {4, Kind::kGone, kFirst},
                                          {94, Kind::kConnected, kFirst},
                                          {94, Kind::kAssigned, kFirst, kOne, 400},
                                          report(95, kFirst, 4),
                                          {95, Kind::kAccepted, kFirst, kOne},
                                          committed(96, 94)};
  const RecordedFleet fleet = RecordedFleet::make(events, two_epochs());
  CHECK(fleet.devices().at(kFirst).transfer_s == 0);
  CHECK(fleet.devices().at(kFirst).example_s.size() == 1);
  REQUIRE(fleet.rounds().size() == 2);
  CHECK_FALSE(fleet.rounds()[0].committed);
  CHECK(fleet.rounds()[1].cohort == std::set<ClientId>{kFirst});
}

TEST_CASE("where devices do not tell how long they trained there is no capacity trace") {
  auto events = one_round();
  for (FleetEvent& event : events) {
    if (event.kind == Kind::kReported) event.seconds = 0;
  }
  CHECK_FALSE(RecordedFleet::make(events, two_epochs()).capacity_trace(2));
}
