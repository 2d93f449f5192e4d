// Real processes, real TLS, real disk: what the simulator is held against.

#include <csignal>
#include <thread>

#include <catch2/catch.hpp>

#include "fleet.hpp"

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

}  // namespace

TEST_CASE("a server and eight clients over TLS end with the simulator's model, bit for bit") {
  Fleet fleet("fleet", kRunFile);
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
  Fleet fleet("status", kRunFile);
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
  Fleet fleet("sigterm", kRunFile);
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
  Fleet fleet("revoked", kRunFile);
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
