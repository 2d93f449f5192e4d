// covey-client is killed in front of every single step of a round: an action, a message that came,
// a change on disk. The next process goes on, and nothing of what is learnt changes.

#include <algorithm>
#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <sstream>

#include "fleet.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

/// More than there are steps in a round: each death takes one round, or two when the update had
/// been counted.
constexpr std::uint32_t kRounds = 100;

std::string run_file(std::uint32_t devices, const std::string& compressor,
                     const std::string& more) {
  return R"(
[run]
name = "deaths"
seed = 5
eval-every = 1000
num-rounds = )" +
         std::to_string(kRounds) + R"(
[data]
source = "synthetic"
[partition]
scheme = "natural"
clients = )" +
         std::to_string(devices) + R"(
[client]
learning-rate = 0.01
compressor = ")" +
         compressor + R"("
[selection]
fraction-fit = 1.0
quorum = 1.0
retry-min-s = 0
retry-max-s = 0.01
round-deadline-s = 20
heartbeat-s = 0.2
[server]
chunk-bytes = 1024
)" + more;
}

/// The sum goes on without one of three.
constexpr const char* kSums = R"(
[secure-aggregation]
mode = "honest-but-curious"
max-weight = 100
clip = 2.0
dropout = 0.4
)";

/// Ten examples of 60 numbers, as the run has them, that differ by device.
std::string table(int device) {
  std::string text = "label";
  for (int i = 0; i < 60; ++i) text += ",x" + std::to_string(i);
  for (int row = 0; row < 10; ++row) {
    text += "\n" + std::to_string(row);
    for (int i = 0; i < 60; ++i)
      text += "," + std::to_string((row * 7 + i * 3 + device * 5) % 11 - 5);
  }
  return text + "\n";
}

class MortalFleet : public Fleet {
 public:
  MortalFleet(const std::string& name, const std::string& run_file, int devices)
      : Fleet(name, run_file, devices) {
    for (int i = 0; i < devices; ++i) {
      write_file(folder() / ("data-" + std::to_string(i) + ".csv"), table(i));
    }
  }
  Process device(int number, std::vector<std::string> more = {}) {
    const std::string name = std::to_string(number);
    std::vector<std::string> arguments = {
        "--kit",    folder() / ("kits/device-000" + name),
        "--data",   "csv:" + (folder() / ("data-" + name + ".csv")),
        "--server", address(),
        "--state",  folder() / ("device-state-" + name),
        "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Process(COVEY_CLIENT_PROGRAM, arguments, folder() / ("device-" + name));
  }
  /// Sets aside what server and devices have, so that they begin anew.
  void forget_run() {
    for (const auto& entry : std::filesystem::directory_iterator(folder().path())) {
      const std::string name = entry.path().filename().string();
      if (name == "state" || name.starts_with("device-state-")) {
        std::filesystem::rename(entry.path(), folder() / ("calm-" + name));
      }
    }
  }
  struct Committed {
    std::uint32_t rounds = 0;
    int fewest = 1000, most = 0;  ///< updates in one of them
  };
  Committed committed() const {
    std::istringstream lines(read_file(folder() / "state/metrics.jsonl"));
    Committed committed;
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      if (!json["committed"].get<bool>()) continue;
      const int accepted = json["accepted"];
      ++committed.rounds;
      committed.fewest = std::min(committed.fewest, accepted);
      committed.most = std::max(committed.most, accepted);
    }
    return committed;
  }
};

/// A life that dies in front of step 1, then one that dies in front of step 2, ..., each followed
/// by one that ends with an update that was counted. Returns how many died.
std::uint32_t die_at_every_step(MortalFleet& fleet, int device) {
  std::uint32_t deaths = 0;
  while (true) {
    REQUIRE(deaths < kRounds);
    Process mortal = fleet.device(device, {"--once", "--die-at", std::to_string(deaths + 1)});
    const auto code = mortal.wait(30s);
    INFO("step " << deaths + 1 << ": " << mortal.standard_error());
    REQUIRE(code);
    if (code == 0) return deaths;
    REQUIRE(code == 128 + SIGKILL);
    ++deaths;
    Process next = fleet.device(device, {"--once"});
    const auto next_code = next.wait(30s);
    INFO("after death in front of step " << deaths << ": " << next.standard_error());
    REQUIRE(next_code == 0);
    REQUIRE(next.json()["updates_accepted"] == 1);
  }
}

std::string undisturbed_model(MortalFleet& fleet, int devices) {
  Process server = fleet.server();
  std::vector<Process> processes;
  for (int i = 0; i < devices; ++i) processes.push_back(fleet.device(i));
  check_ended_well(server, "server");
  for (Process& process : processes) check_ended_well(process, "device");
  CHECK(fleet.committed().rounds == kRounds);
  CHECK(fleet.committed().fewest == devices);
  return server.json()["model_sha256"];
}

/// Device 0 dies at every step while the others go on; then the run comes to its end. Returns the
/// model.
std::string model_after_deaths(MortalFleet& fleet, int devices) {
  Process server = fleet.server();
  std::vector<Process> others;
  for (int i = 1; i < devices; ++i) others.push_back(fleet.device(i));
  const std::uint32_t deaths = die_at_every_step(fleet, 0);
  WARN(deaths << " deaths, the last of them in round " << fleet.committed().rounds);
  CHECK(deaths > 40);
  others.push_back(fleet.device(0));
  check_ended_well(server, "server");
  for (Process& process : others) check_ended_well(process, "device");
  CHECK(fleet.committed().rounds == kRounds);
  CHECK(fleet.committed().most == devices);  // nobody counts twice
  CHECK(count(fleet.server_log(), "rejected in round") == 0);
  return server.json()["model_sha256"];
}

void check_deaths_change_nothing(MortalFleet& fleet, int devices) {
  const std::string model = undisturbed_model(fleet, devices);
  fleet.forget_run();
  CHECK(model_after_deaths(fleet, devices) == model);
  CHECK(fleet.committed().fewest == devices);
}

}  // namespace

TEST_CASE("a client killed at every step of a round counts once in each and learns the same") {
  MortalFleet fleet("deaths", run_file(1, "fp32", ""), 1);
  check_deaths_change_nothing(fleet, 1);
}

TEST_CASE("what compression lost survives a death at every step") {
  MortalFleet fleet("deaths-residual", run_file(1, "top-k:0.1", ""), 1);
  check_deaths_change_nothing(fleet, 1);
}

TEST_CASE("a client of secure sums killed at every step leaves the others a sum") {
  MortalFleet fleet("deaths-leave", run_file(3, "fp32", kSums), 3);
  CHECK_FALSE(model_after_deaths(fleet, 3).empty());
  CHECK(fleet.committed().fewest >= 2);
}
