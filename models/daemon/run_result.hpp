#pragma once

#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <string>

namespace covey {

/// Where a run left its model.
struct RunResult {
  std::string folder;
  std::string run_file;  ///< run.toml, as resolved
  std::string model;     ///< model.fp32, or the file that was named
};

/// `path`: the folder of a run, or a model in one. Error naming what is missing.
Result<RunResult> find_run(const std::string& path);

/// The parameters, fp32, of this layout. Error where the file's size does not fit, or where its
/// content is not what model.json beside it says.
Result<ParameterVector> read_model(const RunResult& run, const ModelLayout& layout);

}  // namespace covey
