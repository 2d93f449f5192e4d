#include "run_result.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <covey/digest.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

namespace covey {
namespace {

namespace fs = std::filesystem;

/// model.json describes model.fp32 alone: a model of another name is taken as it is.
Result<void> check_digest(const RunResult& run, std::span<const std::byte> content) {
  if (fs::path(run.model).filename() != "model.fp32") return {};
  const std::string path = (fs::path(run.folder) / "model.json").string();
  std::ifstream file(path);
  if (!file) return {};
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object() || !json.contains("sha256") || !json["sha256"].is_string()) {
    return malformed(path + " does not describe a model: it has no \"sha256\"");
  }
  if (json["sha256"].get<std::string>() == sha256(content).hex()) return {};
  return malformed(run.model + " is damaged or from another run: its SHA-256 is not the one in " +
                   path);
}

}  // namespace

Result<RunResult> find_run(const std::string& path) {
  std::error_code error;
  RunResult run;
  const bool folder = fs::is_directory(path, error);
  if (!folder && !fs::is_regular_file(path, error)) {
    return not_found("there is no run folder and no model " + path +
                     "; name a folder that `covey simulate` or `server` wrote");
  }
  const fs::path parent = fs::path(path).parent_path();
  run.folder = folder ? path : parent.empty() ? "." : parent.string();
  run.run_file = (fs::path(run.folder) / "run.toml").string();
  run.model = folder ? (fs::path(path) / "model.fp32").string() : path;
  for (const std::string& needed : {run.run_file, run.model}) {
    if (!fs::is_regular_file(needed, error)) {
      return not_found("there is no " + needed +
                       "; a run that has ended wrote run.toml and model.fp32");
    }
  }
  return run;
}

Result<ParameterVector> read_model(const RunResult& run, const ModelLayout& layout) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(run.model, error);
  const std::uintmax_t wanted = layout.size() * sizeof(float);
  if (!error && size != wanted) {
    return malformed(
        fmt::format("{} has {} bytes where the {} parameters of the network in {} take {}",
                    run.model, size, layout.size(), run.run_file, wanted));
  }
  std::vector<std::byte> content(static_cast<std::size_t>(wanted));
  std::ifstream file(run.model, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(content.data()),
                 static_cast<std::streamsize>(content.size()))) {
    return failed("cannot read " + run.model + ": " + std::strerror(errno));
  }
  COVEY_TRY(check_digest(run, content));
  ParameterVector parameters(layout.size());
  COVEY_TRY(decode_fp32(content, parameters.span()));
  return parameters;
}

}  // namespace covey
