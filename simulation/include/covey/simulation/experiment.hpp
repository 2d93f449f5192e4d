#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <covey/messages.hpp>
#include <covey/models/data_set.hpp>
#include <covey/models/engine.hpp>
#include <covey/models/network.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/server/update_pipeline.hpp>
#include <covey/strategies/registry.hpp>

namespace covey::simulation {

class Attack;

/// Where a run's networks come from. The default knows networks of layers; a program with libtorch gives
/// one that also knows TorchScript files.
struct ModelSource {
  models::EngineFactory make_engine = models::make_engine;
  /// The parameters that a TorchScript file brings, R^d in the order of its engine's layout.
  std::function<Result<ParameterVector>(const ModelSpec&)> torchscript_parameters;
};

/// A run file made real: its data, who owns what, the network and the plan. Made the same way by the
/// simulator, the server and a deployed client, which is why they agree to the bit.
struct Experiment {
  RunConfig config;
  models::FederatedData data;
  std::vector<models::Shard> shards;  ///< by client number; empty where data are generated when needed
  /// Generates a device's training examples when it trains. data.train is empty then, and data.test are the
  /// held-out examples of the first devices: kTestedDevices, or fewer that hold kTestedExamples.
  std::optional<models::SyntheticSource> generated;
  static constexpr std::uint32_t kTestedDevices = 1000;
  static constexpr std::uint64_t kTestedExamples = 250'000;  // 57 MiB
  /// Devices without a training example (partition.empty = "keep"): they have nothing to check in for.
  std::uint32_t empty_devices = 0;
  std::shared_ptr<Attack> attack;  ///< what Byzantine devices do in a simulation; null: there are none
  /// What is to be said of the experiment at its start, a sentence each.
  std::vector<std::string> notices;
  std::optional<models::Network> network;  ///< none: a TorchScript file
  TrainingPlan plan;
  models::EngineFactory make_engine;
  ModelLayout layout;
  ParameterVector torchscript_parameters;  ///< R^d, of such a file only

  /// Registered devices: client numbers are below it.
  std::uint32_t population() const {
    return generated ? generated->devices() : static_cast<std::uint32_t>(shards.size());
  }
  /// Those that hold training examples.
  std::uint32_t population_with_data() const { return population() - empty_devices; }
  /// Whose own test examples (rows of data.test) per-device figures are of: everybody, or where data are
  /// generated when needed the first ones.
  std::span<const models::Shard> tested_devices() const {
    return generated ? std::span<const models::Shard>(data.owners) : shards;
  }
  /// The most training examples that one device has.
  std::uint64_t largest_num_examples() const;
  /// Training examples of a device. Cheap, also where the data are generated when they are needed.
  std::uint64_t num_examples(ClientId client) const;
  /// A device's training examples: rows `indices` of `data`. Where data are generated when they are needed,
  /// `data` is `scratch`, filled here; it must outlive their use. May run on many threads at once.
  struct Examples {
    const models::DataSet* data = nullptr;
    std::span<const std::uint32_t> indices;
  };
  struct Scratch {
    models::DataSet data;
    std::vector<std::uint32_t> indices;
  };
  Examples training_examples(ClientId client, Scratch& scratch) const;
  /// The model of round 0: drawn from the run's seed, or what the TorchScript file holds.
  ParameterVector initial_model() const;
  /// Floating-point operations of one training step per example.
  double training_flops_per_example() const;
  /// Error where the strategy needs weights that devices do not keep in the plan's precision.
  Result<void> check_strategy(const strategies::Strategy& strategy) const;
};

/// The deployed server's parts, made for an experiment.
struct ServerParts {
  server::UpdatePipeline pipeline;
  server::CoordinatorOptions coordinator;
};
/// Where a run stands when its server starts, and what it may use.
struct ServerStart {
  ParameterVector model;     ///< R^d
  std::vector<float> state;  ///< UpdatePipeline::state(); empty: a new run
  std::unique_ptr<privacy::SecretSource> secrets;  ///< of the server's noise
  std::function<AggregationId()> make_aggregation_id;
  unsigned threads = 1;
  bool devices_keep_models = true;  ///< false: no differences to earlier models are made
};
/// Error, naming the keys, where strategy, secure aggregation and differential privacy do not go together.
Result<ServerParts> make_server_parts(const Experiment& experiment,
                                      std::unique_ptr<strategies::Strategy> strategy,
                                      ServerStart start);

/// Loads the data and plans the network. Error naming the key or the file, also where the network cannot
/// be trained in client.precision.
Result<Experiment> load_experiment(const RunConfig& config, const std::string& data_directory,
                                   const ModelSource& source = {});

/// What a server needs of it: as above when the data is there, so that models can be evaluated; where it
/// is not (data.source mnist or synthetic is known by its shape), everything but the examples.
Result<Experiment> load_server_experiment(const RunConfig& config, const std::string& data_directory,
                                          const ModelSource& source = {});

/// The registry a run needs: the built-ins, and the run file's plug-in.
Result<strategies::Registry> load_registry(const RunConfig& config);

}  // namespace covey::simulation
