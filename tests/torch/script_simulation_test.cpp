// A TorchScript network in a whole run: the coordinator, the devices and the evaluation.
#include <catch2/catch.hpp>
#include <covey/simulation/simulate.hpp>

#include "script_models.hpp"

using namespace covey;
using namespace covey::torch_tests;

namespace {

RunConfig run_of(const std::string& path) {
  RunConfig config;
  config.seed = 11;
  config.num_rounds = 4;
  config.model.preset.clear();
  config.model.torchscript = path;
  config.data.max_examples = 100;
  config.partition.scheme = "natural";
  config.partition.clients = 12;
  config.client.learning_rate = 0.05;
  config.selection.fraction_fit = 0.5;
  return config;
}

simulation::ModelSource source_of(const std::string& path) {
  auto script = covey::torch::load_script(path, covey::torch::Device::kCpu).value();
  simulation::ModelSource source;
  source.make_engine = script.make_engine;
  source.torchscript_parameters = [initial = script.initial_parameters](const ModelSpec&) {
    return initial();
  };
  return source;
}

simulation::SimulationResult run(const simulation::Experiment& experiment, unsigned threads) {
  const auto registry = strategies::Registry::with_built_ins();
  simulation::SimulationOptions options;
  options.threads = threads;
  auto result = simulation::simulate(experiment, registry, options);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  REQUIRE(result->committed == 4);
  return std::move(*result);
}

}  // namespace

TEST_CASE("A run of a TorchScript network has the same bits on one and on three threads") {
  const TemporaryFolder folder;
  // Dropout, so that the threads also share libtorch's generator.
  const std::string path = save_dropout(folder.file("net.pt"), 60, 10);
  auto experiment = simulation::load_experiment(run_of(path), "", source_of(path));
  INFO((experiment.ok() ? "" : experiment.error().message));
  REQUIRE(experiment.ok());
  const auto alone = run(*experiment, 1);
  const auto together = run(*experiment, 3);
  CHECK(alone.model.digest() == together.model.digest());
  CHECK(alone.train_steps == together.train_steps);
  REQUIRE(alone.rounds.back().loss.has_value());
  CHECK(alone.rounds.back().loss == together.rounds.back().loss);
  CHECK(*alone.rounds.back().loss < *alone.rounds.front().loss);
}

TEST_CASE("A run begins with the weights in the file") {
  const TemporaryFolder folder;
  const std::string path = save_dense(folder.file("net.pt"), 60, 8, 10);
  auto experiment = simulation::load_experiment(run_of(path), "", source_of(path));
  REQUIRE(experiment.ok());
  const ParameterVector model = experiment->initial_model();
  const ParameterVector file = source_of(path).torchscript_parameters({}).value();
  CHECK(sha256(std::as_bytes(model.span())) == sha256(std::as_bytes(file.span())));
}

TEST_CASE("A run whose data do not fit the TorchScript network is refused before it begins") {
  const TemporaryFolder folder;
  const std::string path = save_dense(folder.file("net.pt"), 61, 8, 10);
  const auto experiment = simulation::load_experiment(run_of(path), "", source_of(path));
  REQUIRE_FALSE(experiment.ok());
  CHECK_THAT(experiment.error().message, Catch::Contains("[2, 60]") && Catch::Contains("net.pt"));
}
