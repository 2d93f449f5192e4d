#pragma once

#include <covey/bytes.hpp>
#include <covey/ids.hpp>
#include <covey/metrics.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace covey::server {

/// What a store remembers of a run.
struct StoredRun {
  RunId run{};
  std::string config_toml;  ///< resolved configuration
  RoundNumber round{};      ///< last committed round
  SharedBytes model;        ///< fp32 parameters after it
  std::vector<float> strategy_state;
};

/// The server's memory on disk: SQLite in WAL mode with synchronous=FULL, so a commit that returned
/// survives SIGKILL and power loss. Tables: meta (schema version), run, clients, rounds, snapshots.
/// A call that returns an Error changed nothing, and the store can be used again (a full disk: once
/// there is space). One thread at a time.
class Store {
 public:
  /// Opens or makes `path`, and holds `path`.lock until it is destroyed. A store of version 2 is
  /// brought to our own. Error: not a store, of another version, locked by another server,
  /// unwritable. A file that is not a store is not touched.
  static Result<Store> open(const std::string& path);
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();

  /// The run this store holds, if any. Error if its last model does not match its hash.
  Result<std::optional<StoredRun>> load_run();
  /// Begins a run with its initial model (round 0). Error if the store holds one already, or if the
  /// model is larger than a row can be (10^9 bytes: 250 million parameters).
  Result<void> begin_run(const StoredRun& run);
  /// One transaction: metrics, model, strategy state, and this participation for each of
  /// `participants`; keeps the newest `keep_snapshots` models (at least this one). Error unless the
  /// round comes after the last committed one.
  Result<void> commit_round(const RoundMetrics& metrics, const SharedBytes& model,
                            const std::vector<float>& strategy_state, std::uint32_t keep_snapshots,
                            const std::vector<ClientId>& participants = {});
  /// How many committed rounds each device was a participant of.
  Result<std::map<ClientId, std::uint32_t>> load_participations();
  /// The last of these rounds. Who took part only while an older covey kept the store is not here.
  Result<std::map<ClientId, RoundNumber>> load_last_rounds();
  /// A round that was abandoned: metrics only. Its number may be tried again, and abandoned again.
  Result<void> record_abandoned(const RoundMetrics& metrics);
  /// Evaluation figures of a committed round, which come after its commit.
  Result<void> record_evaluation(RoundNumber round, double accuracy, double loss);
  /// In the order in which the rounds ended.
  Result<std::vector<RoundMetrics>> load_metrics();
  /// Remembers that a device was here (wall-clock seconds since 1970). Not flushed to the disk at
  /// once: a power loss may forget the last ones.
  Result<void> touch_client(ClientId client, std::int64_t unix_seconds,
                            const std::string& agent_version);

 private:
  struct Database;
  explicit Store(std::unique_ptr<Database> database);
  std::unique_ptr<Database> database_;
};

}  // namespace covey::server
