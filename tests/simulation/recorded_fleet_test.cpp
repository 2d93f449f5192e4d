#include <catch2/catch.hpp>
#include <covey/simulation/recorded_fleet.hpp>
#include <nlohmann/json.hpp>

using namespace covey;
using namespace covey::simulation;
using server::FleetEvent;
using Kind = server::FleetEventKind;
using Plans = RecordedFleet::Plans;

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
  const auto trace = fleet.capacity_trace(2, Plans::kOwn);
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
  CHECK_FALSE(RecordedFleet::make(events, two_epochs()).capacity_trace(2, Plans::kOwn));
}

namespace {

FleetEvent checked_in(double at, ClientId client, const std::string& device_class) {
  FleetEvent event{at, Kind::kCheckedIn, client};
  event.device_class = device_class;
  return event;
}

/// Two devices train for 4 s each, on 10 examples; the second is of the class "slow".
std::vector<FleetEvent> two_classes() {
  return {{0, Kind::kStarted},
          {1, Kind::kConnected, kFirst},
          {1, Kind::kConnected, kSecond},
          checked_in(1, kFirst, ""),
          checked_in(1, kSecond, "slow"),
          {2, Kind::kAssigned, kFirst, kOne, 400},
          {2, Kind::kAssigned, kSecond, kOne, 400},
          report(6, kFirst, 4),
          report(6, kSecond, 4),
          {6, Kind::kAccepted, kFirst, kOne},
          {6, Kind::kAccepted, kSecond, kOne},
          committed(6, 4)};
}

RunConfig one_epoch_for_slow_devices() {
  RunConfig config = two_epochs();
  config.client.classes = {{"slow", 1, std::nullopt, std::nullopt, 1}};
  return config;
}

double example_ms(const RecordedFleet& fleet, const std::string& device, Plans plans) {
  return 3 * nlohmann::json::parse(*fleet.capacity_trace(2, plans))[device]["computation"]
                 .get<double>();
}

}  // namespace

TEST_CASE("the speed of a device is counted with the local epochs of its class") {
  const auto fleet = RecordedFleet::make(two_classes(), one_epoch_for_slow_devices());
  CHECK(fleet.plans() == std::set<std::string>{"", "slow"});
  CHECK(example_ms(fleet, "1", Plans::kOwn) == Approx(200));  // 4 s, 10 examples, 2 epochs
  CHECK(example_ms(fleet, "2", Plans::kOwn) == Approx(400));  // 1 epoch
  // With the two epochs of all, the second needs half of that to take its 4 s again.
  CHECK(example_ms(fleet, "1", Plans::kCommon) == Approx(200));
  CHECK(example_ms(fleet, "2", Plans::kCommon) == Approx(200));
}

TEST_CASE("a class that the run file does not name follows the plan of all") {
  const auto fleet = RecordedFleet::make(two_classes(), two_epochs());
  CHECK(fleet.plans() == std::set<std::string>{""});
  CHECK(example_ms(fleet, "2", Plans::kOwn) == Approx(200));
}

TEST_CASE("a device that came to fewer epochs is no faster for it") {
  RunConfig config = two_epochs();
  config.client.local_epochs = 8;
  config.client.batch_size = 4;  // 3 steps an epoch
  auto events = two_classes();
  for (FleetEvent& event : events) {
    if (event.kind == Kind::kReported) event.steps = event.client == kFirst ? 24 : 6;
  }
  const auto whole = RecordedFleet::make(events, config);
  CHECK(example_ms(whole, "2", Plans::kOwn) == Approx(50));  // 8 epochs, whatever the steps say
  config.client.accept_partial_work = true;
  const auto partial = RecordedFleet::make(events, config);
  CHECK(example_ms(partial, "1", Plans::kOwn) == Approx(50));
  CHECK(example_ms(partial, "2", Plans::kOwn) == Approx(200));  // 2 epochs
}

TEST_CASE("a record without its beginning is not taken for a whole one") {
  auto events = one_round();
  CHECK(RecordedFleet::make(events, two_epochs()).complete());
  events.erase(events.begin());
  CHECK_FALSE(RecordedFleet::make(events, two_epochs()).complete());
  // The same where a server that had committed rounds before began the record.
  auto later = one_round();
  for (FleetEvent& event : later) {
    if (event.round) event.round = RoundNumber{4};
  }
  CHECK_FALSE(RecordedFleet::make(later, two_epochs()).complete());
}

TEST_CASE("who was connected before the record begins is there from its beginning") {
  const std::vector<FleetEvent> events = {{50, Kind::kCheckedIn, kFirst},
                                          {52, Kind::kGone, kSecond},
                                          {54, Kind::kConnected, kSecond},
                                          {60, Kind::kCheckedIn, kSecond}};
  const auto json =
      nlohmann::json::parse(RecordedFleet::make(events, two_epochs()).availability_trace(2));
  CHECK(json["1"]["active"] == std::vector<double>{0});
  CHECK(json["1"]["inactive"] == std::vector<double>{json["1"]["finish_time"]});
  CHECK(json["2"]["active"] == std::vector<double>{0, 4});
  CHECK(json["2"]["inactive"][0] == 2);
}
