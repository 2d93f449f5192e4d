#pragma once

#include <covey/metrics.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/simulation/tensorboard.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace covey {

/// What a run leaves behind: run.toml (resolved); metrics.jsonl, metrics.csv and, for TensorBoard,
/// events.out.tfevents.<start>.covey (written as rounds end); model.fp32 with model.json (its
/// layout), result.json, and accuracy.svg/.png.
class RunFolder {
 public:
  /// `wanted`: --out; "" makes runs/<name>, or runs/<name>-2, ... if that exists. An existing
  /// `wanted` must be empty or absent, so that no earlier run is lost.
  static Result<RunFolder> create(const std::string& wanted, const RunConfig& config);
  /// The same folder again, for a run that goes on: the files that are written as rounds end are
  /// made of these rounds, and go on from there.
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
  Result<void> begin_metrics();
  Result<void> write(const std::string& name, std::string_view content);

  std::string path_;
  std::ofstream metrics_, table_;  ///< metrics.jsonl, metrics.csv
  std::optional<simulation::EventFile> events_;
};

}  // namespace covey
