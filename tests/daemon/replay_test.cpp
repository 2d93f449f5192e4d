// A real fleet is recorded, and the simulator runs from the record.

#include <catch2/catch.hpp>
#include <csignal>

#include "fleet.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

/// Eight devices, all of them in every round; training takes long beside messages over the loopback
/// device.
constexpr const char* kRunFile = R"(
[run]
name = "replay"
seed = 5
num-rounds = 5
[data]
source = "synthetic"
size-spread = 0.5
[partition]
scheme = "natural"
clients = 8
[client]
learning-rate = 0.01
local-epochs = 400
[selection]
fraction-fit = 1.0
round-deadline-s = 60
heartbeat-s = 1
)";

nlohmann::json command(const std::vector<std::string>& arguments, const std::string& log,
                       int expected = 0) {
  Process process(arguments, log);
  const auto code = process.wait(60s);
  INFO(process.standard_error());
  REQUIRE(code == expected);
  return process.json();
}

}  // namespace

TEST_CASE("a recorded fleet is simulated with its own devices, rounds and speeds") {
  Fleet fleet("replay", kRunFile);
  {
    Process server = fleet.server();
    std::vector<Process> clients;
    for (int i = 0; i < 8; ++i) clients.push_back(fleet.client(i));
    check_ended_well(server, "server");
    for (auto& client : clients) check_ended_well(client, "client");
  }
  const std::string state = fleet.folder() / "state";
  INFO(read_file(state + "/fleet.csv"));
  const auto replayed = command({"replay", state, "--json"}, fleet.folder() / "replay");
  INFO(replayed.dump(2));
  CHECK(replayed["devices"] == 8);
  REQUIRE(replayed["rounds"].size() == 5);
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(replayed["rounds"][i]["round"] == i + 1);
    CHECK(replayed["rounds"][i]["cohort_overlap"] == 1);
  }
  CHECK(replayed["recorded_accepted"] == 40);
  CHECK(replayed["simulated_accepted"] == 40);
  // A device's speed is the median of its rounds; on a busy machine single rounds are up to some
  // times slower than that, all of them together less so.
  const double ratio = replayed["simulated_s"].get<double>() / replayed["recorded_s"].get<double>();
  CHECK(ratio > 0.2);
  CHECK(ratio < 2);

  const std::string traces = fleet.folder() / "traces";
  const auto exported =
      command({"replay", state, "--export-traces", traces, "--json"}, fleet.folder() / "export");
  const auto simulated =
      command({"simulate", fleet.folder() / "run.toml", "--quiet", "--json", "--out",
               fleet.folder() / "traced", "--set", "fleet.latency-ms=0", "--set",
               "fleet.capacity-trace=" + traces + "/capacity.json", "--set",
               "fleet.availability-trace=" + traces + "/availability.json"},
              fleet.folder() / "traced-log");
  CHECK(exported["devices"] == 8);
  CHECK(simulated["rounds"] == 5);
}

TEST_CASE("a device that left in the middle of a round leaves there in the replay, too") {
  std::string run_file = kRunFile;
  run_file.replace(run_file.find("fraction-fit = 1.0"), 18, "fraction-fit = 1.0\nquorum = 0.5");
  run_file.replace(run_file.find("round-deadline-s = 60"), 21, "round-deadline-s = 12");
  run_file.replace(run_file.find("num-rounds = 5"), 14, "num-rounds = 1");
  run_file.replace(run_file.find("local-epochs = 400"), 18, "local-epochs = 20000");
  Fleet fleet("replay-gone", run_file);
  Process server = fleet.server();
  std::vector<Process> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(fleet.client(i));
  const std::string state = fleet.folder() / "state";
  REQUIRE(eventually([&] { return fleet.status("phase") == "reporting"; }, 30s));
  clients[6].kill();
  check_ended_well(server, "server");
  const auto replayed = command({"replay", state, "--json"}, fleet.folder() / "replay");
  INFO(replayed.dump(2) << read_file(state + "/fleet.csv"));
  REQUIRE(replayed["rounds"].size() == 1);
  CHECK(replayed["rounds"][0]["recorded_accepted"] < 8);
  CHECK(replayed["rounds"][0]["simulated_accepted"] < 8);
}

TEST_CASE("a folder without a record, or with a damaged one, is refused with a sentence") {
  TemporaryFolder folder("replay-bad");
  Process absent({"replay", folder.path()}, folder / "absent");
  CHECK(absent.wait(20s) == 2);
  CHECK(absent.standard_error().find("run.toml") != std::string::npos);
  write_file(folder / "run.toml", kRunFile);
  Process unrecorded({"replay", folder.path()}, folder / "unrecorded");
  CHECK(unrecorded.wait(20s) == 2);
  CHECK(unrecorded.standard_error().find("fleet.csv") != std::string::npos);
  write_file(
      folder / "fleet.csv",
      "time_s,event,device,round,bytes,seconds,examples,steps\n1,started,,,,,,\n2,flew,7,,,,,\n");
  Process damaged({"replay", folder.path()}, folder / "damaged");
  CHECK(damaged.wait(20s) == 2);
  CHECK(damaged.standard_error().find("fleet.csv:3") != std::string::npos);
}
