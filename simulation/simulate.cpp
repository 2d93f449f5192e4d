#include <algorithm>
#include <chrono>
#include <covey/simulation/simulate.hpp>
#include <memory>

#include "counted_secrets.hpp"
#include "feasibility.hpp"
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

/// On links of unlimited bandwidth pieces change nothing but the number of events: whole blobs then
/// travel as one chunk, which is shared and never copied.
void send_whole_blobs(const Experiment& experiment, server::CoordinatorOptions& options) {
  std::size_t largest = 4 * experiment.layout.size();
  for (const auto& offered : options.compressors) {
    largest = std::max(largest, offered.sizes.max);
  }
  options.config.server.chunk_bytes =
      std::max(options.config.server.chunk_bytes,
               static_cast<std::uint32_t>(std::min<std::size_t>(largest, UINT32_MAX / 8)));
}

/// What a server process does when it starts, whichever of its lives this is.
class ServerStarter {
 public:
  ServerStarter(const Experiment& experiment, const strategies::Registry& registry,
                unsigned threads, std::optional<privacy::AuthorityKey> authority, bool whole_blobs)
      : experiment_(experiment),
        registry_(registry),
        threads_(threads),
        authority_(std::move(authority)),
        whole_blobs_(whole_blobs) {}

  Result<SimulatedServer> operator()(const std::optional<server::StoredStanding>& standing) {
    const RunConfig& config = experiment_.config;
    ServerStart start;
    start.model = experiment_.initial_model();
    if (standing) {
      COVEY_TRY(decode_fp32(standing->run.model.span(), start.model.span()));
      start.state = standing->run.strategy_state;
    }
    start.secrets = noise_of_life((*lives_)++);  // noise of an earlier life must not come again
    COVEY_ASSIGN(ServerParts parts, parts_of(std::move(start)));
    if (whole_blobs_) send_whole_blobs(experiment_, parts.coordinator);
    request_bytes = parts.coordinator.config.server.chunk_bytes;
    server::RunState state;
    if (standing) {
      state = server::run_state(*standing, parts.pipeline);
    } else {
      state.run = static_cast<RunId>(RandomStream(config.seed, RandomPurpose::kRunId).next_u64());
      state.model = parts.pipeline.encoded_model();
      state.privacy = parts.pipeline.privacy_status();
    }
    parts.coordinator.authority = authority_;
    return SimulatedServer{std::move(parts.pipeline),
                           server::RoundCoordinator(std::move(parts.coordinator), std::move(state)),
                           server::make_memory_spool()};
  }

  /// The pipeline as it was at a snapshot of the server's only life.
  Result<server::UpdatePipeline> put_back(const Snapshot& snapshot) {
    ServerStart start;
    start.model = experiment_.initial_model();
    COVEY_TRY(decode_fp32(snapshot.parameters.back().bytes.span(), start.model.span()));
    start.state = snapshot.state;
    auto noise = noise_of_life(0);
    COVEY_TRY(noise->skip_to(snapshot.noise_bytes));
    start.secrets = std::move(noise);
    COVEY_ASSIGN(ServerParts parts, parts_of(std::move(start)));
    return std::move(parts.pipeline);
  }

  std::uint32_t request_bytes = 0;  ///< the chunks that it was started with
  /// Drawn from the noise of the life at hand.
  std::shared_ptr<std::uint64_t> noise_bytes = std::make_shared<std::uint64_t>(0);

 private:
  std::unique_ptr<CountedSecrets> noise_of_life(std::uint32_t life) {
    *noise_bytes = 0;
    return std::make_unique<CountedSecrets>(
        privacy::seeded_secrets(experiment_.config.seed, RoundNumber{life}, {}, kServerNoise),
        noise_bytes);
  }

  Result<ServerParts> parts_of(ServerStart start) {
    const RunConfig& config = experiment_.config;
    COVEY_ASSIGN(auto strategy, registry_.make(config.strategy.name, config.strategy.parameters));
    start.make_aggregation_id = [seed = config.seed, count = aggregations_] {
      return aggregation_id(seed, ++*count);
    };
    start.threads = threads_;
    start.devices_keep_models = config.fleet.keep_model;
    return make_server_parts(experiment_, std::move(strategy), std::move(start));
  }

  const Experiment& experiment_;
  const strategies::Registry& registry_;
  unsigned threads_;
  std::optional<privacy::AuthorityKey> authority_;
  bool whole_blobs_;
  std::shared_ptr<std::uint32_t> lives_ = std::make_shared<std::uint32_t>(0);
  std::shared_ptr<std::uint64_t> aggregations_ = std::make_shared<std::uint64_t>(0);
};

}  // namespace

namespace {

/// The run's journal, where it is to have one.
Result<std::unique_ptr<RunJournal>> open_journal(const RunConfig& config,
                                                 const SimulationOptions& options) {
  if (options.journal_folder.empty()) return std::unique_ptr<RunJournal>();
  if (config.fleet.keep_model) {
    if (!options.resume) return std::unique_ptr<RunJournal>();
    return invalid_argument(
        "a run whose devices keep their models (fleet.keep-model) is not written down and cannot go on: "
        "models of the past would have to be as well; run it again, its seed repeats it");
  }
  if (config.faults.seed != 0) {
    if (!options.resume) return std::unique_ptr<RunJournal>();
    return invalid_argument(
        "a run with faults ([faults] seed) is not written down and cannot go on; run it again, its "
        "seed "
        "repeats it");
  }
  if (options.resume && options.check_invariants) {
    return invalid_argument(
        "invariants are checked from a run's beginning: what was computed before it stopped is not "
        "seen "
        "again when it goes on");
  }
  RunJournal::Options journal;
  journal.folder = options.journal_folder;
  journal.resume = options.resume;
  const std::string text = to_toml(config);
  journal.run = sha256(std::as_bytes(std::span(text)));
  if (config.asynchronous.enabled()) journal.max_staleness = config.asynchronous.max_staleness;
  journal.copies_messages = config.fleet.codec;
  journal.snapshot_pause = options.snapshot_pause;
  journal.stop = options.stop;
  return RunJournal::open(std::move(journal));
}

}  // namespace

Result<SimulationResult> simulate(const Experiment& experiment,
                                  const strategies::Registry& registry,
                                  const SimulationOptions& options) {
  COVEY_ASSIGN(auto models, DeviceModels::make(experiment.config, options.data_directory,
                                               experiment.population()));
  COVEY_TRY(check_deadline(experiment, models));
  COVEY_TRY(check_memory(experiment, models));
  COVEY_ASSIGN(auto identities, DeviceIdentities::make(experiment));
  ServerStarter starter(experiment, registry, options.threads, identities.authority(),
                        !models.has_bandwidths());
  COVEY_ASSIGN(auto server, starter(std::nullopt));
  COVEY_ASSIGN(auto evaluator,
               Evaluator::make(experiment.plan, experiment.make_engine, options.threads));
  COVEY_ASSIGN(auto journal, open_journal(experiment.config, options));
  Fleet::Parts parts{
      starter,
      std::move(server),
      std::move(evaluator),
      std::move(identities),
      std::move(models),
      starter.request_bytes,
      std::move(journal),
      [starter](const Snapshot& snapshot) mutable { return starter.put_back(snapshot); },
      starter.noise_bytes};
  Fleet fleet(experiment, registry, options, std::move(parts));
  auto result = fleet.run();
  if (result.ok() && result->finished && !options.journal_folder.empty()) {
    RunJournal::remove(options.journal_folder);
  }
  return result;
}

}  // namespace covey::simulation
