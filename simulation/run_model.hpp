#pragma once

#include <covey/model_spec.hpp>
#include <covey/models/data_set.hpp>
#include <covey/models/engine.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <string>

namespace covey::simulation {

/// The network of a run for these data; of a TorchScript file (below the data directory first, then
/// as given) its SHA-256. Error naming the key or the file.
Result<ModelSpec> run_model(const RunConfig& config, const models::DataSet& train,
                            const std::string& data_directory);

/// Error where a network that takes `shape` cannot learn from these data: tokens for numbers,
/// another number of predictions, too few classes. Better told now than by every device in turn.
Result<void> check_fit(const ModelSpec& spec, const models::DataShape& shape,
                       const models::DataSet& data);

}  // namespace covey::simulation
