// A real fleet is recorded, and the simulator runs from the record.

#include <array>
#include <catch2/catch.hpp>

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
  // Device 6 leaves when it gets its work. The others train so long that the moment's difference
  // between its leaving and the round's beginning is little beside it, on any machine.
  std::string run_file = kRunFile;
  run_file.replace(run_file.find("fraction-fit = 1.0"), 18, "fraction-fit = 1.0\nquorum = 0.5");
  run_file.replace(run_file.find("num-rounds = 5"), 14, "num-rounds = 1");
  run_file.replace(run_file.find("local-epochs = 400"), 18, "local-epochs = 30000");
  Fleet fleet("replay-gone", run_file);
  Process server = fleet.server();
  std::vector<Process> clients;
  for (int i = 0; i < 8; ++i) {
    std::vector<std::string> leaves = {"--drop-out", "--set", "fleet.dropout=1"};
    clients.push_back(fleet.client(i, i == 6 ? leaves : std::vector<std::string>()));
  }
  const std::string state = fleet.folder() / "state";
  check_ended_well(server, "server");
  const auto replayed = command({"replay", state, "--json"}, fleet.folder() / "replay");
  INFO(replayed.dump(2) << read_file(state + "/fleet.csv"));
  REQUIRE(replayed["rounds"].size() == 1);
  CHECK(replayed["rounds"][0]["recorded_accepted"] == 7);
  CHECK(replayed["rounds"][0]["simulated_accepted"] == 7);
}

namespace {

/// A server's folder of one committed round of eight devices, each of which trained for 4 s a local
/// epoch that the plan of its class has; `classes`: of the first four and of the others.
std::string write_state(const TemporaryFolder& folder, std::array<std::string, 2> classes,
                        std::array<int, 2> epochs, const std::string& more_keys) {
  std::string run_file = kRunFile;
  run_file.replace(run_file.find("local-epochs = 400"), 18, "local-epochs = 2");
  write_file(folder / "run.toml", run_file + more_keys);
  std::string csv =
      "time_s,event,device,round,bytes,seconds,examples,steps,class\n1000,started,,,,,,,\n";
  std::string middle, end;
  for (std::size_t i = 0; i < 8; ++i) {
    const std::string device = std::to_string(i);
    const int took_s = 4 * epochs[i / 4];
    const std::string took = std::to_string(took_s), done = std::to_string(1002 + took_s) + ".01";
    csv += "1001,connected," + device + ",,,,,,\n";
    csv += "1001,checked-in," + device + ",,,,,," + classes[i / 4] + "\n";
    middle += "1002,assigned," + device + ",1,2440,,,,\n";
    end += done + ",reported," + device + ",1,2440," + took + ",60,6,\n";
    end += done + ",accepted," + device + ",1,,,,,\n";
  }
  write_file(folder / "fleet.csv", csv + middle + end + "1021,committed,,1,,8,,,\n");
  return folder.path();
}

std::string caveats(const nlohmann::json& replayed) { return replayed["caveats"].dump(); }

constexpr const char* kSlowDevices = "[client.class.slow]\nlocal-epochs = 1\n";

}  // namespace

TEST_CASE("devices that are all of one class get its plan in the replay") {
  TemporaryFolder folder("replay-class"), classless("replay-classless");
  write_state(folder, {"slow", "slow"}, {1, 1}, kSlowDevices);
  write_state(classless, {"", ""}, {2, 2}, kSlowDevices);
  const auto replayed = command({"replay", folder.path(), "--json"}, folder / "replay");
  INFO(replayed.dump(2));
  CHECK(replayed["simulated_accepted"] == 8);
  CHECK(replayed["complete"] == true);
  CHECK(replayed["caveats"].empty());
  // The same speeds, and one epoch instead of two.
  const auto longer = command({"replay", classless.path(), "--json"}, classless / "replay");
  const double ratio = longer["simulated_s"].get<double>() / replayed["simulated_s"].get<double>();
  CHECK(ratio == Approx(2).epsilon(0.1));
}

TEST_CASE("a replay says that devices of several classes get the plan of all") {
  TemporaryFolder folder("replay-classes");
  const auto state = write_state(folder, {"slow", ""}, {1, 2}, kSlowDevices);
  const auto replayed = command({"replay", state, "--json"}, folder / "replay");
  INFO(replayed.dump(2));
  CHECK(replayed["simulated_accepted"] == 8);
  CHECK(caveats(replayed).find("several classes (none, slow)") != std::string::npos);
  // What is exported is what a device's speed is in its class.
  const std::string traces = folder / "traces";
  command({"replay", state, "--export-traces", traces}, folder / "export");
  const auto capacity = nlohmann::json::parse(read_file(traces + "/capacity.json"));
  CHECK(capacity["1"]["computation"] == capacity["8"]["computation"]);
}

TEST_CASE("a replay says that the beginning of its record is missing") {
  TemporaryFolder folder("replay-cut");
  const auto state = write_state(folder, {"", ""}, {2, 2}, "");
  std::string csv = read_file(state + "/fleet.csv");
  const std::string start = "1000,started,,,,,,,\n";
  csv.erase(csv.find(start), start.size());
  write_file(state + "/fleet.csv", csv);
  const auto replayed = command({"replay", state, "--json"}, folder / "replay");
  INFO(replayed.dump(2));
  CHECK(replayed["complete"] == false);
  CHECK(caveats(replayed).find("begins in the middle of the run, at round 1") != std::string::npos);
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
  write_file(folder / "fleet.csv",
             "time_s,event,device,round,bytes,seconds,examples,steps,class\n1,started,,,,,,,\n2,"
             "flew,7,,,,,,\n");
  Process damaged({"replay", folder.path()}, folder / "damaged");
  CHECK(damaged.wait(20s) == 2);
  CHECK(damaged.standard_error().find("fleet.csv:3") != std::string::npos);
}
