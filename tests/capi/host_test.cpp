// A device inside this process, and one inside a program in C, against a real server over TLS.

#include <covey_client.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../daemon/fleet.hpp"

using Catch::Matchers::Contains;
using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

constexpr int kDevices = 2;

/// Two devices whose data the server does not have; it measures on a few examples of its own.
std::string run_file(const TemporaryFolder& folder) {
  std::string table = "a,b,label\n";
  for (int i = 0; i < 40; ++i) table += i % 2 ? "1,0.1,1\n" : "-1,0.1,0\n";
  write_file(folder / "test.csv", table);
  return "[run]\nname = \"host\"\nseed = 3\nnum-rounds = 4\n"
         "[data]\nsource = \"csv\"\npath = \"" +
         folder / "test.csv" +
         "\"\ntest-fraction = 0.9\n"
         "[partition]\nclients = 2\n[model]\npreset = \"logistic\"\n"
         "[client]\nlearning-rate = 0.2\nlocal-epochs = 2\n"
         "[selection]\nfraction-fit = 1.0\nround-deadline-s = 60\nheartbeat-s = 1\n";
}

/// What a device's callbacks were told, and on which threads.
struct Heard {
  std::vector<std::string> phases;
  std::vector<std::uint32_t> rounds;
  std::string log;
  int finished = 0;
  bool ok = false;
  std::thread::id thread;
  bool other_thread = false;

  void here() { other_thread = other_thread || std::this_thread::get_id() != thread; }
};

struct Device {
  explicit Device(const Fleet& fleet, int number) {
    REQUIRE(covey_client_create(&handle) == COVEY_CLIENT_OK);
    set("kit", fleet.folder() / ("kits/device-000" + std::to_string(number)));
    set("server", fleet.address());
    covey_client_on_phase(
        handle,
        [](void* user, const char* phase) {
          static_cast<Heard*>(user)->here();
          static_cast<Heard*>(user)->phases.emplace_back(phase);
        },
        &heard);
    covey_client_on_round(
        handle,
        [](void* user, uint32_t round) {
          static_cast<Heard*>(user)->here();
          static_cast<Heard*>(user)->rounds.push_back(round);
        },
        &heard);
    covey_client_on_log(
        handle,
        [](void* user, int, const char* text) {
          static_cast<Heard*>(user)->here();
          static_cast<Heard*>(user)->log += std::string(text) + "\n";
        },
        &heard);
    covey_client_on_finished(
        handle,
        [](void* user, int ok, const char* reason) {
          static_cast<Heard*>(user)->here();
          static_cast<Heard*>(user)->finished += 1;
          static_cast<Heard*>(user)->ok = ok == 1;
          static_cast<Heard*>(user)->log += std::string(reason) + "\n";
        },
        &heard);
  }
  Device(const Device&) = delete;
  ~Device() { CHECK(covey_client_destroy(handle) == COVEY_CLIENT_OK); }

  void set(const char* name, const std::string& value) {
    const int code = covey_client_set_option(handle, name, value.c_str());
    INFO(name << ": " << covey_client_last_error());
    REQUIRE(code == COVEY_CLIENT_OK);
  }
  void add(int count) {
    for (int i = 0; i < count; ++i) {
      const std::array<float, 2> features = {i % 2 ? 1.0f : -1.0f, 0.1f};
      REQUIRE(covey_client_add_example(handle, features.data(), 2, i % 2) == COVEY_CLIENT_OK);
    }
  }
  /// Steps as a host does, until it is finished or `patience` is over.
  int step_until_finished(std::chrono::seconds patience) {
    heard.thread = std::this_thread::get_id();
    const auto until = std::chrono::steady_clock::now() + patience;
    int code = COVEY_CLIENT_OK;
    while (code == COVEY_CLIENT_OK && std::chrono::steady_clock::now() < until) {
      uint32_t next_ms = 0;
      code = covey_client_step(handle, &next_ms);
      std::this_thread::sleep_for(std::chrono::milliseconds(next_ms));
    }
    return code;
  }
  int run() {
    heard.thread = std::this_thread::get_id();
    return covey_client_run(handle);
  }
  covey_client_status status() {
    covey_client_status status{};
    status.size = sizeof(status);
    REQUIRE(covey_client_get_status(handle, &status) == COVEY_CLIENT_OK);
    return status;
  }

  covey_client* handle = nullptr;
  Heard heard;
};

void check_took_part(Device& device, int code) {
  INFO(device.heard.log);
  CHECK(code == COVEY_CLIENT_FINISHED);
  CHECK(device.heard.rounds == std::vector<std::uint32_t>{1, 2, 3, 4});
  CHECK(device.heard.finished == 1);
  CHECK(device.heard.ok);
  CHECK_FALSE(device.heard.other_thread);
  const auto status = device.status();
  CHECK(status.rounds_accepted == 4);
  CHECK(status.finished == 1);
  CHECK(status.bytes_sent > 1000);
  CHECK(status.bytes_received > 1000);
  CHECK(std::string(status.phase) == "finished");
  CHECK(covey_client_step(device.handle, nullptr) == COVEY_CLIENT_FINISHED);
  CHECK(covey_client_run(device.handle) == COVEY_CLIENT_FINISHED);
}

}  // namespace

TEST_CASE("a device that is stepped and one that runs take part in a run") {
  TemporaryFolder data("capi-data");
  Fleet fleet("capi-fleet", run_file(data), kDevices);
  Process server = fleet.server();
  Device stepped(fleet, 0), running(fleet, 1);
  stepped.set("conditions", "system");
  stepped.add(50);
  running.add(30);
  int code = 0;
  std::thread thread([&] { code = running.run(); });
  check_took_part(stepped, stepped.step_until_finished(60s));
  thread.join();
  check_took_part(running, code);
  check_ended_well(server, "server");
  CHECK(server.json()["rounds"] == 4);
  CHECK(server.json()["accuracy"] == 1.0);
}

TEST_CASE("a device waits for examples, for a charger and for a host that stops it") {
  TemporaryFolder data("capi-wait-data");
  Fleet fleet("capi-wait", run_file(data), kDevices);
  Process server = fleet.server();
  Device device(fleet, 0);
  device.set("require-charging", "true");
  REQUIRE(covey_client_set_condition(device.handle, COVEY_CLIENT_CHARGING, 0) == COVEY_CLIENT_OK);
  device.add(10);
  int code = 0;
  std::thread thread([&] { code = device.run(); });
  const auto phase = [&] { return std::string(device.status().phase); };
  CHECK(eventually([&] { return !phase().empty(); }, 20s));
  std::this_thread::sleep_for(300ms);
  CHECK(fleet.status("pool") == 0);
  CHECK(covey_client_set_option(device.handle, "kit", "x") == COVEY_CLIENT_BUSY);
  CHECK(covey_client_step(device.handle, nullptr) == COVEY_CLIENT_BUSY);
  CHECK(covey_client_destroy(device.handle) == COVEY_CLIENT_BUSY);
  REQUIRE(covey_client_set_condition(device.handle, COVEY_CLIENT_CHARGING, 1) == COVEY_CLIENT_OK);
  CHECK(eventually([&] { return fleet.status("pool") == 1; }, 20s));
  device.add(5);  // while it runs
  CHECK(device.status().num_examples == 15);
  CHECK(covey_client_stop(device.handle) == COVEY_CLIENT_OK);
  thread.join();
  INFO(device.heard.log);
  CHECK(code == COVEY_CLIENT_FINISHED);
  CHECK(device.heard.finished == 1);
  CHECK(device.heard.ok);
  CHECK(server.running());
}

TEST_CASE("a device that is to take part once ends after one counted update") {
  TemporaryFolder data("capi-once-data");
  Fleet fleet("capi-once", run_file(data), kDevices);
  Process server = fleet.server();
  Device once(fleet, 0), other(fleet, 1);
  once.set("once", "true");
  once.add(10);
  other.add(10);
  std::thread thread([&] { other.run(); });
  CHECK(once.run() == COVEY_CLIENT_FINISHED);
  INFO(once.heard.log);
  CHECK(once.heard.rounds == std::vector<std::uint32_t>{1});
  CHECK(once.status().rounds_accepted == 1);
  CHECK(covey_client_stop(other.handle) == COVEY_CLIENT_OK);
  thread.join();
}

TEST_CASE("a stop is heard within a callback, before the start, and where there is no server") {
  TemporaryFolder data("capi-stop-data");
  Fleet fleet("capi-stop", run_file(data), kDevices);
  {
    Process server = fleet.server();  // takes a port, and goes
  }
  Device early(fleet, 0);
  early.add(3);
  CHECK(covey_client_stop(early.handle) == COVEY_CLIENT_OK);
  CHECK(early.run() == COVEY_CLIENT_FINISHED);

  Device offline(fleet, 0);
  offline.add(3);
  std::thread stopper([&] {
    std::this_thread::sleep_for(300ms);
    covey_client_stop(offline.handle);
  });
  CHECK(offline.step_until_finished(10s) == COVEY_CLIENT_FINISHED);
  stopper.join();

  Device within(fleet, 0);
  within.add(3);
  within.heard.thread = std::this_thread::get_id();
  struct Inside {
    covey_client* client;
    int step = 0, destroy = 0;
  } inside{within.handle};
  covey_client_on_phase(
      within.handle,
      [](void* user, const char*) {
        auto& it = *static_cast<Inside*>(user);
        it.step = covey_client_step(it.client, nullptr);
        it.destroy = covey_client_destroy(it.client);
        covey_client_stop(it.client);
      },
      &inside);
  CHECK(covey_client_run(within.handle) == COVEY_CLIENT_FINISHED);
  CHECK(inside.step == COVEY_CLIENT_BUSY);
  CHECK(inside.destroy == COVEY_CLIENT_BUSY);
}

TEST_CASE("a device that the server does not let in is told so, and is told again") {
  TemporaryFolder data("capi-refused-data");
  Fleet fleet("capi-refused", run_file(data), kDevices);
  Process server = fleet.server();
  Process revoke(
      {"provision", "revoke", "--authority", fleet.folder() / "kits/authority", "--server",
       fleet.folder() / "kits/server", fleet.folder() / "kits/device-0001/device.pem"},
      fleet.folder() / "revoke");
  REQUIRE(revoke.wait(20s) == 0);
  Device device(fleet, 1);
  device.add(5);
  CHECK(device.step_until_finished(60s) == COVEY_CLIENT_FAILED);
  CHECK_FALSE(device.heard.ok);
  CHECK(device.status().finished == -1);
  CHECK(covey_client_step(device.handle, nullptr) == COVEY_CLIENT_FAILED);
  CHECK_THAT(std::string(covey_client_last_error()), Contains("revoked"));
}

TEST_CASE("programs in C take part in the example's run") {
  TemporaryFolder folder("capi-example");
  std::string text = read_file(COVEY_SOURCE_DIR "/examples/18_c_host/run.toml");
  const std::string table = "examples/18_c_host/test.csv";
  text.replace(text.find(table), table.size(), COVEY_SOURCE_DIR "/" + table);
  text.replace(text.find("num-rounds = 10"), 15, "num-rounds = 3");
  Fleet fleet("capi-example-fleet", text, 4);
  Process server = fleet.server();
  std::string command;
  for (int i = 0; i < 4; ++i) {
    const std::string name = std::to_string(i);
    command += COVEY_C_HOST " " + fleet.folder() / ("kits/device-000" + name) + " server " +
               fleet.address() + " state " + folder / ("state" + name) + " > " +
               folder / ("out" + name) + " 2>&1 & ";
  }
  REQUIRE(std::system((command + "wait").c_str()) == 0);
  for (int i = 0; i < 4; ++i) {
    const std::string output = read_file(folder / ("out" + std::to_string(i)));
    INFO(output);
    CHECK(count(output, "update counted, round") == 3);
    CHECK(output.find("3 updates counted") != std::string::npos);
    CHECK(
        std::filesystem::exists(folder / ("state" + std::to_string(i) + "/examples/examples.log")));
  }
  check_ended_well(server, "server");
  CHECK(server.json()["accuracy"].get<double>() > 0.6);
}

TEST_CASE("the example is built against the static library, too") {
  TemporaryFolder folder("capi-static");
  const std::string program = folder / "host";
  const std::string command =
      std::string(COVEY_C_COMPILER) +
      " -std=c99 -I" COVEY_SOURCE_DIR "/client/capi/include " COVEY_SOURCE_DIR
      "/examples/18_c_host/host.c -o " +
      program + " -Wl,--gc-sections " COVEY_C_ARCHIVE " " COVEY_C_STATIC_NEEDS " 2> " +
      folder / "errors";
  const int code = std::system(command.c_str());
  INFO(read_file(folder / "errors"));
  REQUIRE(code == 0);
  CHECK(std::system((program + " > /dev/null 2>&1").c_str()) != 0);  // it says how to use it
  CHECK(WEXITSTATUS(std::system((program + " 2> /dev/null").c_str())) == 2);
}
