// covey-client with a stream of which only what is new is trained on, killed in front of every
// step of a round: no example is trained on in two rounds that count.

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "fleet.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

constexpr const char* kRunFile = R"(
[run]
name = "stream"
seed = 5
eval-every = 1000
num-rounds = 1000
[data]
source = "synthetic"
[partition]
scheme = "natural"
clients = 1
[selection]
fraction-fit = 1.0
quorum = 1.0
retry-min-s = 0
retry-max-s = 0.01
round-deadline-s = 20
heartbeat-s = 0.2
)";

/// Ten rows, which nobody has written to for a while.
void put_table(const std::string& folder) {
  std::filesystem::create_directories(folder);
  std::string text = "label";
  for (int i = 0; i < 60; ++i) text += ",x" + std::to_string(i);
  for (int row = 0; row < 10; ++row) {
    text += "\n" + std::to_string(row);
    for (int i = 0; i < 60; ++i) text += "," + std::to_string((row * 7 + i * 3) % 11 - 5);
  }
  const std::string path = folder + "/rows.csv";
  write_file(path, text + "\n");
  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - 60s);
}

}  // namespace

TEST_CASE("wherever a device dies, the new examples of its stream count in one round") {
  Fleet fleet("stream-death", kRunFile, 1);
  Process server = fleet.server();
  bool died = true;
  std::size_t step = 0;
  while (died) {
    REQUIRE(++step < 200);
    const std::string name = std::to_string(step);
    const std::string stream = fleet.folder() / ("stream-" + name);
    put_table(stream + "/inbox");
    const auto device = [&](std::vector<std::string> more) {
      std::vector<std::string> arguments = {
          "--kit",    fleet.folder() / "kits/device-0000",
          "--data",   "stream:" + stream + ",label=label,classes=10,only-new=yes",
          "--server", fleet.address(),
          "--state",  fleet.folder() / ("device-state-" + name)};
      arguments.insert(arguments.end(), more.begin(), more.end());
      return Process(COVEY_CLIENT_PROGRAM, arguments, fleet.folder() / "device");
    };
    {
      Process mortal = device({"--once", "--die-at", name});
      const auto code = mortal.wait(30s);
      INFO("step " << step << ": " << mortal.standard_error());
      REQUIRE(code);
      died = code != 0;
      REQUIRE((!died || code == 128 + SIGKILL));
    }
    Process next = device({});
    INFO("after the death in front of step " << step);
    CHECK(eventually([&] { return fleet.committed() >= step; }, 10s));
    std::this_thread::sleep_for(200ms);  // a round takes some tens of milliseconds
    REQUIRE(fleet.committed() == step);
    next.kill();
  }
  CHECK(step > 10);
}
