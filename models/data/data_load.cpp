#include <fmt/format.h>

#include <covey/models/data_set.hpp>
#include <filesystem>
#include <new>
#include <string>

namespace covey::models {
namespace {

namespace fs = std::filesystem;

/// data.path where it exists: below the data directory first, then as given.
Result<std::string> find_data(const std::string& path, const std::string& data_directory) {
  std::error_code ignored;
  std::string looked;
  const auto exists = [&](const fs::path& candidate) {
    looked += (looked.empty() ? "" : ", ") + candidate.string();
    return fs::exists(candidate, ignored);
  };
  if (!data_directory.empty() && !fs::path(path).is_absolute()) {
    const fs::path below = fs::path(data_directory) / path;
    if (exists(below)) return below.string();
  }
  if (exists(path)) return path;
  return not_found(fmt::format(
      "data.path \"{}\" does not exist (looked at {}); name the folder it is in with --data or "
      "COVEY_DATA",
      path, looked));
}

/// The text file that data.path names; a directory means input.txt in it, and no path the plays of
/// Shakespeare below the data directory.
Result<std::string> find_text(const std::string& path, const std::string& data_directory) {
  constexpr const char* kFile = "input.txt";
  if (path.empty() && data_directory.empty()) {
    return not_found(
        "data.source \"text\": no data directory is named; use --data or COVEY_DATA, or data.path");
  }
  COVEY_ASSIGN(const std::string found,
               find_data(path.empty() ? "shakespeare" : path, data_directory));
  std::error_code ignored;
  if (!fs::is_directory(found, ignored)) return found;
  const fs::path file = fs::path(found) / kFile;
  if (fs::exists(file, ignored)) return file.string();
  return not_found(
      fmt::format("{} is a directory without {}, which data.source \"text\" reads", found, kFile));
}

Result<FederatedData> load_named(const RunConfig& config, const std::string& data_directory,
                                 DataParts parts) {
  const DataConfig& data = config.data;
  if (data.source == "synthetic") {
    return make_synthetic(data, config.partition.clients, config.seed);
  }
  if (data.source == "mnist" && data.path.empty()) {
    if (!data_directory.empty()) return load_mnist(data_directory, parts);
    return not_found(
        "data.source \"mnist\": no data directory is named; use --data or COVEY_DATA, or "
        "data.path");
  }
  if (data.source == "text") {
    COVEY_ASSIGN(const std::string path, find_text(data.path, data_directory));
    return load_text(path, data);
  }
  if (data.source != "mnist" && data.source != "csv" && data.source != "leaf") {
    return invalid_argument(fmt::format(
        "data.source \"{}\" is unknown; there are synthetic, mnist, csv, leaf, text", data.source));
  }
  if (data.path.empty()) {
    return invalid_argument(fmt::format("data.source \"{}\" needs data.path", data.source));
  }
  COVEY_ASSIGN(const std::string path, find_data(data.path, data_directory));
  if (data.source == "mnist") return load_mnist(path, parts);
  if (data.source == "csv") return load_csv(path, data, config.seed);
  return load_leaf(path, data, config.seed);
}

}  // namespace

Result<FederatedData> load_data(const RunConfig& config, const std::string& data_directory,
                                DataParts parts) {
  try {
    return load_named(config, data_directory, parts);
  } catch (const std::bad_alloc&) {
    return failed(
        fmt::format("data.source \"{}\": not enough memory for this data set", config.data.source));
  }
}

}  // namespace covey::models
