#include "client/daemon/covey_client/self_test.hpp"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <covey/client/local_data_spec.hpp>
#include <covey/client/memory_estimate.hpp>
#include <covey/client/state_folder.hpp>
#include <covey/random.hpp>
#include <covey/transport/certificates.hpp>
#include <cstdio>
#include <memory>
#include <thread>

#include "client/daemon/covey_client/json_line.hpp"
#include "client/daemon/covey_client/self_test_checks.hpp"
#include "client/daemon/linux_conditions.hpp"
#include "server/daemon/kit.hpp"

namespace covey::client {
namespace {

constexpr double kMiB = 1 << 20;

/// Prints a line for each check as it is made, and remembers them.
class Report {
 public:
  void add(std::string_view name, const Result<std::string>& found) {
    const std::string& words = found.ok() ? *found : found.error().message;
    fmt::print("{:<8}{}: {}\n", found.ok() ? "ok" : "FAILED", name, words);
    std::fflush(stdout);
    ok_ = ok_ && found.ok();
    json_ += fmt::format("{}{{\"check\":{},\"ok\":{},\"found\":{}}}", json_.empty() ? "" : ",",
                         json_string(name), found.ok(), json_string(words));
  }
  void skip(std::string_view name, std::string_view why) {
    fmt::print("{:<8}{}: {}\n", "skipped", name, why);
  }

  bool ok() const { return ok_; }
  std::string json() const { return fmt::format("{{\"ok\":{},\"checks\":[{}]}}", ok_, json_); }

 private:
  bool ok_ = true;
  std::string json_;
};

Result<std::string> file_text(const std::string& path) {
  std::string text;
  const std::unique_ptr<std::FILE, decltype([](std::FILE* file) { std::fclose(file); })> file(
      std::fopen(path.c_str(), "re"));
  if (!file) return failed(path + ": cannot be read");
  char piece[4096];
  while (const std::size_t length = std::fread(piece, 1, sizeof piece, file.get()))
    text.append(piece, length);
  return text;
}

Result<std::string> check_kit(const ProgramOptions& options) {
  if (options.kit.empty()) return invalid_argument("none is named (--kit DIR)");
  COVEY_ASSIGN(const Kit kit, load_device_kit(options.kit));
  COVEY_ASSIGN(const std::string pem, file_text(kit.tls.certificate));
  COVEY_ASSIGN(const auto certificate, transport::describe(pem));
  if (certificate.expired) {
    return failed(fmt::format("{}: this certificate was valid until {}", kit.tls.certificate,
                              certificate.not_after));
  }
  // The key fits the certificate, and both are what TLS takes.
  transport::EventLoop loop;
  transport::Dialer::Options dialing;
  dialing.address = options.server.empty() ? kit.address : options.server;
  dialing.server_name = kit.server_name;
  dialing.tls = kit.tls;
  COVEY_TRY(transport::Dialer::make(loop, dialing));
  return fmt::format("device {}, valid until {}, {} identity, server {}", value_of(kit.client),
                     certificate.not_after, kit.credentials ? "with an" : "without an",
                     dialing.address);
}

Result<std::string> check_state(const ProgramOptions& options) {
  const std::string& directory = options.device.state_directory;
  if (directory.empty()) return std::string("none is kept (--state none)");
  COVEY_ASSIGN(const auto folder, open_state_folder(directory));
  const std::string name = "self-test";
  std::vector<std::byte> written(256 * 1024);
  RandomStream random(1, RandomPurpose::kDataGeneration);
  for (auto& byte : written) byte = static_cast<std::byte>(random.below(256));
  COVEY_TRY(folder->put(name, written));
  COVEY_ASSIGN(const SharedBytes read, folder->map(name));
  const bool same =
      std::equal(read.span().begin(), read.span().end(), written.begin(), written.end());
  COVEY_TRY(folder->remove(name));
  if (!same) return failed(directory + ": a file is read with other content than was written");
  struct statvfs disk {};
  if (statvfs(directory.c_str(), &disk) != 0) return failed(directory + ": its disk tells nothing");
  const double free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  return fmt::format("{}, {:.0f} MiB free, {:.0f} may be used", directory, free / kMiB,
                     static_cast<double>(options.device.max_state_bytes) / kMiB);
}

Result<std::string> check_data(const ProgramOptions& options) {
  if (options.data.empty()) return invalid_argument("none are named (--data SPEC)");
  COVEY_ASSIGN(const LocalDataSpec spec, parse_local_data(options.data));
  COVEY_ASSIGN(const auto data, open_local_data(spec));
  COVEY_ASSIGN(const auto examples, data->examples());
  return fmt::format("{}: {} examples of {} numbers, {} classes", options.data, examples->size(),
                     examples->example_size(), examples->classes());
}

std::string words(const std::optional<bool>& value, std::string_view yes, std::string_view no) {
  return value ? std::string(*value ? yes : no) : fmt::format("{} or not is unknown", yes);
}

std::string describe_conditions(const ProgramOptions& options, const DeviceReadings& readings) {
  std::string text = words(readings.charging, "charging", "on battery");
  if (readings.battery) text += fmt::format(", battery {:.0f}%", *readings.battery * 100);
  text += ", " + words(readings.metered, "metered", "unmetered");
  if (readings.temperature_c) text += fmt::format(", {:.0f} C", *readings.temperature_c);
  if (readings.load) text += fmt::format(", others' load {:.2f} a core", *readings.load);
  if (readings.free_memory_bytes) {
    text += fmt::format(", {:.0f} MiB of memory free",
                        static_cast<double>(*readings.free_memory_bytes) / kMiB);
  }
  const Permissions now = permissions_of(options.device.rules, readings, {});
  return text +
         (now.train && now.transfer ? "; may train now" : "; may not train now: " + now.reason);
}

/// Two readings: what is asked of the system's bus comes with the second.
DeviceReadings read_conditions(const ProgramOptions& options) {
  LinuxConditions conditions({.state_directory = options.device.state_directory});
  conditions.read();
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  return conditions.read();
}

void check_all_training(const ProgramOptions& options, Report& report) {
  for (const TrainingCase& one : training_cases()) {
    const std::string name = fmt::format("training {} in {}", one.preset, one.precision);
    const auto needed = memory_needed(one);
    if (!needed.ok()) {
      report.add(name, needed.error());
      continue;
    }
    const double mib = static_cast<double>(*needed) / kMiB;
    const std::uint64_t most = options.device.max_memory_bytes;
    if (most > 0 && *needed > most) {
      report.skip(name, fmt::format("takes {:.1f} MiB, {:.1f} are allowed", mib,
                                    static_cast<double>(most) / kMiB));
      continue;
    }
    auto found = check_training(one);
    if (found.ok()) *found += fmt::format(", takes {:.1f} MiB", mib);
    report.add(name, found);
  }
}

}  // namespace

bool self_test(const ProgramOptions& options) {
  Report report;
  report.add("hash", check_hash());
  report.add("masks", check_mask_ciphers());
  report.add("key agreement", check_key_agreement());
  report.add("signatures", check_signatures());
  report.add("kit", check_kit(options));
  report.add("state", check_state(options));
  report.add("conditions", describe_conditions(options, read_conditions(options)));
  report.add("data", check_data(options));
  check_all_training(options, report);
  if (options.json) fmt::print("{}\n", report.json());
  return report.ok();
}

}  // namespace covey::client
