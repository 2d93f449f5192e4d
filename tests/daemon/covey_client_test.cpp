// The program of a device: options, configuration file, a run over TLS, and what a service manager
// sees.

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstring>
#include <thread>

#include "client/daemon/covey_client/option_table.hpp"
#include "client/daemon/covey_client/options.hpp"
#include "client/daemon/covey_client/self_test_checks.hpp"
#include "fleet.hpp"

using namespace covey;
using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

Result<client::ProgramOptions> read(std::vector<const char*> arguments) {
  return client::read_options(arguments, "");
}

std::string error_of(std::vector<const char*> arguments) {
  const auto options = read(std::move(arguments));
  return options.ok() ? "" : options.error().message;
}

/// Two examples of 60 numbers, in two of ten classes, as the run below has them.
std::string table() {
  std::string text = "label";
  for (int i = 0; i < 60; ++i) text += ",x" + std::to_string(i);
  for (int row = 0; row < 40; ++row) {
    text += "\n" + std::to_string(row % 10);
    for (int i = 0; i < 60; ++i) text += "," + std::to_string((row * 7 + i * 3) % 11 - 5);
  }
  return text + "\n";
}

constexpr const char* kRunFile = R"(
[run]
name = "devices"
seed = 5
num-rounds = 3
[data]
source = "synthetic"
[partition]
scheme = "natural"
clients = 2
[client]
learning-rate = 0.01
local-epochs = 2
[selection]
fraction-fit = 1.0
round-deadline-s = 60
heartbeat-s = 1
)";

/// A fleet of two whose devices are covey-client, each with a table of its own.
struct Devices : Fleet {
  explicit Devices(const std::string& name, const std::string& run_file = kRunFile)
      : Fleet(name, run_file, 2) {
    write_file(folder() / "data.csv", table());
  }
  Process device(int number, std::vector<std::string> more = {},
                 const std::vector<std::string>& environment = {}) {
    const std::string name = "device-000" + std::to_string(number);
    std::vector<std::string> arguments = {"--kit",    folder() / "kits/" + name,
                                          "--data",   "csv:" + (folder() / "data.csv"),
                                          "--server", address(),
                                          "--state",  folder() / "state-" + name,
                                          "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Process(COVEY_CLIENT_PROGRAM, arguments, folder() / name, environment);
  }
};

/// A service manager's end of sd_notify.
class Manager {
 public:
  explicit Manager(const std::string& path) : path_(path), socket_(socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    REQUIRE(bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  ~Manager() { close(socket_); }

  /// Everything that was said so far, a line each.
  const std::string& heard() {
    char text[4096];
    ssize_t length = 0;
    while ((length = recv(socket_, text, sizeof text, MSG_DONTWAIT)) > 0) {
      heard_.append(text, static_cast<std::size_t>(length)).append("\n");
    }
    return heard_;
  }
  bool hears(const std::string& what) {
    return eventually([&] { return heard().find(what) != std::string::npos; }, 30s);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int socket_;
  std::string heard_;
};

}  // namespace

TEST_CASE("every option of covey-client is read from the command line") {
  const auto options = read({"--kit",
                             "k",
                             "--data=csv:d",
                             "--state",
                             "none",
                             "--server",
                             "h:1",
                             "--device-class",
                             "phone",
                             "--max-memory",
                             "24M",
                             "--max-state=1GiB",
                             "--nice",
                             "5",
                             "--ionice",
                             "none",
                             "--require-charging",
                             "--min-battery",
                             "0.5",
                             "--max-temperature",
                             "60",
                             "--max-load",
                             "0.5",
                             "--hours",
                             "22:00-06:30",
                             "--min-free-memory",
                             "64M",
                             "--require-secure-aggregation",
                             "malicious-server",
                             "--min-sum",
                             "50",
                             "--min-corruption",
                             "0.1",
                             "--once",
                             "--verbose"});
  REQUIRE(options.ok());
  CHECK(options->kit == "k");
  CHECK(options->data == "csv:d");
  CHECK(options->server == "h:1");
  CHECK(options->priority.nice == 5);
  CHECK(options->priority.disk == client::DiskPriority::kNone);
  CHECK(options->once);
  CHECK(options->verbose);
  const client::DeviceOptions& device = options->device;
  CHECK(device.state_directory.empty());
  CHECK(device.device_class == "phone");
  CHECK(device.max_memory_bytes == 24u << 20);
  CHECK(device.max_state_bytes == 1u << 30);
  CHECK(device.rules.require_charging);
  CHECK_FALSE(device.rules.require_unmetered);
  CHECK(device.rules.min_battery == 0.5);
  CHECK(device.rules.max_temperature_c == 60);
  CHECK(device.rules.max_load == 0.5);
  CHECK(device.rules.hours == client::HoursOfDay{22 * 60, 6 * 60 + 30});
  CHECK(device.rules.min_free_memory_bytes == 64u << 20);
  CHECK(device.required_privacy.threat_model == ThreatModel::kMaliciousServer);
  CHECK(device.required_privacy.min_devices == 50);
  CHECK(device.required_privacy.corruption == 0.1);
}

TEST_CASE("a wrong option of covey-client is named with what would be right") {
  CHECK(error_of({"--kitt", "k"}).find("--kitt is not an option") == 0);
  CHECK(error_of({"kit"}).find("\"kit\" is not an option") == 0);
  CHECK(error_of({"--kit"}).find("--kit needs a value: DIR") == 0);
  CHECK(error_of({"--once=yes"}).find("--once takes no value") == 0);
  CHECK(error_of({"--nice", "20"}).find("--nice 20: must be a number from 0 to 19") == 0);
  CHECK(error_of({"--min-battery", "nan"}).find("must be a number from 0 to 1") !=
        std::string::npos);
  CHECK(error_of({"--max-memory", "24Q"}).find("must be a size in bytes") != std::string::npos);
  CHECK(error_of({"--hours", "25:00-26:00"}).find("--hours 25:00-26:00: ") == 0);
  CHECK(error_of({"--data", "csv:d"}).find("say where this device's kit is") == 0);
  CHECK(error_of({"--kit", "k"}).find("say what this device is to train on") == 0);
  CHECK(error_of({"--kit", "k", "--data", "csv:d", "--once", "--keep-running"}).find("exclude") !=
        std::string::npos);
}

TEST_CASE("a size is a number of bytes with a power of 1024") {
  CHECK(*client::parse_size("65536") == 65536);
  CHECK(*client::parse_size("512K") == 512u << 10);
  CHECK(*client::parse_size("3GiB") == 3ull << 30);
  for (const char* wrong : {"", "M", "-1", "1.5M", "1MB", "99999999999G", "1Mi"}) {
    INFO(wrong);
    CHECK_FALSE(client::parse_size(wrong).ok());
  }
}

TEST_CASE("the configuration file knows the options' names, and the command line overrules it") {
  const TemporaryFolder folder("client-config");
  const std::string file = folder / "client.toml";
  write_file(file,
             "kit = \"from-file\"\ndata = \"csv:file\"\nnice = 3\nmin-battery = 0.25\n"
             "require-unmetered = true\nmax-memory = \"32M\"\nmax-state = 1048576\n");
  const auto options = read({"--nice", "4", "--config", file.c_str()});
  REQUIRE(options.ok());
  CHECK(options->config == file);
  CHECK(options->kit == "from-file");
  CHECK(options->priority.nice == 4);
  CHECK(options->device.rules.min_battery == 0.25);
  CHECK(options->device.rules.require_unmetered);
  CHECK(options->device.max_memory_bytes == 32u << 20);
  CHECK(options->device.max_state_bytes == 1u << 20);
}

TEST_CASE("an error in the configuration file names file, line and key") {
  const TemporaryFolder folder("client-config-errors");
  const std::string file = folder / "client.toml";
  const auto error = [&](const std::string& text) {
    write_file(file, text);
    return error_of({"--config", file.c_str()});
  };
  CHECK(error("\nkitt = \"k\"\n") == file + ":2: \"kitt\" is not a key of this file");
  CHECK(error("config = \"other\"\n") == file + ":1: \"config\" is not a key of this file");
  CHECK(error("self-test = true\n") == file + ":1: \"self-test\" is not a key of this file");
  CHECK(error("nice = \"a lot\"\n").find(file + ":1: \"nice\" must be a number from 0 to 19") == 0);
  CHECK(error("once = 1\n") == file + ":1: \"once\" must be true or false");
  CHECK(error("kit = [\"k\"]\n") == file + ":1: a value is a \"text\", a number, true or false");
  CHECK(error("kit = true\n") == file + ":1: \"kit\" must be one value: DIR");
  CHECK(error("kit = \n").find(file + ":1: ") == 0);
  CHECK(error_of({"--config", "/nonexistent/client.toml"}).find("/nonexistent/client.toml: ") == 0);
}

TEST_CASE("the manual page and the configuration file's example know every option") {
  const std::string page = read_file(COVEY_SOURCE_DIR "/packaging/client/covey-client.1");
  for (const std::string_view option : client::option_names()) {
    std::string name;
    for (const char c : option) name += c == '-' ? "\\-" : std::string(1, c);
    INFO(option);
    CHECK(page.find("\\-\\-" + name) != std::string::npos);
    CHECK(client::help_text().find("--" + std::string(option)) != std::string::npos);
  }
  const TemporaryFolder folder("client-example");
  const std::string file = folder / "client.toml";
  std::string text = read_file(COVEY_SOURCE_DIR "/packaging/client/client.toml");
  for (std::size_t at = 0; (at = text.find("\n#", at)) != std::string::npos; ++at) {
    if (text[at + 2] != ' ') text.erase(at + 1, 1);  // what is to be uncommented
  }
  write_file(file, text);
  CHECK(error_of({"--config", file.c_str()}) == "");
}

TEST_CASE("devices with tables of their own take part over TLS until the run is over") {
  Devices fleet("client-program");
  Process server = fleet.server();
  std::vector<Process> devices;
  for (int i = 0; i < 2; ++i) devices.push_back(fleet.device(i));
  check_ended_well(server, "server");
  for (auto& device : devices) {
    check_ended_well(device, "device");
    INFO(device.standard_error());
    CHECK(device.json()["finished_ok"] == true);
    CHECK(device.json()["updates_accepted"] == 3);
  }
}

TEST_CASE("a device that is to take part once ends after one update") {
  Devices fleet("client-once");
  Process server = fleet.server();
  Process other = fleet.device(0);
  Process device = fleet.device(1, {"--once"});
  CHECK(device.wait(30s) == 0);
  INFO(device.standard_error());
  CHECK(device.json()["updates_accepted"] == 1);
  CHECK(server.running());
}

TEST_CASE("SIGTERM ends a training device within two seconds, politely") {
  std::string run_file = kRunFile;
  run_file.replace(run_file.find("local-epochs = 2"), 16, "local-epochs = 2000000");
  Devices fleet("client-sigterm", run_file);
  Process server = fleet.server();
  Process other = fleet.device(0);
  Process device = fleet.device(1, {"--verbose"});
  REQUIRE(eventually([&] { return fleet.status("pool") == 0; }, 30s));
  std::this_thread::sleep_for(300ms);  // in the midst of it
  const auto began = std::chrono::steady_clock::now();
  device.signal(SIGTERM);
  CHECK(device.wait(10s) == 0);
  CHECK(std::chrono::steady_clock::now() - began < 3s);
  CHECK(device.standard_error().find("stopping") != std::string::npos);
}

TEST_CASE(
    "a service manager hears when a device is ready, what it does, that it lives, and its end") {
  Devices fleet("client-notify");
  Manager manager(fleet.folder() / "notify");
  Process server = fleet.server();
  Process device = fleet.device(0, {}, {"NOTIFY_SOCKET=" + manager.path(), "WATCHDOG_USEC=200000"});
  CHECK(manager.hears("READY=1"));
  CHECK(manager.hears("STATUS=waiting"));
  CHECK(eventually([&] { return count(manager.heard(), "WATCHDOG=1") >= 3; }, 30s));
  device.signal(SIGTERM);
  CHECK(device.wait(10s) == 0);
  CHECK(manager.hears("STOPPING=1"));
}

TEST_CASE("a watchdog meant for another process is not fed") {
  Devices fleet("client-watchdog");
  Manager manager(fleet.folder() / "notify");
  Process server = fleet.server();
  Process device = fleet.device(
      0, {}, {"NOTIFY_SOCKET=" + manager.path(), "WATCHDOG_USEC=20000", "WATCHDOG_PID=1"});
  CHECK(manager.hears("STATUS=waiting"));
  std::this_thread::sleep_for(200ms);
  CHECK(count(manager.heard(), "WATCHDOG=1") == 0);
}

TEST_CASE("lines for the journal have a priority and no time, others have a time") {
  Devices fleet("client-journal");
  Process server = fleet.server();
  Process plain = fleet.device(0, {"--once"});
  REQUIRE(eventually([&] { return !plain.standard_error().empty(); }, 30s));
  CHECK(plain.standard_error().substr(0, 2) == "20");
  CHECK(plain.standard_error().find("<6>") == std::string::npos);
  // The file that the process writes to is what the variable names.
  const std::string log = fleet.folder() / "device-0001.err";
  write_file(log, "");
  struct stat status {};
  REQUIRE(stat(log.c_str(), &status) == 0);
  Process journal = fleet.device(
      1, {},
      {"JOURNAL_STREAM=" + std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino)});
  REQUIRE(eventually([&] { return !journal.standard_error().empty(); }, 30s));
  CHECK(journal.standard_error().substr(0, 3) == "<6>");
}

TEST_CASE("a kit, data or a configuration that is of no use ends with exit code 2 and a sentence") {
  Devices fleet("client-usage");
  Process no_kit(COVEY_CLIENT_PROGRAM,
                 {"--kit", "/nonexistent", "--state", "none", "--data",
                  "csv:" + (fleet.folder() / "data.csv"), "--json"},
                 fleet.folder() / "no-kit");
  CHECK(no_kit.wait(10s) == 2);
  CHECK(no_kit.json()["error"].get<std::string>().find("/nonexistent/client.toml") == 0);
  Process no_option(COVEY_CLIENT_PROGRAM, {"--frobnicate"}, fleet.folder() / "no-option");
  CHECK(no_option.wait(10s) == 2);
  CHECK(no_option.standard_error().find("--frobnicate is not an option") != std::string::npos);
  Process no_data = fleet.device(0, {"--data", "csv:/nonexistent.csv"});
  CHECK(no_data.wait(10s) == 2);
  CHECK(no_data.standard_error().find("/nonexistent.csv") != std::string::npos);
}

TEST_CASE("the self-test passes on a working installation and names what fails in another") {
  Devices fleet("client-self-test");
  Process good = fleet.device(0, {"--self-test"});
  CHECK(good.wait(50s) == 0);
  INFO(good.standard_output());
  CHECK(good.json()["ok"] == true);
  CHECK(good.standard_output().find("FAILED") == std::string::npos);
  CHECK(good.standard_output().find("40 examples of 60 numbers") != std::string::npos);

  Process bad(COVEY_CLIENT_PROGRAM,
              {"--self-test", "--kit", "/nonexistent", "--data", "csv:/nonexistent.csv", "--state",
               "/proc/nonexistent", "--max-memory", "1M", "--json"},
              fleet.folder() / "bad");
  CHECK(bad.wait(50s) == 1);
  const std::string lines = bad.standard_output();
  CHECK(lines.find("FAILED  kit: /nonexistent/client.toml") != std::string::npos);
  CHECK(lines.find("FAILED  data: ") != std::string::npos);
  CHECK(lines.find("FAILED  state: ") != std::string::npos);
  CHECK(lines.find("skipped training cnn in fp32: takes ") != std::string::npos);
  CHECK(bad.json()["ok"] == false);
}

TEST_CASE("the self-test notices arithmetic that is wrong") {
  for (client::TrainingCase one : client::training_cases()) {
    if (one.preset != "2nn") continue;
    INFO(one.preset << " in " << one.precision);
    CHECK(client::check_training(one).ok());
    one.loss *= 1.05;
    if (!one.update_digest.empty()) one.update_digest = "00";
    CHECK_FALSE(client::check_training(one).ok());
  }
}
