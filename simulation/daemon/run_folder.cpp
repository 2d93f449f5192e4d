#include "run_folder.hpp"

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "learning_curve.hpp"

namespace covey {
namespace {

namespace fs = std::filesystem;

Result<std::string> free_name(const std::string& wanted, const std::string& name) {
  std::error_code error;
  if (!wanted.empty()) {
    if (fs::exists(wanted, error) && !fs::is_empty(wanted, error)) {
      return invalid_argument(wanted + " exists and is not empty; name another folder with --out");
    }
    return wanted;
  }
  const std::string base = "runs/" + name;
  if (!fs::exists(base, error)) return base;
  for (int number = 2;; ++number) {
    const std::string candidate = base + "-" + std::to_string(number);
    if (!fs::exists(candidate, error)) return candidate;
  }
}

constexpr const char* kEventsPrefix = "events.out.tfevents.";  // what TensorBoard looks for
constexpr const char* kEventsSuffix = ".covey";

/// When the run of this folder began, seconds since 1970: as its events file is named, else now.
std::string start_of(const std::string& path) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kEventsPrefix) || !name.ends_with(kEventsSuffix)) continue;
    const std::string start =
        name.substr(std::strlen(kEventsPrefix),
                    name.size() - std::strlen(kEventsPrefix) - std::strlen(kEventsSuffix));
    if (!start.empty() && start.find_first_not_of("0123456789") == std::string::npos) return start;
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(now).count());
}

}  // namespace

Result<RunFolder> RunFolder::create(const std::string& wanted, const RunConfig& config) {
  COVEY_ASSIGN(std::string path, free_name(wanted, config.name));
  return reopen(path, config, {});
}

Result<RunFolder> RunFolder::reopen(const std::string& path, const RunConfig& config,
                                    const std::vector<RoundMetrics>& so_far) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return failed("cannot make the folder " + path + ": " + error.message());
  RunFolder folder(path);
  COVEY_TRY(folder.write("run.toml", to_toml(config)));
  COVEY_TRY(folder.begin_metrics());
  for (const RoundMetrics& metrics : so_far) COVEY_TRY(folder.append(metrics));
  return folder;
}

Result<void> RunFolder::begin_metrics() {
  metrics_.open(path_ + "/metrics.jsonl", std::ios::trunc);
  table_.open(path_ + "/metrics.csv", std::ios::trunc);
  table_ << csv_header() << '\n';
  const std::string start = start_of(path_);
  const std::string events = path_ + "/" + kEventsPrefix + start + kEventsSuffix;
  COVEY_ASSIGN(events_, simulation::EventFile::create(events, std::strtod(start.c_str(), nullptr)));
  return {};
}

Result<void> RunFolder::append(const RoundMetrics& metrics) {
  metrics_ << to_json_line(metrics) << '\n' << std::flush;
  if (!metrics_) {
    return failed("cannot write " + path_ + "/metrics.jsonl: " + std::strerror(errno));
  }
  table_ << to_csv_line(metrics) << '\n' << std::flush;
  if (!table_) return failed("cannot write " + path_ + "/metrics.csv: " + std::strerror(errno));
  return events_->append(metrics);
}

Result<void> RunFolder::write(const std::string& name, std::string_view content) {
  // Beside it and then renamed, so that a reader never sees half a file.
  const std::string path = path_ + "/" + name;
  {
    std::ofstream file(path + ".new", std::ios::binary | std::ios::trunc);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
    file.flush();
    if (!file) return failed("cannot write " + path + ": " + std::strerror(errno));
  }
  std::error_code error;
  fs::rename(path + ".new", path, error);
  if (error) return failed("cannot write " + path + ": " + error.message());
  return {};
}

Result<void> RunFolder::write_model(const SharedBytes& model, const ModelLayout& layout) {
  nlohmann::json description = {{"encoding", "fp32 little-endian"},
                                {"sha256", model.digest().hex()},
                                {"parameters", layout.size()}};
  for (const TensorLayout& tensor : layout.tensors()) {
    description["tensors"].push_back(
        {{"name", tensor.name}, {"shape", tensor.shape}, {"offset", tensor.offset}});
  }
  COVEY_TRY(write("model.json", description.dump(2) + "\n"));
  return write("model.fp32", {reinterpret_cast<const char*>(model.data()), model.size()});
}

Result<void> RunFolder::write_result(const nlohmann::json& result) {
  return write("result.json", result.dump(2) + "\n");
}

Result<void> RunFolder::write_pictures(const RunConfig& config,
                                       const std::vector<RoundMetrics>& rounds) {
  const simulation::Plot plot = learning_curve(config, rounds);
  if (plot.curves.empty()) return {};
  COVEY_TRY(simulation::write_picture(plot, path_ + "/" + picture_name(plot) + ".svg"));
  return simulation::write_picture(plot, path_ + "/" + picture_name(plot) + ".png");
}

}  // namespace covey
