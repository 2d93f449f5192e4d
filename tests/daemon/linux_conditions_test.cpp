#include "client/daemon/linux_conditions.hpp"

#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>

#include "client/daemon/dbus_property.hpp"

using namespace covey;
using namespace covey::client;

namespace {

using namespace std::chrono_literals;

class Tree {
 public:
  Tree() {
    std::string name =
        (std::filesystem::temp_directory_path() / "covey-conditions-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;
  ~Tree() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }

  void write(const std::string& path, std::string_view text) const {
    const auto file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string path(const std::string& name) const { return (root_ / name).string(); }
  LinuxConditions::Options options() const {
    LinuxConditions::Options options;
    options.ask_network = false;
    options.sys = path("sys");
    options.proc = path("proc");
    options.bus_socket = path("bus");
    return options;
  }
  DeviceReadings read() const { return LinuxConditions(options()).read(); }

  void battery(const std::string& name, std::string_view status, std::string_view percent) const {
    const std::string supply = "sys/class/power_supply/" + name;
    write(supply + "/type", "Battery\n");
    write(supply + "/status", std::string(status) + "\n");
    write(supply + "/capacity", std::string(percent) + "\n");
  }
  void source(const std::string& name, std::string_view type, std::string_view online) const {
    write("sys/class/power_supply/" + name + "/type", std::string(type) + "\n");
    write("sys/class/power_supply/" + name + "/online", std::string(online) + "\n");
  }
  void zone(int number, std::string_view millidegrees) const {
    write("sys/class/thermal/thermal_zone" + std::to_string(number) + "/temp", millidegrees);
  }

 private:
  std::filesystem::path root_;
};

/// A bus that answers one question: `answer` is sent after the authentication and the two calls.
class FakeBus {
 public:
  struct Script {
    std::string after_authentication = "OK 0123456789abcdef0123456789abcdef\r\n";
    std::string answer = {};
    std::size_t piece = 4096;  ///< bytes that are sent together
  };
  FakeBus(const std::string& path, Script script) {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listener_, 4) == 0);
    thread_ = std::thread([this, script = std::move(script)] { serve(script); });
  }
  ~FakeBus() {
    ::shutdown(listener_, SHUT_RDWR);
    ::close(listener_);
    thread_.join();
  }
  std::string heard;  ///< read it once the answer is there

 private:
  void serve(const Script& script) {
    for (;;) {
      const int peer = ::accept(listener_, nullptr, nullptr);
      if (peer < 0) return;
      heard.clear();
      hear(peer, "\r\n");
      say(peer, script.after_authentication, script.piece);
      if (!script.answer.empty()) {
        hear(peer, "Metered");
        say(peer, script.answer, script.piece);
      }
      std::array<char, 64> rest;
      while (::recv(peer, rest.data(), rest.size(), 0) > 0) {
      }
      ::close(peer);
    }
  }
  void hear(int peer, std::string_view last) {
    std::array<char, 512> part;
    while (heard.find(last) == std::string::npos) {
      const ssize_t got = ::recv(peer, part.data(), part.size(), 0);
      if (got <= 0) return;
      heard.append(part.data(), static_cast<std::size_t>(got));
    }
  }
  static void say(int peer, std::string_view bytes, std::size_t piece) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(peer, bytes.data(), std::min(piece, bytes.size()), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }

  int listener_ = -1;
  std::thread thread_;
};

std::string u32(std::uint32_t value) {
  std::string bytes;
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>((value >> shift) & 0xff);
  return bytes;
}

/// A message with REPLY_SERIAL and SENDER, as a bus sends it (D-Bus specification, "Message
/// format").
std::string message(char type, std::uint32_t serial_answered, const std::string& body) {
  std::string fields;
  fields += std::string("\5\1u\0", 4) + u32(serial_answered);
  fields += std::string("\7\1s\0", 4) + u32(4) + std::string(":1.7\0", 5);
  std::string bytes{'l', type, '\1', '\1'};
  bytes += u32(static_cast<std::uint32_t>(body.size())) + u32(99) +
           u32(static_cast<std::uint32_t>(fields.size())) + fields;
  while (bytes.size() % 8 != 0) bytes += '\0';
  return bytes + body;
}

constexpr char kReturn = 2, kError = 3, kSignal = 4;

std::string metered_answer(std::uint32_t value) {
  const std::string body = std::string("\1u\0\0", 4) + u32(value);
  // What a bus says first: the answer to Hello, and a signal.
  return message(kReturn, 1, u32(5) + std::string(":1.42\0", 6)) +
         message(kSignal, 0, u32(5) + std::string(":1.42\0", 6)) + message(kReturn, 2, body);
}

constexpr auto kPatience = 5000ms;
const DbusProperty kMetered{"org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager",
                            "org.freedesktop.NetworkManager", "Metered"};

/// The reading once the answer of the bus is in it.
std::optional<bool> metered_of(LinuxConditions& conditions) {
  for (int i = 0; i < 1000; ++i) {
    if (const auto metered = conditions.read().metered) return metered;
    std::this_thread::sleep_for(5ms);
  }
  return std::nullopt;
}

}  // namespace

TEST_CASE("a machine without a battery is charging", "[conditions]") {
  const Tree tree;
  CHECK(tree.read().charging == true);
  CHECK_FALSE(tree.read().battery.has_value());
  tree.source("AC", "Mains", "0");  // as some desktops say
  CHECK(tree.read().charging == true);
}

TEST_CASE("a battery charges when mains or USB is online", "[conditions]") {
  const Tree tree;
  tree.battery("BAT0", "Discharging", "57");
  CHECK(tree.read().charging == false);
  CHECK(tree.read().battery == Approx(0.57));
  tree.source("usb", "USB", "1");
  CHECK(tree.read().charging == true);
  tree.source("usb", "USB", "0");
  tree.source("AC", "Mains", "0");
  CHECK(tree.read().charging == false);
  tree.source("AC", "Mains", "1");
  CHECK(tree.read().charging == true);
}

TEST_CASE("without a readable source the battery's own status says whether it charges",
          "[conditions]") {
  const Tree tree;
  tree.battery("BAT0", "Charging", "57");
  CHECK(tree.read().charging == true);
  tree.battery("BAT0", "Full", "100");
  CHECK(tree.read().charging == true);
  tree.battery("BAT0", "Unknown", "57");
  CHECK_FALSE(tree.read().charging.has_value());
}

TEST_CASE("several batteries count by what they hold", "[conditions]") {
  const Tree tree;
  tree.battery("BAT0", "Discharging", "100");
  tree.battery("BAT1", "Unknown", "20");
  tree.write("sys/class/power_supply/BAT0/energy_full", "30000000\n");
  tree.write("sys/class/power_supply/BAT1/energy_full", "10000000\n");
  CHECK(tree.read().battery == Approx((30 * 1.0 + 10 * 0.2) / 40));
}

TEST_CASE("batteries of a mouse, absent ones and nonsense do not count", "[conditions]") {
  const Tree tree;
  tree.battery("hidpp_battery_0", "Discharging", "10");
  tree.write("sys/class/power_supply/hidpp_battery_0/scope", "Device\n");
  tree.battery("BAT1", "Unknown", "0");
  tree.write("sys/class/power_supply/BAT1/present", "0\n");
  CHECK(tree.read().charging == true);
  CHECK_FALSE(tree.read().battery.has_value());
  tree.battery("BAT0", "Discharging", "250");
  CHECK(tree.read().charging == false);
  CHECK_FALSE(tree.read().battery.has_value());
}

TEST_CASE("the hottest thermal zone that makes sense is the device's temperature", "[conditions]") {
  const Tree tree;
  CHECK_FALSE(tree.read().temperature_c.has_value());
  tree.zone(0, "0\n");
  tree.zone(1, "-274000\n");
  tree.zone(2, "255000\n");
  tree.zone(3, "hot\n");
  tree.zone(4, "");
  CHECK_FALSE(tree.read().temperature_c.has_value());
  tree.zone(5, "41250\n");
  tree.zone(6, "71200\n");
  tree.zone(7, "35000\n");
  CHECK(tree.read().temperature_c == Approx(71.2));
}

TEST_CASE("memory that is available or this process's own counts as free", "[conditions]") {
  const Tree tree;
  CHECK_FALSE(tree.read().free_memory_bytes.has_value());
  tree.write("proc/meminfo",
             "MemTotal:        1000 kB\nMemFree:          10 kB\nMemAvailable:     300 kB\n");
  CHECK(tree.read().free_memory_bytes == 300u * 1024);
  tree.write("proc/self/status", "Name:\tcovey\nVmRSS:\t      90 kB\nRssAnon:\t      50 kB\n");
  CHECK(tree.read().free_memory_bytes == 350u * 1024);
  tree.write("proc/meminfo", "MemAvailable: lots\n");
  CHECK_FALSE(tree.read().free_memory_bytes.has_value());
}

TEST_CASE("the disk that counts is the state directory's", "[conditions]") {
  const Tree tree;
  CHECK_FALSE(tree.read().free_disk_bytes.has_value());
  auto options = tree.options();
  options.state_directory = tree.path("missing");
  CHECK_FALSE(LinuxConditions(options).read().free_disk_bytes.has_value());
  tree.write("state/file", "x");
  options.state_directory = tree.path("state");
  const auto free = LinuxConditions(options).read().free_disk_bytes;
  REQUIRE(free.has_value());
  struct statvfs system {};
  REQUIRE(::statvfs(options.state_directory.c_str(), &system) == 0);
  CHECK(*free <= std::uint64_t{system.f_blocks} * system.f_frsize);
}

TEST_CASE("the load is others' and by core", "[conditions]") {
  const Tree tree;
  CHECK_FALSE(tree.read().load.has_value());
  const double cores = static_cast<double>(::sysconf(_SC_NPROCESSORS_ONLN));
  tree.write("proc/loadavg", "3.50 1.00 0.50 2/300 12345\n");
  LinuxConditions conditions(tree.options());
  // Nothing is known yet of what this process did in the last minute.
  CHECK(conditions.read().load == Approx(3.5 / cores));
  // While this thread computes all the time, the share of it that is our own grows.
  const auto until = std::chrono::steady_clock::now() + 200ms;
  volatile double sink = 0;
  while (std::chrono::steady_clock::now() < until) sink = sink + 1;
  const auto load = conditions.read().load;
  REQUIRE(load.has_value());
  CHECK(*load < 3.5 / cores);
  // 0.2 s are 1 - exp(-0.2/60) = 0.33% of the average; a busy machine gives us less of the core.
  CHECK(*load > (3.5 - 0.1) / cores);
  tree.write("proc/loadavg", "0.00 1.00 0.50 2/300 12345\n");
  CHECK(conditions.read().load == 0.0);
}

TEST_CASE("the time of day is local", "[conditions]") {
  const Tree tree;
  const auto minute = tree.read().minute_of_day;
  REQUIRE(minute.has_value());
  CHECK(*minute < 24 * 60);
}

TEST_CASE("NetworkManager says whether the network is metered", "[conditions]") {
  const auto [value, metered] =
      GENERATE(table<std::uint32_t, bool>({{1, true}, {2, false}, {3, true}, {4, false}}));
  const Tree tree;
  const FakeBus bus(tree.path("bus"), {.answer = metered_answer(value)});
  auto options = tree.options();
  options.ask_network = true;
  options.bus_patience = kPatience;
  LinuxConditions conditions(options);
  CHECK(metered_of(conditions) == metered);
}

TEST_CASE("without a bus nothing is known of the network", "[conditions]") {
  const Tree tree;
  auto options = tree.options();
  options.ask_network = true;
  LinuxConditions conditions(options);
  CHECK_FALSE(conditions.read().metered.has_value());
  CHECK_FALSE(conditions.read().metered.has_value());
}

TEST_CASE("a silent bus does not hold up a reading", "[conditions]") {
  const Tree tree;
  const FakeBus bus(tree.path("bus"), {.after_authentication = "", .answer = ""});
  auto options = tree.options();
  options.ask_network = true;
  options.bus_patience = 300ms;
  const auto began = std::chrono::steady_clock::now();
  {
    LinuxConditions conditions(options);
    for (int i = 0; i < 20; ++i) CHECK_FALSE(conditions.read().metered.has_value());
    CHECK(std::chrono::steady_clock::now() - began < 250ms);
  }
  CHECK(std::chrono::steady_clock::now() - began >= 290ms);  // the question ended by itself
}

TEST_CASE("a property is asked for as the D-Bus specification says", "[conditions]") {
  const Tree tree;
  FakeBus bus(tree.path("bus"), {.answer = metered_answer(4)});
  CHECK(read_dbus_uint32(tree.path("bus"), kMetered, kPatience).value() == 4);
  std::string hex;
  for (const char digit : std::to_string(::geteuid())) hex += std::string("3") + digit;
  const std::string greeting = std::string("\0", 1) + "AUTH EXTERNAL " + hex + "\r\nBEGIN\r\n";
  REQUIRE(bus.heard.starts_with(greeting));
  const std::string calls = bus.heard.substr(greeting.size());
  CHECK(calls.starts_with(std::string("l\1\2\1", 4) + u32(0) + u32(1)));
  CHECK(calls.find("Hello") != std::string::npos);
  const std::size_t get = calls.find(std::string("l\1\2\1", 4), 4);
  REQUIRE(get != std::string::npos);
  CHECK(get % 8 == 0);
  // ss: two strings with lengths, the second aligned to 4.
  const std::string body = u32(30) + "org.freedesktop.NetworkManager" + std::string("\0\0", 2) +
                           u32(7) + "Metered" + std::string("\0", 1);
  CHECK(calls.substr(get + 4, 4) == u32(static_cast<std::uint32_t>(body.size())));
  CHECK(calls.ends_with(body));
}

TEST_CASE("an answer that comes byte by byte is understood", "[conditions]") {
  const Tree tree;
  const FakeBus bus(tree.path("bus"), {.answer = metered_answer(1), .piece = 1});
  CHECK(read_dbus_uint32(tree.path("bus"), kMetered, kPatience).value() == 1);
}

TEST_CASE("a bus that refuses or answers nonsense is an error", "[conditions]") {
  const std::string text = std::string("\1s\0\0", 4) + u32(2) + std::string("no\0", 3);
  std::string big_endian = metered_answer(1);
  big_endian[0] = 'B';
  std::string endless = message(kReturn, 2, "");
  endless.replace(12, 4, u32(0x7fffffff));
  std::string long_field = message(kReturn, 2, "");
  long_field[16 + 2] = 's';  // the first field's type
  long_field.replace(16 + 4, 4, u32(0xfffffff0));
  const auto [answer, why] = GENERATE_COPY(
      table<std::string, const char*>({{message(kError, 2, ""), "does not tell its Metered"},
                                       {message(kReturn, 2, text), "is not a number"},
                                       {message(kReturn, 2, ""), "is not a number"},
                                       {big_endian, "byte order"},
                                       {endless, "says too much"},
                                       {long_field, "in time"},  // answers nothing that can be read
                                       {std::string(20, 'l'), "says too much"}}));
  const Tree tree;
  const FakeBus bus(tree.path("bus"), {.answer = answer});
  const auto value = read_dbus_uint32(tree.path("bus"), kMetered, 300ms);
  REQUIRE_FALSE(value.ok());
  INFO(value.error().message);
  CHECK(value.error().message.find(why) != std::string::npos);
}

TEST_CASE("a bus that rejects us is told as such", "[conditions]") {
  const Tree tree;
  const FakeBus bus(tree.path("bus"), {.after_authentication = "REJECTED EXTERNAL\r\n"});
  const auto value = read_dbus_uint32(tree.path("bus"), kMetered, kPatience);
  REQUIRE_FALSE(value.ok());
  CHECK(value.error().message == "the message bus lets us not in: REJECTED EXTERNAL");
  CHECK(read_dbus_uint32(tree.path("nothing"), kMetered, kPatience)
            .error()
            .message.find("no message bus at") == 0);
}
