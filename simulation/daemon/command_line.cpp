#include "command_line.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>

#include <sys/resource.h>

#include <fmt/format.h>

namespace covey {

int report_error(const Error& error, bool json) {
  std::fprintf(stderr, "covey: %s\n", error.message.c_str());
  if (json) print_json({{"error", error.message}});
  const bool usage =
      error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kNotFound ||
      error.code == ErrorCode::kMalformed;
  return usage ? kExitUsage : kExitFailed;
}

void print_json(const nlohmann::json& object) {
  const std::string text =
      object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::fprintf(stdout, "%s\n", text.c_str());
  std::fflush(stdout);
}

Result<RunConfig> RunFileOptions::load() const {
  std::vector<std::string> all = overrides;
  if (seed) all.push_back("run.seed=" + std::to_string(*seed));
  return load_run_file(path, all);
}

void add_run_file_options(CLI::App& command, RunFileOptions& options) {
  command.add_option("run-file", options.path, "Run file (TOML): the experiment whole")->required();
  command
      .add_option("--set", options.overrides,
                  "Overrides a key of the run file, as in --set client.learning-rate=0.05")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--seed", options.seed, "The same as --set run.seed=N");
  command.add_option("--data", options.data_directory, "Directory with the data sets")
      ->envname("COVEY_DATA")
      ->type_name("DIR");
  command.add_flag("--json", options.json, "Ends standard output with one JSON object");
}

namespace {

std::atomic<bool> stop_requested{false};

extern "C" void on_stop_signal(int) {
  if (stop_requested.exchange(true)) std::_Exit(kExitFailed);
}

}  // namespace

const std::atomic<bool>& stop_on_signal() {
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return stop_requested;
}

std::uint64_t raise_file_limit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

double peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;  // Linux counts kilobytes
}

double private_bytes() {
  std::ifstream file("/proc/self/status");  // Linux; elsewhere 0
  std::string name;
  double kib = 0;
  while (file >> name) {
    if (name == "RssAnon:" && file >> kib) return 1024 * kib;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

std::string human_bytes(double bytes) {
  for (const char* unit : {"B", "kB", "MB", "GB"}) {
    if (bytes < 1000) return fmt::format("{:.3g} {}", bytes, unit);
    bytes /= 1000;
  }
  return fmt::format("{:.3g} TB", bytes);
}

std::string human_seconds(double seconds) {
  if (seconds < 90) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<long>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

}  // namespace covey
