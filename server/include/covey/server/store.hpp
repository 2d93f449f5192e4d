#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <covey/bytes.hpp>
#include <covey/ids.hpp>
#include <covey/metrics.hpp>
#include <covey/result.hpp>

namespace covey::server {

/// What a store remembers of a run.
struct StoredRun {
  RunId run{};
  std::string config_toml;             ///< resolved configuration
  RoundNumber round{};                 ///< last committed round
  SharedBytes model;                   ///< fp32 parameters after it
  std::vector<float> strategy_state;
};

/// The server's memory on disk: SQLite in WAL mode with synchronous=FULL, so a commit that returned
/// survives SIGKILL and power loss. Tables: meta (schema version), run, clients, rounds, snapshots.
/// One thread at a time.
class Store {
 public:
  /// Opens or makes `path`. Error: not a store, of another version, locked by another server, unwritable.
  static Result<Store> open(const std::string& path);
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();

  /// The run this store holds, if any. Error if its last model does not match its hash.
  Result<std::optional<StoredRun>> load_run();
  /// Begins a run with its initial model (round 0). Error if the store holds one already.
  Result<void> begin_run(const StoredRun& run);
  /// One transaction: metrics, model, strategy state; keeps the newest `keep_snapshots` models.
  Result<void> commit_round(const RoundMetrics& metrics, const SharedBytes& model,
                            const std::vector<float>& strategy_state, std::uint32_t keep_snapshots);
  /// A round that was abandoned: metrics only.
  Result<void> record_abandoned(const RoundMetrics& metrics);
  /// Evaluation figures of a committed round, which come after its commit.
  Result<void> record_evaluation(RoundNumber round, double accuracy, double loss);
  Result<std::vector<RoundMetrics>> load_metrics();
  /// Remembers that a device was here (wall-clock seconds since 1970).
  Result<void> touch_client(ClientId client, std::int64_t unix_seconds, const std::string& agent_version);

 private:
  struct Database;
  explicit Store(std::unique_ptr<Database> database);
  std::unique_ptr<Database> database_;
};

}  // namespace covey::server
