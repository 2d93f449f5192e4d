#include <covey/simulation/simulate.hpp>

#include <algorithm>
#include <chrono>

#include "fleet.hpp"

namespace covey::simulation {

Result<SimulationResult> simulate(const Experiment& experiment, const strategies::Registry& registry,
                                  const SimulationOptions& options) {
  const RunConfig& config = experiment.config;
  COVEY_ASSIGN(auto strategy, registry.make(config.strategy.name, config.strategy.parameters));
  COVEY_TRY(experiment.check_strategy(*strategy));
  server::CoordinatorOptions coordinator = experiment.coordinator_options(*strategy);

  ParameterVector model = experiment.initial_model();
  const std::size_t model_bytes = 4 * model.size();
  const FleetConfig& fleet = config.fleet;
  if (fleet.up_mbit_s_max == 0 && fleet.down_mbit_s_max == 0) {
    // On links of unlimited bandwidth pieces change nothing but the number of events: whole blobs then
    // travel as one chunk, which is shared and never copied.
    coordinator.config.server.chunk_bytes =
        std::max(config.server.chunk_bytes, static_cast<std::uint32_t>(
                                                std::min<std::size_t>(model_bytes, UINT32_MAX / 8)));
  }
  server::RunState state;
  state.run = static_cast<RunId>(RandomStream(config.seed, RandomPurpose::kRunId).next_u64());
  COVEY_ASSIGN(auto format,
               server::UpdatePipeline::Format::of(experiment.plan, experiment.layout));
  COVEY_ASSIGN(auto pipeline, server::UpdatePipeline::make(std::move(strategy), std::move(model), {},
                                                           std::move(format)));
  state.model = pipeline.encoded_model();
  COVEY_ASSIGN(auto evaluator,
               Evaluator::make(experiment.plan, experiment.make_engine, options.threads));

  Fleet devices(experiment, registry, options,
                {std::move(pipeline), std::move(coordinator), std::move(state), std::move(evaluator)});
  const auto began = std::chrono::steady_clock::now();
  auto result = devices.run();
  if (result.ok()) {
    result->wall_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }
  return result;
}

}  // namespace covey::simulation
