#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <covey/messages.hpp>
#include <covey/models/data_set.hpp>
#include <covey/models/network.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/strategies/registry.hpp>

namespace covey::simulation {

/// A run file made real: its data, who owns what, the network and the plan. Made the same way by the
/// simulator, the server and a deployed client, which is why they agree to the bit.
struct Experiment {
  RunConfig config;
  models::FederatedData data;
  std::vector<models::Shard> shards;  ///< by client number
  models::Network network;
  TrainingPlan plan;

  std::uint32_t population() const { return static_cast<std::uint32_t>(shards.size()); }
  /// The model of round 0, drawn from the run's seed.
  ParameterVector initial_model() const;
  server::CoordinatorOptions coordinator_options(const strategies::Strategy& strategy) const;
};

/// Loads the data and plans the network. Error naming the key or the file.
Result<Experiment> load_experiment(const RunConfig& config, const std::string& data_directory);

/// What a server needs of it: as above when the data is there, so that models can be evaluated; where it
/// is not (data.source mnist or synthetic is known by its shape), everything but the examples.
Result<Experiment> load_server_experiment(const RunConfig& config, const std::string& data_directory);

/// The registry a run needs: the built-ins, and the run file's plug-in.
Result<strategies::Registry> load_registry(const RunConfig& config);

}  // namespace covey::simulation
