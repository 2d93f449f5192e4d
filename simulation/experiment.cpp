#include <covey/simulation/experiment.hpp>

#include <algorithm>
#include <cmath>
#include <cmath>

#include <covey/assert.hpp>
#include <covey/encoding.hpp>

#include <covey/privacy/neighbourhood.hpp>
#include <covey/server/asynchronous.hpp>
#include <covey/server/plan_variants.hpp>
#include <covey/simulation/partition.hpp>

#include "attack.hpp"
#include "run_model.hpp"

namespace covey::simulation {

namespace {

/// Network, layout and initial parameters. An engine is made and dropped: what it refuses is better told
/// now than by every device in turn.
Result<void> plan_model(Experiment& experiment, const TrainingPlan& plan, const ModelSource& source) {
  COVEY_ASSIGN(const auto engine, source.make_engine(plan.model, plan.precision));
  COVEY_TRY(check_fit(plan.model, engine->data_shape(), experiment.data.train));
  std::size_t batch = plan.batch_size;
  if (batch == 0) batch = static_cast<std::size_t>(experiment.largest_num_examples());
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

/// What a run's devices hold.
struct Holdings {
  models::FederatedData data;
  std::vector<models::Shard> shards;
  std::optional<models::SyntheticSource> generated;
};

// From so many devices on, or so many examples expected (1 GiB of features), synthetic data are not kept.
constexpr std::uint32_t kManyDevices = 50'000;
constexpr double kManyExamples = 4.0 * (1 << 20);

bool generate_on_demand(const RunConfig& config) {
  const DataConfig& data = config.data;
  if (data.source != "synthetic" || config.partition.scheme != "natural") return false;
  if (data.on_demand != "auto") return data.on_demand == "always";
  // The mean of a log-normal draw, and the 50 that every device has (models/data/synthetic.cpp).
  double mean = 50 + std::exp(data.size_mean + data.size_spread * data.size_spread / 2);
  if (data.max_examples > 0) mean = std::min<double>(mean, data.max_examples);
  const std::uint32_t devices = config.partition.clients;
  return devices > kManyDevices || devices * mean > kManyExamples;
}

Result<Holdings> hold(const RunConfig& config, const std::string& data_directory) {
  Holdings holdings;
  if (generate_on_demand(config)) {
    COVEY_ASSIGN(holdings.generated, models::SyntheticSource::make(
                                         config.data, config.partition.clients, config.seed));
    COVEY_ASSIGN(holdings.data,
                 holdings.generated->test_of_first(Experiment::kTestedDevices,
                                                   Experiment::kTestedExamples));
    return holdings;
  }
  COVEY_ASSIGN(holdings.data, models::load_data(config, data_directory));
  COVEY_ASSIGN(holdings.shards, partition(holdings.data, config.partition, config.seed));
  return holdings;
}

/// Devices that hold nothing are said, and nobody waits for them.
Result<void> check_population(Experiment& experiment, const RunConfig& config) {
  const SelectionConfig& selection = config.selection;
  if (!experiment.generated && !experiment.data.train.empty()) {
    experiment.empty_devices = static_cast<std::uint32_t>(std::ranges::count_if(
        experiment.shards, [](const models::Shard& shard) { return shard.train.empty(); }));
  }
  const std::uint32_t population = experiment.population();
  const std::uint32_t with_data = experiment.population_with_data();
  if (experiment.empty_devices > 0) {
    experiment.notices.push_back(std::to_string(experiment.empty_devices) + " of " +
                                 std::to_string(population) +
                                 " devices have no training example and take no part "
                                 "(partition.empty = \"keep\")");
  }
  if (experiment.generated && population > experiment.data.owners.size()) {
    experiment.notices.push_back(
        "examples are generated when a device trains; accuracy is that of the held-out examples of "
        "the first " +
        std::to_string(experiment.data.owners.size()) + " devices");
  }
  const std::string there = std::to_string(with_data) +
                            (with_data < population ? " devices that hold training examples" : " devices");
  const auto too_many = [&](const char* key, std::uint32_t wanted) {
    return invalid_argument(std::string(key) + " = " + std::to_string(wanted) + ": the partition has " + there);
  };
  if (selection.min_available_clients > with_data) {
    return too_many("selection.min-available-clients", selection.min_available_clients);
  }
  if (selection.min_fit_clients > with_data) {
    return too_many("selection.min-fit-clients", selection.min_fit_clients);
  }
  if (config.asynchronous.enabled() || selection.policy == "poisson") return {};
  SelectionConfig just_enough = selection;
  just_enough.over_selection = 1;
  const std::uint32_t goal = server::largest_cohort(just_enough, with_data);
  const auto asked = static_cast<std::uint64_t>(std::ceil(goal * selection.over_selection - 1e-9));
  if (asked > with_data) {
    return invalid_argument("selection.over-selection: " + std::to_string(asked) +
                            " devices would be asked for a round of " + std::to_string(goal) +
                            "; the partition has " + there);
  }
  if (asked > selection.max_waiting) {
    return invalid_argument("selection.max-waiting = " + std::to_string(selection.max_waiting) +
                            ": a round is drawn from those who wait, and asks " +
                            std::to_string(asked) + " devices");
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
                            Holdings holdings, const ModelSource& source) {
  Experiment experiment;
  experiment.data = std::move(holdings.data);
  experiment.shards = std::move(holdings.shards);
  experiment.generated = std::move(holdings.generated);
  COVEY_TRY(check_population(experiment, config));
  COVEY_ASSIGN(const ModelSpec spec,
               run_model(config, experiment.data.train, data_directory));

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

  COVEY_ASSIGN(plan.secure_aggregation,
               secure_aggregation_plan_of(
                   config, server::largest_cohort(config.selection, experiment.population())));
  if (config.privacy.mechanism != "none") plan.seed = seed_for_devices(config.seed);
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
  COVEY_ASSIGN(Holdings holdings, hold(config, data_directory));
  COVEY_ASSIGN(Experiment experiment,
               assemble(config, data_directory, std::move(holdings), source));
  COVEY_ASSIGN(experiment.attack, Attack::make(experiment));
  if (experiment.attack) {
    const std::uint32_t attackers = num_attackers(config.attack, experiment.population());
    experiment.notices.push_back(std::to_string(attackers) + " of " +
                                 std::to_string(experiment.population()) +
                                 " devices are Byzantine: " + config.attack.kind);
  }
  return experiment;
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
  return assemble(config, data_directory,
                  {std::move(*data), std::vector<models::Shard>(config.partition.clients), {}}, source);
}

std::uint64_t Experiment::num_examples(ClientId client) const {
  if (generated) return generated->num_train(client);
  return shards[static_cast<std::size_t>(value_of(client))].train.size();
}

std::uint64_t Experiment::largest_num_examples() const {
  std::uint64_t largest = 0;
  for (std::uint32_t k = 0; k < population(); ++k) {
    largest = std::max(largest, num_examples(static_cast<ClientId>(k)));
  }
  return largest;
}

Experiment::Examples Experiment::training_examples(ClientId client, Scratch& scratch) const {
  if (generated) {
    generated->train(client, scratch.data, scratch.indices);
    return {&scratch.data, scratch.indices};
  }
  return {&data.train, shards[static_cast<std::size_t>(value_of(client))].train};
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

namespace {

/// What an engine refuses of a class's plan is better told now than by each of its devices.
Result<void> check_training(const Experiment& experiment, const server::PlanVariant& variant) {
  const auto engine = experiment.make_engine(variant.model, variant.precision);
  if (!engine.ok()) return engine.error();
  std::size_t batch = variant.batch_size;
  if (batch == 0) batch = static_cast<std::size_t>(experiment.largest_num_examples());
  return (*engine)->check_training(experiment.plan.optimizer, batch);
}

/// Null where no class of devices has a plan of its own.
Result<std::shared_ptr<const server::PlanVariants>> make_variants(
    const Experiment& experiment, const TrainingPlan& plan, const strategies::Strategy& strategy) {
  if (experiment.config.client.classes.empty()) {
    return std::shared_ptr<const server::PlanVariants>();
  }
  COVEY_ASSIGN(auto variants, server::PlanVariants::make(experiment.config, plan, experiment.layout,
                                                         strategy));
  for (std::uint32_t number = 1; number < variants.size(); ++number) {
    if (const auto trains = check_training(experiment, variants[number]); !trains.ok()) {
      return with_context("client.class." + variants[number].device_class, trains.error());
    }
  }
  return std::make_shared<const server::PlanVariants>(std::move(variants));
}

}  // namespace

Result<ServerParts> make_server_parts(const Experiment& experiment,
                                      std::unique_ptr<strategies::Strategy> strategy,
                                      ServerStart start) {
  COVEY_TRY(experiment.check_strategy(*strategy));
  const RunConfig& config = experiment.config;
  COVEY_TRY(check_selection(config));
  COVEY_TRY(server::check_participation_limits(config, experiment.population_with_data()));
  COVEY_TRY(server::check_asynchronous(config, *strategy, experiment.population_with_data()));
  const std::size_t num_scalars = strategy->num_scalars();
  const auto* sum_strategy = dynamic_cast<strategies::SumStrategy*>(strategy.get());
  TrainingPlan plan = experiment.plan;
  privacy::PrivateRelease::Run run;
  run.config = config.privacy;
  run.selection = config.selection;
  if (config.asynchronous.enabled()) {  // a release is of the buffer's updates
    run.selection.fraction_fit = 0;
    run.selection.min_fit_clients = config.asynchronous.buffer;
  }
  run.secure_aggregation = plan.secure_aggregation;
  run.num_rounds = config.num_rounds;
  run.population = experiment.population_with_data();
  run.dimension = experiment.layout.size();
  run.sum_strategy = sum_strategy != nullptr;
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
               server::UpdatePipeline::Format::of(plan, experiment.layout, num_scalars,
                                                  compressors_of(config)));
  COVEY_ASSIGN(format.variants, make_variants(experiment, plan, *strategy));
  COVEY_ASSIGN(format.sending, server::ModelSending::of(config, plan));
  if (!start.devices_keep_models) format.sending.history = 0;
  format.asynchronous = config.asynchronous;
  format.adaptive_clip = adapts_clip(config);

  server::CoordinatorOptions coordinator;
  coordinator.config = config;
  coordinator.plan = plan;
  coordinator.population = experiment.population_with_data();
  coordinator.num_scalars = format.reported_scalars(num_scalars);
  coordinator.compressors = format.compressors;
  coordinator.evaluates = !experiment.data.test.empty();
  coordinator.variants = format.variants;
  coordinator.needs_base = sum_strategy != nullptr && sum_strategy->needs_base();
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
