#include "client/daemon/linux_conditions.hpp"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "client/daemon/dbus_property.hpp"

namespace covey::client {
namespace {

using Clock = std::chrono::steady_clock;

/// Sensors that are not connected or not calibrated report values beyond these.
constexpr double kColdestC = -40, kHottestC = 150;

/// A small file's text without the end of its last line; nothing where it cannot be read.
std::optional<std::string> text_of(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return std::nullopt;
  std::string text(8192, '\0');  // /proc/meminfo has 1.5 KB
  text.resize(std::fread(text.data(), 1, text.size(), file));
  const bool whole = std::ferror(file) == 0;
  std::fclose(file);
  if (!whole) return std::nullopt;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

template <typename Number>
std::optional<Number> number_of(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

template <typename Number>
std::optional<Number> number_in(const std::string& path) {
  const auto text = text_of(path);
  return text ? number_of<Number>(*text) : std::nullopt;
}

std::vector<std::string> entries(const std::string& directory, std::string_view prefix = {}) {
  std::vector<std::string> paths;
  DIR* handle = ::opendir(directory.c_str());
  if (handle == nullptr) return paths;
  while (const dirent* entry = ::readdir(handle)) {
    const std::string_view name = entry->d_name;
    if (name.starts_with('.') || !name.starts_with(prefix)) continue;
    paths.push_back(directory + "/" + std::string(name));
  }
  ::closedir(handle);
  return paths;
}

struct Power {
  bool supplied = false;    ///< from outside
  bool has_source = false;  ///< something that could supply it
  bool discharging = false;
  bool has_battery = false;
  double charge = 0, capacity = 0;  ///< of all batteries, each weighed by what it holds when full
};

/// What a full battery holds, in whichever unit the driver knows: batteries of one device have the
/// same.
double capacity_of(const std::string& battery) {
  for (const char* file : {"/energy_full", "/charge_full"}) {
    if (const auto full = number_in<double>(battery + file); full && *full > 0) return *full;
  }
  return 1;
}

void add_battery(const std::string& supply, Power& power) {
  // Of a mouse or a headset ("Device") and of what is not in its place, nothing follows for the
  // system.
  if (text_of(supply + "/scope") == "Device" || text_of(supply + "/present") == "0") return;
  power.has_battery = true;
  const auto status = text_of(supply + "/status");
  power.discharging = power.discharging || status == "Discharging";
  power.supplied = power.supplied || status == "Charging" || status == "Full";
  const auto percent = number_in<double>(supply + "/capacity");
  if (!percent || *percent < 0 || *percent > 100) return;
  const double capacity = capacity_of(supply);
  power.charge += capacity * *percent / 100;
  power.capacity += capacity;
}

void read_power(const std::string& sys, DeviceReadings& readings) {
  Power power;
  for (const std::string& supply : entries(sys + "/class/power_supply")) {
    const auto type = text_of(supply + "/type");
    if (type == "Battery") {
      add_battery(supply, power);
    } else if (type == "Mains" || type == "USB" || type == "Wireless") {
      if (text_of(supply + "/scope") == "Device") continue;
      const auto online = number_in<int>(supply + "/online");
      power.has_source = power.has_source || online.has_value();
      power.supplied = power.supplied || online.value_or(0) > 0;
    }
  }
  if (power.capacity > 0) readings.battery = power.charge / power.capacity;
  if (!power.has_battery) {
    readings.charging = true;  // it runs, so it is on mains
  } else if (power.has_source || power.supplied || power.discharging) {
    readings.charging = power.supplied;
  }
}

void read_temperature(const std::string& sys, DeviceReadings& readings) {
  for (const std::string& zone : entries(sys + "/class/thermal", "thermal_zone")) {
    const auto millidegrees = number_in<long>(zone + "/temp");
    if (!millidegrees) continue;
    const double celsius = static_cast<double>(*millidegrees) / 1000;
    // 0 is what a zone that is switched off reports, too.
    if (celsius == 0 || celsius < kColdestC || celsius > kHottestC) continue;
    readings.temperature_c = std::max(celsius, readings.temperature_c.value_or(celsius));
  }
}

/// "Name:   123 kB" of a file of such lines, in bytes.
std::optional<std::uint64_t> kilobytes(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.starts_with(name)) continue;
    line.remove_prefix(name.size());
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    line = line.substr(0, line.find(' '));
    const auto value = number_of<std::uint64_t>(line);
    return value ? std::optional(*value * 1024) : std::nullopt;
  }
  return std::nullopt;
}

/// What is free or taken by this process, so that its own training does not look like need.
void read_memory(const std::string& proc, DeviceReadings& readings) {
  const auto system = text_of(proc + "/meminfo");
  if (!system) return;
  const auto available = kilobytes(*system, "MemAvailable:");
  if (!available) return;
  const auto own = text_of(proc + "/self/status");
  readings.free_memory_bytes =
      *available + (own ? kilobytes(*own, "RssAnon:").value_or(0) : std::uint64_t{0});
}

void read_disk(const std::string& directory, DeviceReadings& readings) {
  struct statvfs system {};
  if (directory.empty() || ::statvfs(directory.c_str(), &system) != 0) return;
  readings.free_disk_bytes = std::uint64_t{system.f_bavail} * system.f_frsize;
}

void read_time(DeviceReadings& readings) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  if (now == std::time_t{-1} || ::localtime_r(&now, &local) == nullptr) return;
  readings.minute_of_day = static_cast<std::uint32_t>(local.tm_hour * 60 + local.tm_min);
}

/// Seconds that the threads of this process computed so far.
double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

/// Asks NetworkManager on a thread of its own, which lives for the question. What it last answered
/// holds until the next answer.
class LinuxConditions::Network {
 public:
  explicit Network(const Options& options) : options_(options) {}
  ~Network() {
    if (thread_.joinable()) thread_.join();
  }

  std::optional<bool> metered() {
    const auto now = Clock::now();
    if (!asking_.load(std::memory_order_acquire) &&
        (!asked_ || now - *asked_ >= options_.ask_network_every)) {
      asked_ = now;
      ask();
    }
    const int answer = answer_.load(std::memory_order_acquire);
    return answer < 0 ? std::nullopt : std::optional(answer > 0);
  }

 private:
  static constexpr int kUnknown = -1;

  void ask() {
    // A machine without a bus is spared the thread.
    if (::access(options_.bus_socket.c_str(), F_OK) != 0) {
      answer_ = kUnknown;
      return;
    }
    if (thread_.joinable()) thread_.join();  // it is over
    asking_ = true;
    try {
      thread_ = std::thread([this] {
        answer_.store(question(), std::memory_order_release);
        asking_.store(false, std::memory_order_release);
      });
    } catch (const std::system_error&) {  // no thread to be had: asked again later
      asking_ = false;
    }
  }

  int question() const {
    const auto answer = read_dbus_uint32(options_.bus_socket,
                                         {.destination = "org.freedesktop.NetworkManager",
                                          .path = "/org/freedesktop/NetworkManager",
                                          .interface = "org.freedesktop.NetworkManager",
                                          .name = "Metered"},
                                         options_.bus_patience);
    if (!answer.ok()) return kUnknown;
    // NMMetered (NetworkManager's D-Bus reference): 1 yes, 2 no, 3 guessed yes, 4 guessed no.
    switch (*answer) {
      case 1:
      case 3:
        return 1;
      case 2:
      case 4:
        return 0;
      default:
        return kUnknown;
    }
  }

  const Options& options_;
  std::optional<Clock::time_point> asked_;
  std::thread thread_;
  std::atomic<bool> asking_{false};
  std::atomic<int> answer_{kUnknown};
};

LinuxConditions::LinuxConditions(Options options)
    : options_(std::move(options)), network_(std::make_unique<Network>(options_)) {}
LinuxConditions::~LinuxConditions() = default;

/// The one-minute load average is of threads that run or wait for the disk, decaying exponentially
/// (kernel/sched/loadavg.c): what this process added to it decays likewise.
std::optional<double> LinuxConditions::others_load() {
  const auto now = Clock::now();
  const double computed = cpu_seconds();
  if (cpu_) {
    const double elapsed = std::chrono::duration<double>(now - cpu_->first).count();
    constexpr double kMinute = 60;
    const double decay = std::exp(-elapsed / kMinute);
    if (elapsed > 0)
      own_load_ = own_load_ * decay + (computed - cpu_->second) / elapsed * (1 - decay);
  }
  cpu_ = {now, computed};
  const auto text = text_of(options_.proc + "/loadavg");
  if (!text) return std::nullopt;
  const auto load = number_of<double>(std::string_view(*text).substr(0, text->find(' ')));
  if (!load) return std::nullopt;
  const double cores = static_cast<double>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  return std::max(0.0, *load - own_load_) / cores;
}

DeviceReadings LinuxConditions::read() {
  DeviceReadings readings;
  read_power(options_.sys, readings);
  read_temperature(options_.sys, readings);
  read_memory(options_.proc, readings);
  read_disk(options_.state_directory, readings);
  read_time(readings);
  readings.load = others_load();
  if (options_.ask_network) readings.metered = network_->metered();
  return readings;
}

}  // namespace covey::client
