// Secure aggregation and differential privacy between real processes over TLS.

#include <catch2/catch.hpp>
#include <covey/server/store.hpp>
#include <csignal>
#include <sstream>

#include "fleet.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

/// Eight devices of Synthetic(1,1), all of them in every round, and what a case adds.
std::string run_file(int rounds, const std::string& selection, const std::string& more,
                     int local_epochs = 2) {
  return "[run]\nname = \"secure-fleet\"\nseed = 5\nnum-rounds = " + std::to_string(rounds) +
         "\n[data]\nsource = \"synthetic\"\nsize-spread = 0.5\n"
         "[partition]\nscheme = \"natural\"\nclients = 8\n"
         "[client]\nlearning-rate = 0.05\nlocal-epochs = " +
         std::to_string(local_epochs) + "\n[selection]\nheartbeat-s = 1\n" + selection + more;
}

constexpr const char* kEveryone = "fraction-fit = 1.0\n";

std::string secure(const std::string& mode) {
  return "[secure-aggregation]\nmode = \"" + mode + "\"\nmax-weight = 2000\nclip = 2.0\n";
}

std::vector<nlohmann::json> metrics_of(const Fleet& fleet) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_file(fleet.folder() / "state/metrics.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

}  // namespace

TEST_CASE("devices that trust no server end over TLS with the simulator's model, bit for bit") {
  Fleet fleet("secure", run_file(5, kEveryone, secure("malicious-server")));
  Process server = fleet.server();
  Process seven = fleet.clients(7, {"--require-secure-aggregation", "malicious-server"});
  Process alone = fleet.client(7, {"--require-secure-aggregation", "malicious-server"});
  check_ended_well(server, "server");
  check_ended_well(seven, "clients");
  check_ended_well(alone, "client");
  CHECK(server.json()["rounds"] == 5);
  CHECK(seven.json()["updates_accepted"] == 35);
  CHECK(alone.json()["updates_accepted"] == 5);
  CHECK(server.json()["model_sha256"] == fleet.simulated_model());
  const auto metrics = metrics_of(fleet);
  REQUIRE(metrics.size() == 5);
  for (const auto& line : metrics) CHECK(line.value("secagg_masked", 0) == 8);
}

TEST_CASE("devices that vanish behind their keys leave the simulator's model, bit for bit") {
  // Silence shows after three heartbeats; whoever fails stays away for a deadline.
  Fleet fleet("secure-dropout",
              run_file(3, "fraction-fit = 1.0\nquorum = 0.5\nround-deadline-s = 5\n",
                       secure("malicious-server") +
                           "dropout = 0.3\n[fleet]\ndropout = 0.2\ndropout-at = \"masking\"\n"));
  Process server = fleet.server();
  Process clients = fleet.clients(8, {"--drop-out"});
  check_ended_well(server, "server");
  clients.signal(SIGTERM);  // whoever was away at the end would go on looking for the server
  check_ended_well(clients, "clients");
  CHECK(server.json()["model_sha256"] == fleet.simulated_model());
  const auto metrics = metrics_of(fleet);
  int recovered = 0;
  for (const auto& line : metrics) recovered += line.value("secagg_recovered", 0);
  INFO(fleet.server_log());
  CHECK(recovered > 0);
}

TEST_CASE("a server killed in the middle of secure rounds goes on to the simulator's model") {
  Fleet fleet("secure-killed", run_file(6, kEveryone, secure("honest-but-curious"), 1000));
  Process server = fleet.server();
  Process clients = fleet.clients(8);
  for (const std::size_t rounds : {1, 3}) {
    REQUIRE(eventually([&] { return fleet.committed() >= rounds; }, 60s));
    server.kill();
    server = fleet.server();
  }
  check_ended_well(server, "server");
  check_ended_well(clients, "clients");
  CHECK(server.json()["rounds"] == 6);
  CHECK(server.json()["model_sha256"] == fleet.simulated_model());
}

TEST_CASE(
    "a device whose owner asks for secure aggregation declines a server without, and says why") {
  Fleet fleet("secure-demand", run_file(2, "fraction-fit = 1.0\nmin-available-clients = 1\n", ""));
  Process server = fleet.server();
  Process client = fleet.client(0, {"--require-secure-aggregation", "malicious-server"});
  const std::string why =
      "takes part only in sums that are secure against a server that is "
      "malicious-server";
  CHECK(eventually([&] { return client.standard_error().find(why) != std::string::npos; }, 20s));
  CHECK(eventually([&] { return fleet.server_log().find(why) != std::string::npos; }, 20s));
  client.signal(SIGTERM);
  CHECK(client.wait(20s) == 0);
  CHECK(client.json()["updates_accepted"] == 0);
  CHECK(fleet.committed() == 0);
  CHECK(server.running());
}

TEST_CASE("a privacy budget over TLS is told with every round and ends the run when it is spent") {
  Fleet fleet("private",
              run_file(100, kEveryone,
                       "[privacy]\nmechanism = \"central-gaussian\"\nnoise-multiplier = 2.0\n"
                       "epsilon = 4.0\namplification = false\nclip-norm = 0.5\n"));
  Process server = fleet.server();
  Process clients = fleet.clients(8);
  check_ended_well(server, "server");
  check_ended_well(clients, "clients");
  const std::string reason = server.json()["reason"];
  CHECK(reason.starts_with("the privacy budget is spent: epsilon "));
  const auto metrics = metrics_of(fleet);
  REQUIRE(metrics.size() > 1);
  CHECK(metrics.size() < 100);
  double before = 0;
  for (const auto& line : metrics) {
    CHECK(line.value("epsilon", 0.0) > before);
    before = line.value("epsilon", 0.0);
  }
  CHECK(before <= 4);
}

TEST_CASE("how often devices took part survives a killed server") {
  // Each may be in one round: behind the first, of four, only the other four are left.
  Fleet fleet("private-killed",
              run_file(2, "fraction-fit = 0.5\n",
                       "[privacy]\nmechanism = \"dp-ftrl\"\nnoise-multiplier = 2.0\n"
                       "amplification = false\nclip-norm = 0.5\nmax-participations = 1\n",
                       300));
  Process server = fleet.server();
  Process clients = fleet.clients(8);
  REQUIRE(eventually([&] { return fleet.committed() >= 1; }, 60s));
  server.kill();
  server = fleet.server();
  check_ended_well(server, "server");
  CHECK(server.json()["rounds"] == 2);
  auto store = covey::server::Store::open(fleet.folder() / "state/store.sqlite");
  REQUIRE(store.ok());
  const auto counts = store->load_participations();
  REQUIRE(counts.ok());
  CHECK(counts->size() == 8);
  for (const auto& [client, count] : *counts) CHECK(count == 1);
}
