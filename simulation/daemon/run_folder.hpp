#pragma once

#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <covey/metrics.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>

namespace covey {

/// What a run leaves behind: run.toml (resolved), metrics.jsonl (written as rounds end), model.fp32 with
/// model.json (its layout), result.json, and accuracy.svg/.png.
class RunFolder {
 public:
  /// `wanted`: --out; "" makes runs/<name>, or runs/<name>-2, ... if that exists. An existing `wanted`
  /// must be empty or absent, so that no earlier run is lost.
  static Result<RunFolder> create(const std::string& wanted, const RunConfig& config);
  /// The same folder again, for a run that goes on after a restart.
  static Result<RunFolder> reopen(const std::string& path, const RunConfig& config,
                                  const std::vector<RoundMetrics>& so_far);

  const std::string& path() const { return path_; }
  Result<void> append(const RoundMetrics& metrics);
  Result<void> write_model(const SharedBytes& model, const ModelLayout& layout);
  Result<void> write_result(const nlohmann::json& result);
  /// Accuracy over rounds as accuracy.svg and accuracy.png; nothing when no round was evaluated.
  Result<void> write_pictures(const RunConfig& config, const std::vector<RoundMetrics>& rounds);

 private:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}
  Result<void> write(const std::string& name, std::string_view content);

  std::string path_;
  std::ofstream metrics_;
};

}  // namespace covey
