#pragma once

#include <string>

#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/simulation/experiment.hpp>

namespace covey {

/// Where the networks of a run come from: Covey's own engines, and for model.torchscript libtorch, which
/// is loaded then and not before (libcovey_torch.so, beside the program). The file is looked for below
/// `data_directory` first, then as given. Error naming the file, or what is missing.
Result<simulation::ModelSource> model_source(const RunConfig& config, const std::string& data_directory);

}  // namespace covey
