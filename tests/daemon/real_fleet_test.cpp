// Real processes, real TLS, real disk: what the simulator is held against.

#include <csignal>
#include <cstdio>
#include <thread>

#include <catch2/catch.hpp>

#include "process.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

/// Eight devices of Synthetic(1,1), all of them in every round.
constexpr const char* kRunFile = R"(
[run]
name = "fleet"
seed = 5
num-rounds = 12
[data]
source = "synthetic"
size-spread = 0.5
[partition]
scheme = "natural"
clients = 8
[client]
learning-rate = 0.05
local-epochs = 3
[selection]
fraction-fit = 1.0
round-deadline-s = 60
heartbeat-s = 1
)";

/// Certificates, a server and its devices in one folder.
class Fleet {
 public:
  explicit Fleet(const std::string& name, const std::string& run_file = kRunFile, int devices = 8)
      : folder_(name) {
    write_file(folder_ / "run.toml", run_file);
    Process provision({"provision", "create", "--out", folder_ / "kits", "--devices",
                       std::to_string(devices), "--address", "127.0.0.1:1"},
                      folder_ / "provision");
    const auto code = provision.wait(60s);
    INFO(provision.standard_error());
    REQUIRE(code == 0);
  }

  Process server(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"server",  folder_ / "run.toml", "--kit",    folder_ / "kits/server",
                                          "--state", folder_ / "state",    "--listen", address_,
                                          "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const std::size_t before = count(server_log(), "listening port=");
    Process process(arguments, folder_ / "server");
    REQUIRE(eventually(
        [&] { return count(server_log(), "listening port=") > before || !process.running(); }, 30s));
    INFO(server_log());
    REQUIRE(process.running());
    const std::string log = server_log();
    const auto at = log.rfind("listening port=") + 15;
    address_ = "127.0.0.1:" + log.substr(at, log.find(' ', at) - at);  // a restart takes the same one
    return process;
  }

  Process client(int device, std::vector<std::string> more = {}) {
    char number[16];
    std::snprintf(number, sizeof number, "%04d", device);
    const std::string kit = folder_ / ("kits/device-" + std::string(number));
    std::vector<std::string> arguments = {"client", folder_ / "run.toml", "--kit",  kit,
                                          "--server", address_,           "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Process(arguments, folder_ / ("client-" + std::string(number)));
  }

  nlohmann::json status(const std::string& key) {
    Process process({"status", "--kit", folder_ / "kits/operator", "--server", address_, "--json"},
                    folder_ / "status");
    REQUIRE(process.wait(30s) == 0);
    return process.json()[key];
  }

  std::string simulated_model() {
    Process simulate({"simulate", folder_ / "run.toml", "--out", folder_ / "simulated", "--quiet", "--json"},
                     folder_ / "simulate");
    REQUIRE(simulate.wait(120s) == 0);
    return simulate.json()["model_sha256"];
  }

  std::string server_log() const { return read_file(folder_ / "server.err"); }
  std::size_t committed() const { return count(server_log(), "round committed"); }
  const std::string& address() const { return address_; }
  const TemporaryFolder& folder() const { return folder_; }

 private:
  TemporaryFolder folder_;
  std::string address_ = "127.0.0.1:0";
};

void check_ended_well(Process& process, const std::string& who) {
  const auto code = process.wait(120s);
  INFO(who << ": " << process.standard_error());
  CHECK(code == 0);
}

}  // namespace

TEST_CASE("a server and eight clients over TLS end with the simulator's model, bit for bit") {
  Fleet fleet("fleet");
  Process server = fleet.server();
  std::vector<Process> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(fleet.client(i));
  check_ended_well(server, "server");
  for (auto& client : clients) check_ended_well(client, "client");
  CHECK(server.json()["rounds"] == 12);
  CHECK(server.json()["model_sha256"] == fleet.simulated_model());
  for (auto& client : clients) CHECK(client.json()["updates_accepted"] == 12);
}

TEST_CASE("devices that train in int8 over TLS end with the simulator's model, bit for bit") {
  std::string run_file = kRunFile;
  run_file.replace(run_file.find("local-epochs = 3"), 16, "local-epochs = 3\nprecision = \"int8\"");
  Fleet fleet("int8", run_file);
  Process server = fleet.server();
  std::vector<Process> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(fleet.client(i));
  REQUIRE(eventually([&] { return fleet.committed() >= 3; }, 60s));
  server.kill();  // what is sent is encoded anew from the stored fp32 model
  server = fleet.server();
  check_ended_well(server, "server");
  for (auto& client : clients) check_ended_well(client, "client");
  CHECK(server.json()["rounds"] == 12);
  CHECK(server.json()["model_sha256"] == fleet.simulated_model());
}

TEST_CASE("killed clients, a late one and a killed server change nothing of what is learnt") {
  // Long enough local training that kills land in the middle of rounds.
  std::string run_file = kRunFile;
  run_file.replace(run_file.find("local-epochs = 3"), 16, "local-epochs = 2000");
  Fleet fleet("faults", run_file);
  Process server = fleet.server();
  std::vector<Process> clients;
  for (int i = 0; i < 7; ++i) clients.push_back(fleet.client(i));
  std::this_thread::sleep_for(300ms);
  CHECK(fleet.committed() == 0);
  clients.push_back(fleet.client(7));  // joins late

  REQUIRE(eventually([&] { return fleet.committed() >= 2; }, 60s));
  clients[3].kill();
  clients[3] = fleet.client(3);
  REQUIRE(eventually([&] { return fleet.committed() >= 4; }, 60s));
  server.kill();
  const std::size_t before = fleet.committed();
  server = fleet.server();
  CHECK(fleet.committed() >= before);
  REQUIRE(eventually([&] { return fleet.committed() >= 6; }, 60s));

  check_ended_well(server, "server");
  for (auto& client : clients) check_ended_well(client, "client");
  CHECK(server.json()["rounds"] == 12);
  CHECK(server.json()["model_sha256"] == fleet.simulated_model());
}

TEST_CASE("status tells an operator what a running server does, and nobody else") {
  Fleet fleet("status");
  Process server = fleet.server();
  Process client = fleet.client(0);
  Process status({"status", "--kit", fleet.folder() / "kits/operator", "--server", fleet.address(), "--json"},
                 fleet.folder() / "status");
  INFO(status.standard_error());
  REQUIRE(status.wait(30s) == 0);
  CHECK(status.json()["phase"] == "selection");
  CHECK(status.json()["num_rounds"] == 12);
  Process intruder({"status", "--kit", fleet.folder() / "kits/device-0001", "--server", fleet.address(), "--json"},
                   fleet.folder() / "intruder");
  CHECK(intruder.wait(30s) != 0);
  CHECK(server.running());
}

TEST_CASE("SIGTERM stops server and clients cleanly, and the server goes on where it was") {
  Fleet fleet("sigterm");
  std::string first_model;
  {
    Process server = fleet.server({"--set", "run.num-rounds=2"});
    std::vector<Process> clients;
    for (int i = 0; i < 8; ++i) clients.push_back(fleet.client(i));
    check_ended_well(server, "server");
  }
  Process server = fleet.server();
  CHECK(fleet.server_log().find("round=2") != std::string::npos);
  std::vector<Process> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(fleet.client(i));  // too few to go on
  std::this_thread::sleep_for(500ms);
  for (auto& client : clients) client.signal(SIGTERM);
  for (auto& client : clients) CHECK(client.wait(20s) == 0);
  server.signal(SIGTERM);
  CHECK(server.wait(20s) == 0);
  CHECK(server.json()["rounds"] == 2);
}

TEST_CASE("a revoked device is sent away while it is connected, and is told why") {
  Fleet fleet("revoked");
  Process server = fleet.server();
  Process device = fleet.client(2);  // waits for the other seven
  REQUIRE(eventually([&] { return fleet.status("pool") == 1; }, 20s));
  Process revoke({"provision", "revoke", "--authority", fleet.folder() / "kits/authority", "--server",
                  fleet.folder() / "kits/server", fleet.folder() / "kits/device-0002/device.pem"},
                 fleet.folder() / "revoke");
  INFO(revoke.standard_error());
  REQUIRE(revoke.wait(20s) == 0);
  CHECK(device.wait(30s) == 1);
  CHECK(device.standard_error().find("revoked") != std::string::npos);
  CHECK(server.running());
  CHECK(fleet.status("pool") == 0);
  Process again = fleet.client(2);  // at the handshake now
  CHECK(again.wait(60s) == 1);
  CHECK(again.standard_error().find("revoked") != std::string::npos);
}

TEST_CASE("many devices in one process take part over real connections") {
  std::string run_file = kRunFile;
  run_file.replace(run_file.find("clients = 8"), 11, "clients = 40");
  Fleet fleet("many", run_file, 40);
  Process server = fleet.server();
  Process clients({"client", fleet.folder() / "run.toml", "--devices", "40", "--kits", fleet.folder() / "kits",
                   "--server", fleet.address(), "--json"},
                  fleet.folder() / "clients");
  check_ended_well(server, "server");
  check_ended_well(clients, "clients");
  CHECK(clients.json()["updates_accepted"] == 40 * 12);
  CHECK(server.json()["model_sha256"] == fleet.simulated_model());
}
