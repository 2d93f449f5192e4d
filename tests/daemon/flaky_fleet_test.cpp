// Real devices and a real server with a bad network between them: what is learnt does not change,
// and no byte is sent again that had arrived.

#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <sstream>

#include "flaky_proxy.hpp"
#include "fleet.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

constexpr int kDevices = 8;
/// McMahan et al. 2017: 1,663,370 parameters in fp32.
constexpr std::uint64_t kCnnBytes = 4 * 1663370;
/// What the server lets a device send ahead: four chunks of the run file's default.
constexpr std::uint64_t kUploadWindow = 4 * (std::uint64_t{256} << 10);

void append_number(std::string& bytes, std::uint32_t number) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(number >> shift & 0xff);
}

/// `stem`-images-idx3-ubyte and its labels: blurs that differ by label, place and `seed`.
void write_images(const std::string& stem, std::uint32_t images, unsigned seed) {
  std::string pixels, labels;
  append_number(pixels, 0x803);  // the magic number of bytes in three dimensions
  for (const std::uint32_t extent : {images, 28u, 28u}) append_number(pixels, extent);
  append_number(labels, 0x801);
  append_number(labels, images);
  unsigned state = seed * 2654435761u + 1;
  for (std::uint32_t image = 0; image < images; ++image) {
    const unsigned label = (image + seed) % 10;
    labels += static_cast<char>(label);
    for (unsigned i = 0; i < 28 * 28; ++i) {
      state = state * 1664525u + 1013904223u;
      const bool inside = i / 28 / 3 == label;
      pixels += static_cast<char>((inside ? 160 : 0) + (state >> 26));
    }
  }
  write_file(stem + "-images-idx3-ubyte", pixels);
  write_file(stem + "-labels-idx1-ubyte", labels);
}

std::string run_file(const std::string& model, std::uint32_t rounds) {
  return R"(
[run]
name = "flaky"
seed = 5
eval-every = 1000
num-rounds = )" +
         std::to_string(rounds) + "\n[model]\npreset = \"" + model + R"("
[data]
source = "mnist"
[partition]
clients = 8
[client]
learning-rate = 0.05
batch-size = 5
[selection]
fraction-fit = 1.0
quorum = 1.0
round-deadline-s = 600
heartbeat-s = 1
[server]
model-history = 0
)";
}

/// Eight covey-clients with ten images each, which may reach the server through a proxy.
class ImageFleet : public Fleet {
 public:
  ImageFleet(const std::string& name, const std::string& run_file)
      : Fleet(name, run_file, kDevices) {
    std::filesystem::create_directory(folder() / "data");
    write_images(folder() / "data/t10k", 10, 1000);
    for (int i = 0; i < kDevices; ++i) {
      const std::string data = folder() / ("data-" + std::to_string(i));
      std::filesystem::create_directory(data);
      write_images(data + "/train", 10, static_cast<unsigned>(i));
    }
  }

  Process start_server() { return server({"--data", folder() / "data"}); }
  std::vector<Process> start_devices(const std::string& address, const std::string& life) {
    std::vector<Process> devices;
    for (int i = 0; i < kDevices; ++i) {
      const std::string number = std::to_string(i);
      devices.emplace_back(
          COVEY_CLIENT_PROGRAM,
          std::vector<std::string>{"--kit", folder() / ("kits/device-000" + number), "--data",
                                   "idx:" + (folder() / ("data-" + number)) + ",classes=10",
                                   "--server", address, "--state", folder() / (life + "-" + number),
                                   "--answer-timeout", "3", "--json"},
          folder() / (life + "-log-" + number));
    }
    return devices;
  }
  /// Sets aside what the server has, so that it begins anew.
  void forget_run(const std::string& name) {
    std::filesystem::rename(folder() / "state", folder() / name);
  }

  struct Ended {
    std::string model;
    std::uint64_t download_bytes = 0, upload_bytes = 0, below_resume = 0, resumed = 0;
    /// Of updates, which the server had acknowledged and then had to be sent once more.
    std::uint64_t lost_by_server = 0;
  };
  /// Every round had all eight updates, and nobody sent what the other end held.
  Ended check_ended(Process& server, std::vector<Process>& devices, std::uint32_t rounds) {
    check_ended_well(server, "server");
    Ended ended;
    for (Process& device : devices) {
      check_ended_well(device, "device");
      const auto json = device.json();
      CHECK(json["updates_accepted"] == rounds);
      CHECK(json["download_bytes_below_resume"] == 0);
      CHECK(json["upload_bytes_below_resume"] == 0);
      ended.download_bytes += json["download_bytes"].get<std::uint64_t>();
      ended.upload_bytes += json["upload_bytes"].get<std::uint64_t>();
      ended.below_resume += json["download_bytes_below_resume"].get<std::uint64_t>() +
                            json["upload_bytes_below_resume"].get<std::uint64_t>();
      ended.lost_by_server += json["upload_bytes_lost_by_server"].get<std::uint64_t>();
      ended.resumed += json["downloads_resumed"].get<std::uint64_t>() +
                       json["uploads_resumed"].get<std::uint64_t>();
    }
    CHECK(server.json()["rounds"] == rounds);
    std::istringstream lines(read_file(folder() / "state/metrics.jsonl"));
    std::uint32_t committed = 0;
    for (std::string line; std::getline(lines, line); ++committed) {
      CHECK(nlohmann::json::parse(line)["accepted"] == kDevices);
    }
    CHECK(committed == rounds);
    ended.model = server.json()["model_sha256"];
    return ended;
  }
};

struct Course {
  std::uint32_t rounds = 0;
  Misfortune misfortune;
  /// When the server is killed, and when it is stopped: once so many bytes went one way.
  struct Moment {
    std::uint64_t ProxyCounts::*bytes = nullptr;
    std::uint64_t so_many = 0;
  };
  Moment kill_server, stop_server;
};

void tell(const Course& course, const ProxyCounts& counts, const ImageFleet::Ended& ended) {
  const double needed = 2.0 * kDevices * course.rounds * static_cast<double>(kCnnBytes);
  std::ostringstream line;
  line << "{\"seed\":" << course.misfortune.seed << ",\"connections\":" << counts.connections
       << ",\"cuts\":" << counts.cuts << ",\"stalls\":" << counts.stalls
       << ",\"corruptions\":" << counts.corruptions << ",\"resumed\":" << ended.resumed
       << ",\"bytes_needed\":" << static_cast<std::uint64_t>(needed)
       << ",\"download_bytes\":" << ended.download_bytes
       << ",\"upload_bytes\":" << ended.upload_bytes
       << ",\"bytes_below_resume\":" << ended.below_resume
       << ",\"upload_bytes_lost_by_server\":" << ended.lost_by_server
       << ",\"bytes_to_server\":" << counts.bytes_to_server
       << ",\"bytes_to_devices\":" << counts.bytes_to_devices << ",\"overhead\":"
       << static_cast<double>(counts.bytes_to_server + counts.bytes_to_devices) / needed - 1 << "}";
  WARN(line.str());
}

/// The same run twice, over a good network and over a bad one whose server dies and is restarted.
void check_bad_network_changes_nothing(const std::string& name, const Course& course) {
  ImageFleet fleet(name, run_file("cnn", course.rounds));
  std::string model;
  {
    Process server = fleet.start_server();
    auto devices = fleet.start_devices(fleet.address(), "calm");
    model = fleet.check_ended(server, devices, course.rounds).model;
  }
  fleet.forget_run("state-calm");

  Process server = fleet.start_server();
  FlakyProxy proxy(fleet.address(), course.misfortune);
  auto devices = fleet.start_devices(proxy.address(), "flaky");
  const auto reaches = [&](Course::Moment moment) {
    const auto reached = [&] { return proxy.counts().*moment.bytes >= moment.so_many; };
    return eventually([&] { return reached() || !server.running(); }, 240s) && server.running();
  };
  REQUIRE(reaches(course.kill_server));
  server.kill();
  server = fleet.start_server();
  REQUIRE(reaches(course.stop_server));
  server.signal(SIGTERM);
  CHECK(server.wait(30s) == 0);
  server = fleet.start_server();

  const auto ended = fleet.check_ended(server, devices, course.rounds);
  CHECK(ended.model == model);
  const auto counts = proxy.counts();
  tell(course, counts, ended);
  // What was on its way when a connection broke is lost: a small part, else there was no going on.
  const std::uint64_t needed = kDevices * course.rounds * kCnnBytes;
  CHECK(counts.bytes_to_devices < 2 * needed);
  CHECK(counts.bytes_to_server < 2 * needed);
  // What the server had acknowledged and not yet written each time it ended.
  CHECK(ended.lost_by_server <= 2 * kDevices * kUploadWindow);
  CHECK(counts.cuts > 10 * course.rounds);
  CHECK(counts.corruptions > 0);
  CHECK(ended.resumed > 10 * course.rounds);
}

}  // namespace

TEST_CASE("cut, silent and corrupted links and a killed server change nothing of what is learnt") {
  Course course;
  course.rounds = 1;
  course.misfortune = {.seed = 11,
                       .cut_after_min = 500'000,
                       .cut_after_max = 2'000'000,
                       .stall_share = 0.05,
                       .corrupt_share = 0.1};
  course.kill_server = {&ProxyCounts::bytes_to_devices, kDevices * kCnnBytes / 3};
  course.stop_server = {&ProxyCounts::bytes_to_server, kDevices * kCnnBytes / 2};
  check_bad_network_changes_nothing("flaky", course);
}

TEST_CASE("three rounds over links that are cut every few hundred kilobytes", "[.][long]") {
  Course course;
  course.rounds = 3;
  course.misfortune = {.seed = 12,
                       .cut_after_min = 100'000,
                       .cut_after_max = 500'000,
                       .stall_share = 0.03,
                       .corrupt_share = 0.1};
  course.kill_server = {&ProxyCounts::bytes_to_server, kDevices * kCnnBytes / 2};
  course.stop_server = {&ProxyCounts::bytes_to_devices, kDevices * kCnnBytes * 3 / 2};
  check_bad_network_changes_nothing("flaky-long", course);
}

TEST_CASE("a server that lives keeps all that it acknowledged, however often links break") {
  ImageFleet fleet("cuts", run_file("2nn", 1));  // 0.8 MB each way
  Process server = fleet.start_server();
  FlakyProxy proxy(fleet.address(),
                   {.seed = 13, .cut_after_min = 100'000, .cut_after_max = 400'000});
  auto devices = fleet.start_devices(proxy.address(), "cuts");
  const auto ended = fleet.check_ended(server, devices, 1);
  CHECK(ended.lost_by_server == 0);
  CHECK(ended.resumed > kDevices);
  CHECK(proxy.counts().cuts > kDevices);
}

TEST_CASE("a slow link is waited for: nobody hangs up on bytes that come") {
  ImageFleet fleet("slow", run_file("2nn", 1));  // 0.8 MB each way, four seconds
  Process server = fleet.start_server();
  FlakyProxy proxy(fleet.address(), {.bytes_per_second = 200'000});
  auto devices = fleet.start_devices(proxy.address(), "slow");
  CHECK(fleet.check_ended(server, devices, 1).lost_by_server == 0);
  CHECK(proxy.counts().connections == kDevices);
}
