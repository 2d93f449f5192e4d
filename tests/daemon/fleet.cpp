#include "fleet.hpp"

#include <catch2/catch.hpp>
#include <cstdio>

namespace covey::testing {

using namespace std::chrono_literals;

Fleet::Fleet(const std::string& name, const std::string& run_file, int devices) : folder_(name) {
  write_file(folder_ / "run.toml", run_file);
  Process provision({"provision", "create", "--out", folder_ / "kits", "--devices",
                     std::to_string(devices), "--address", "127.0.0.1:1"},
                    folder_ / "provision");
  const auto code = provision.wait(60s);
  INFO(provision.standard_error());
  REQUIRE(code == 0);
}

Process Fleet::server(std::vector<std::string> more) {
  std::vector<std::string> arguments = {
      "server",  folder_ / "run.toml", "--kit",    folder_ / "kits/server",
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

Process Fleet::client(int device, std::vector<std::string> more) {
  char number[16];
  std::snprintf(number, sizeof number, "%04d", device);
  const std::string kit = folder_ / ("kits/device-" + std::string(number));
  std::vector<std::string> arguments = {
      "client", folder_ / "run.toml", "--kit", kit, "--server", address_, "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Process(arguments, folder_ / ("client-" + std::string(number)));
}

nlohmann::json Fleet::status(const std::string& key) {
  Process process({"status", "--kit", folder_ / "kits/operator", "--server", address_, "--json"},
                  folder_ / "status");
  REQUIRE(process.wait(30s) == 0);
  return process.json()[key];
}

std::string Fleet::simulated_model() {
  Process simulate(
      {"simulate", folder_ / "run.toml", "--out", folder_ / "simulated", "--quiet", "--json"},
      folder_ / "simulate");
  REQUIRE(simulate.wait(120s) == 0);
  return simulate.json()["model_sha256"];
}

Process Fleet::clients(int devices, std::vector<std::string> more) {
  std::vector<std::string> arguments = {
      "client", folder_ / "run.toml", "--devices", std::to_string(devices),
      "--kits", folder_ / "kits",     "--server",  address_,
      "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Process(arguments, folder_ / "clients");
}

void check_ended_well(Process& process, const std::string& who) {
  const auto code = process.wait(120s);
  INFO(who << ": " << process.standard_error());
  CHECK(code == 0);
}

}  // namespace covey::testing
