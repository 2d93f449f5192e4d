#include <covey/simulation/experiment.hpp>

#include <algorithm>

#include <covey/assert.hpp>
#include <covey/encoding.hpp>

#include <covey/privacy/neighbourhood.hpp>
#include <covey/simulation/partition.hpp>

#include "run_model.hpp"

namespace covey::simulation {

namespace {

/// Network, layout and initial parameters. An engine is made and dropped: what it refuses is better told
/// now than by every device in turn.
Result<void> plan_model(Experiment& experiment, const TrainingPlan& plan, const ModelSource& source) {
  COVEY_ASSIGN(const auto engine, source.make_engine(plan.model, plan.precision));
  COVEY_TRY(check_fit(plan.model, engine->data_shape(), experiment.data.train));
  std::size_t batch = plan.batch_size;
  if (batch == 0) {  // all of a device's examples
    for (const models::Shard& shard : experiment.shards) batch = std::max(batch, shard.train.size());
  }
  if (const auto trains = engine->check_training(plan.optimizer, batch); !trains.ok()) {
    return with_context("client", trains.error());
  }
  experiment.make_engine = source.make_engine;
  experiment.layout = engine->layout();
  if (plan.model.torchscript.empty()) {
    COVEY_ASSIGN(experiment.network, models::make_network(plan.model, plan.precision));
    return {};
  }
  if (!source.torchscript_parameters) {
    return failed("this program cannot read the parameters of a TorchScript file");
  }
  COVEY_ASSIGN(experiment.torchscript_parameters, source.torchscript_parameters(plan.model));
  if (experiment.torchscript_parameters.size() != experiment.layout.size()) {
    return failed("the TorchScript file brings " +
                  std::to_string(experiment.torchscript_parameters.size()) +
                  " parameters, its network has " + std::to_string(experiment.layout.size()));
  }
  return {};
}

/// Under differential privacy nobody may foresee who is drawn in a round. In a simulation that follows from
/// the run's seed, so devices are given another one; a deployed server draws by a secret of its own.
std::uint64_t seed_for_devices(std::uint64_t seed) {
  const std::string text = "covey: the devices' seed of run " + std::to_string(seed);
  const Digest digest = sha256(std::as_bytes(std::span(text)));
  std::uint64_t derived = 0;
  for (int i = 0; i < 8; ++i) derived = derived << 8 | digest.bytes[static_cast<std::size_t>(i)];
  return derived;
}

Result<Experiment> assemble(const RunConfig& config, const std::string& data_directory,
                            models::FederatedData data, std::vector<models::Shard> shards,
                            const ModelSource& source) {
  COVEY_ASSIGN(const ModelSpec spec, run_model(config, data.train, data_directory));

  TrainingPlan plan;
  plan.strategy = config.strategy.name;
  plan.strategy_parameters = config.strategy.parameters;
  plan.model = spec;
  plan.local_epochs = config.client.local_epochs;
  plan.batch_size = config.client.batch_size;
  plan.learning_rate = static_cast<float>(learning_rate_of(config, 1));  // later rounds: the server
  plan.optimizer = config.client.optimizer;
  plan.seed = config.seed;
  plan.accept_partial_work = config.client.accept_partial_work;
  plan.precision = config.client.precision;
  plan.compressor = compressor_of(config);
  plan.max_update_norm = config.selection.max_update_norm;

  const auto population = static_cast<std::uint32_t>(shards.size());
  COVEY_ASSIGN(plan.secure_aggregation,
               secure_aggregation_plan_of(config,
                                          server::largest_cohort(config.selection, population)));
  if (config.privacy.mechanism != "none") plan.seed = seed_for_devices(config.seed);
  const std::uint32_t wanted =
      std::max(config.selection.min_available_clients, config.selection.min_fit_clients);
  if (wanted > population) {
    return invalid_argument("selection asks for " + std::to_string(wanted) +
                            " clients, the partition has " + std::to_string(population));
  }
  Experiment experiment;
  experiment.data = std::move(data);
  experiment.shards = std::move(shards);
  if (const auto planned = plan_model(experiment, plan, source); !planned.ok()) {
    const std::string& file = config.model.torchscript;
    return file.empty() ? planned.error() : with_context(file, planned.error());
  }
  experiment.config = config;
  experiment.plan = std::move(plan);
  return experiment;
}

}  // namespace

Result<Experiment> load_experiment(const RunConfig& config, const std::string& data_directory,
                                   const ModelSource& source) {
  COVEY_ASSIGN(models::FederatedData data, models::load_data(config, data_directory));
  COVEY_ASSIGN(std::vector<models::Shard> shards, partition(data, config.partition, config.seed));
  return assemble(config, data_directory, std::move(data), std::move(shards), source);
}

Result<Experiment> load_server_experiment(const RunConfig& config,
                                          const std::string& data_directory,
                                          const ModelSource& source) {
  if (config.data.source != "mnist") return load_experiment(config, data_directory, source);
  auto data = models::load_data(config, data_directory, models::DataParts::kTestOnly);
  if (!data.ok()) {
    if (data.error().code != ErrorCode::kNotFound) return data.error();
    data = models::FederatedData{};
    COVEY_ASSIGN(data->train, models::DataSet::from_bytes({28, 28, 1}, {}, 1.0f / 255, {}, 10));
  }
  return assemble(config, data_directory, std::move(*data), std::vector<models::Shard>(config.partition.clients),
                  source);
}

ParameterVector Experiment::initial_model() const {
  if (!network) return torchscript_parameters.clone();
  ParameterVector model(layout.size());
  network->initialise(model.span(), RandomStream(config.seed, RandomPurpose::kModelInitialisation));
  return model;
}

double Experiment::training_flops_per_example() const {
  if (network) return network->training_flops_per_example();
  // A multiplication and an addition per weight, forward and twice backward: what dense layers take.
  // Convolutions take more, which a TorchScript file does not tell.
  return 6.0 * static_cast<double>(layout.size());
}

Result<void> Experiment::check_strategy(const strategies::Strategy& strategy) const {
  if (strategy.sends_difference()) return {};
  COVEY_ASSIGN(const auto engine, make_engine(plan.model, plan.precision));
  if (engine->initial().size() == layout.size() && engine->trained().size() == layout.size()) {
    return {};
  }
  return invalid_argument("strategy " + std::string(strategy.name()) +
                          " makes updates from fp32 weights, which training in " + plan.precision +
                          " does not keep; set client.precision to fp32");
}

Result<ServerParts> make_server_parts(const Experiment& experiment,
                                      std::unique_ptr<strategies::Strategy> strategy,
                                      ServerStart start) {
  COVEY_TRY(experiment.check_strategy(*strategy));
  const RunConfig& config = experiment.config;
  const std::size_t num_scalars = strategy->num_scalars();
  TrainingPlan plan = experiment.plan;
  privacy::PrivateRelease::Run run;
  run.config = config.privacy;
  run.selection = config.selection;
  run.secure_aggregation = plan.secure_aggregation;
  run.num_rounds = config.num_rounds;
  run.population = experiment.population();
  run.dimension = experiment.layout.size();
  run.sum_strategy = dynamic_cast<strategies::SumStrategy*>(strategy.get()) != nullptr;
  run.num_scalars = num_scalars;
  run.strategy = std::string(strategy->name());
  COVEY_ASSIGN(auto release, privacy::PrivateRelease::make(run));
  if (release) plan.privacy = release->device_plan();
  if (plan.secure_aggregation.enabled()) {
    const auto possible =
        privacy::neighbourhood_for(std::max(plan.secure_aggregation.max_devices, 2U),
                                   plan.secure_aggregation,
                                   privacy::security_of(plan.secure_aggregation));
    if (!possible.ok()) return with_context("secure-aggregation", possible.error());
  }
  COVEY_ASSIGN(auto format,
               server::UpdatePipeline::Format::of(plan, experiment.layout, num_scalars));

  server::CoordinatorOptions coordinator;
  coordinator.config = config;
  coordinator.plan = plan;
  coordinator.population = experiment.population();
  coordinator.num_scalars = format.reported_scalars(num_scalars);
  coordinator.update_size = format.update_size();
  coordinator.evaluates = !experiment.data.test.empty();
  coordinator.make_aggregation_id = std::move(start.make_aggregation_id);
  COVEY_ASSIGN(auto pipeline,
               server::UpdatePipeline::make(
                   std::move(strategy), std::move(start.model), std::move(start.state),
                   std::move(format),
                   {std::move(release), std::move(start.secrets), start.threads}));
  return ServerParts{std::move(pipeline), std::move(coordinator)};
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
