#include <covey/simulation/simulate.hpp>

#include <algorithm>
#include <chrono>

#include "fleet.hpp"

namespace covey::simulation {
namespace {

/// Streams of seeded_secrets that are no device's.
constexpr std::uint64_t kServerNoise = 1;

/// Names need not be secret, only different.
AggregationId aggregation_id(std::uint64_t seed, std::uint64_t count) {
  AggregationId id;
  for (std::size_t i = 0; i < 8; ++i) {
    id.bytes[i] = static_cast<std::uint8_t>(seed >> (8 * i));
    id.bytes[8 + i] = static_cast<std::uint8_t>(count >> (8 * i));
  }
  return id;
}

}  // namespace

Result<SimulationResult> simulate(const Experiment& experiment, const strategies::Registry& registry,
                                  const SimulationOptions& options) {
  const RunConfig& config = experiment.config;
  COVEY_ASSIGN(auto strategy, registry.make(config.strategy.name, config.strategy.parameters));
  ServerStart start;
  start.model = experiment.initial_model();
  start.secrets = privacy::seeded_secrets(config.seed, {}, {}, kServerNoise);
  start.make_aggregation_id = [seed = config.seed, count = std::uint64_t{0}]() mutable {
    return aggregation_id(seed, ++count);
  };
  start.threads = options.threads;
  COVEY_ASSIGN(ServerParts parts, make_server_parts(experiment, std::move(strategy), std::move(start)));

  const FleetConfig& fleet = config.fleet;
  if (fleet.up_mbit_s_max == 0 && fleet.down_mbit_s_max == 0) {
    // On links of unlimited bandwidth pieces change nothing but the number of events: whole blobs then
    // travel as one chunk, which is shared and never copied.
    const std::size_t largest =
        std::max<std::size_t>(4 * experiment.layout.size(), parts.coordinator.update_size);
    parts.coordinator.config.server.chunk_bytes =
        std::max(config.server.chunk_bytes,
                 static_cast<std::uint32_t>(std::min<std::size_t>(largest, UINT32_MAX / 8)));
  }
  server::RunState state;
  state.run = static_cast<RunId>(RandomStream(config.seed, RandomPurpose::kRunId).next_u64());
  state.model = parts.pipeline.encoded_model();
  state.privacy = parts.pipeline.privacy_status();
  COVEY_ASSIGN(auto evaluator,
               Evaluator::make(experiment.plan, experiment.make_engine, options.threads));
  COVEY_ASSIGN(auto identities, DeviceIdentities::make(experiment));
  parts.coordinator.authority = identities.authority();

  Fleet devices(experiment, registry, options,
                {std::move(parts.pipeline), std::move(parts.coordinator), std::move(state),
                 std::move(evaluator), std::move(identities)});
  const auto began = std::chrono::steady_clock::now();
  auto result = devices.run();
  if (result.ok()) {
    result->wall_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }
  return result;
}

}  // namespace covey::simulation
