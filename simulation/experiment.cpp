#include <covey/simulation/experiment.hpp>

#include <algorithm>

#include <covey/simulation/partition.hpp>

namespace covey::simulation {

namespace {

Result<Experiment> assemble(const RunConfig& config, models::FederatedData data,
                            std::vector<models::Shard> shards) {
  COVEY_ASSIGN(const ModelSpec spec, model_spec_of(config, data.train.shape(), data.train.classes()));
  COVEY_ASSIGN(models::Network network, models::Network::make(spec));

  TrainingPlan plan;
  plan.strategy = config.strategy.name;
  plan.strategy_parameters = config.strategy.parameters;
  plan.model = spec;
  plan.local_epochs = config.client.local_epochs;
  plan.batch_size = config.client.batch_size;
  plan.learning_rate = static_cast<float>(config.client.learning_rate);
  plan.seed = config.seed;
  plan.accept_partial_work = config.client.accept_partial_work;
  plan.precision = config.client.precision;
  plan.compressor = config.client.compressor;
  plan.max_update_norm = config.selection.max_update_norm;

  const auto population = static_cast<std::uint32_t>(shards.size());
  const std::uint32_t wanted =
      std::max(config.selection.min_available_clients, config.selection.min_fit_clients);
  if (wanted > population) {
    return invalid_argument("selection asks for " + std::to_string(wanted) +
                            " clients, the partition has " + std::to_string(population));
  }
  return Experiment{config, std::move(data), std::move(shards), std::move(network), std::move(plan)};
}

}  // namespace

Result<Experiment> load_experiment(const RunConfig& config, const std::string& data_directory) {
  COVEY_ASSIGN(models::FederatedData data, models::load_data(config, data_directory));
  COVEY_ASSIGN(std::vector<models::Shard> shards, partition(data, config.partition, config.seed));
  return assemble(config, std::move(data), std::move(shards));
}

Result<Experiment> load_server_experiment(const RunConfig& config,
                                          const std::string& data_directory) {
  if (config.data.source != "mnist") return load_experiment(config, data_directory);
  auto data = models::load_data(config, data_directory, models::DataParts::kTestOnly);
  if (!data.ok()) {
    if (data.error().code != ErrorCode::kNotFound) return data.error();
    data = models::FederatedData{};
    COVEY_ASSIGN(data->train, models::DataSet::from_bytes({28, 28, 1}, {}, 1.0f / 255, {}, 10));
  }
  return assemble(config, std::move(*data), std::vector<models::Shard>(config.partition.clients));
}

ParameterVector Experiment::initial_model() const {
  ParameterVector model(network.num_parameters());
  network.initialise(model.span(), RandomStream(config.seed, RandomPurpose::kModelInitialisation));
  return model;
}

server::CoordinatorOptions Experiment::coordinator_options(
    const strategies::Strategy& strategy) const {
  server::CoordinatorOptions options;
  options.config = config;
  options.plan = plan;
  options.population = population();
  options.num_scalars = strategy.num_scalars();
  options.evaluates = !data.test.empty();
  return options;
}

Result<strategies::Registry> load_registry(const RunConfig& config) {
  auto registry = strategies::Registry::with_built_ins();
  if (!config.strategy.plugin.empty()) COVEY_TRY(registry.load_plugin(config.strategy.plugin));
  // A wrong name or parameter is better told now than by every device in turn.
  COVEY_TRY([&]() -> Result<void> {
    auto made = registry.make(config.strategy.name, config.strategy.parameters);
    if (!made.ok()) return made.error();
    return {};
  }());
  return registry;
}

}  // namespace covey::simulation
