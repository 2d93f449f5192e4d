#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <covey/result.hpp>
#include <covey/run_config.hpp>

/// What the commands of the programs share.
namespace covey {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

/// Prints "covey: <sentence>" on standard error (and, for --json, {"error": ...} as the last line of
/// standard output) and returns the exit code that fits.
int report_error(const Error& error, bool json);

/// Prints the one JSON object that ends a command's standard output.
void print_json(const nlohmann::json& object);

/// A run file and how to read it.
struct RunFileOptions {
  std::string path;
  std::vector<std::string> overrides;  ///< --set key=value
  std::string data_directory;          ///< --data, or COVEY_DATA
  std::optional<std::uint64_t> seed;   ///< --seed
  bool json = false;

  Result<RunConfig> load() const;
};
void add_run_file_options(CLI::App& command, RunFileOptions& options);

/// Set by the first SIGINT or SIGTERM; a second one ends the process.
const std::atomic<bool>& stop_on_signal();

/// Raises the limit of open files to what the system allows; returns it.
std::uint64_t raise_file_limit();

/// Most memory this process ever held, MiB.
double peak_rss_mib();
/// Resident memory of this process's own now, bytes: without files, such as the program itself.
double private_bytes();

/// "1.4 MB", "3.2 s": figures for people.
std::string human_bytes(double bytes);
std::string human_seconds(double seconds);

}  // namespace covey
