#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/digest.hpp>
#include <covey/server/store.hpp>
#include <cstring>
#include <limits>
#include <utility>

#include "store_database.hpp"

namespace covey::server {

namespace {

// SQLite's default SQLITE_MAX_LENGTH: a row (model and state) is at most so many bytes; 1 MB is
// left for the row's other columns.
constexpr std::size_t kMaxSnapshotBytes = 1'000'000'000 - 1'000'000;
// Milliseconds to wait for a person's sqlite3 shell that holds the write lock.
constexpr int kBusyTimeoutMs = 5000;

std::int64_t to_column(std::uint64_t value) { return std::bit_cast<std::int64_t>(value); }
std::uint64_t from_column(std::int64_t value) { return std::bit_cast<std::uint64_t>(value); }

std::span<const std::byte> bytes_of(const Digest& digest) {
  return std::as_bytes(std::span(digest.bytes));
}

bool matches(const SQLite::Column& stored, std::span<const std::byte> bytes) {
  const Digest digest = sha256(bytes);
  return std::ranges::equal(blob_of(stored), bytes_of(digest));
}

void bind_optional(SQLite::Statement& statement, int index, const std::optional<double>& value) {
  if (value) {
    statement.bind(index, *value);
  } else {
    statement.bind(index);
  }
}

std::optional<double> optional_of(const SQLite::Column& column) {
  if (column.isNull()) return std::nullopt;
  return column.getDouble();
}

void insert_metrics(SQLite::Database& connection, const RoundMetrics& metrics, bool committed) {
  SQLite::Statement insert(
      connection,
      "INSERT INTO rounds(round, committed, started_us, ended_us, selected, accepted, "
      "rejected, dropped, examples, train_loss, train_steps, bytes_up, bytes_down, "
      "accuracy, loss, secure, masked, recovered, clipped_coordinates, clipped_weights, epsilon, "
      "delta, clip_norm, noise_multiplier, private_figures, rounding_error) "
      "VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  insert.bind(1, value_of(metrics.round));
  insert.bind(2, committed ? 1 : 0);
  insert.bind(3, std::int64_t{metrics.started.time_since_epoch().count()});
  insert.bind(4, std::int64_t{metrics.ended.time_since_epoch().count()});
  insert.bind(5, metrics.selected);
  insert.bind(6, metrics.accepted);
  insert.bind(7, metrics.rejected);
  insert.bind(8, metrics.dropped);
  insert.bind(9, to_column(metrics.examples));
  insert.bind(10, metrics.train_loss);  // SQLite stores a NaN as NULL
  insert.bind(11, to_column(metrics.train_steps));
  insert.bind(12, to_column(metrics.bytes_up));
  insert.bind(13, to_column(metrics.bytes_down));
  bind_optional(insert, 14, metrics.accuracy);
  bind_optional(insert, 15, metrics.loss);
  insert.bind(16, metrics.secure ? 1 : 0);
  insert.bind(17, metrics.masked);
  insert.bind(18, metrics.recovered);
  insert.bind(19, to_column(metrics.clipped_coordinates));
  insert.bind(20, metrics.clipped_weights);
  bind_optional(insert, 21, metrics.epsilon);
  bind_optional(insert, 22, metrics.delta);
  bind_optional(insert, 23, metrics.clip_norm);
  bind_optional(insert, 24, metrics.noise_multiplier);
  insert.bind(25, metrics.private_figures ? 1 : 0);
  bind_optional(insert, 26, metrics.rounding_error);
  insert.exec();
}

RoundMetrics read_metrics(const SQLite::Statement& row) {
  RoundMetrics metrics;
  metrics.round = RoundNumber{row.getColumn(0).getUInt()};
  metrics.committed = row.getColumn(1).getInt() == 1;
  metrics.started = Time(Duration(row.getColumn(2).getInt64()));
  metrics.ended = Time(Duration(row.getColumn(3).getInt64()));
  metrics.selected = row.getColumn(4).getUInt();
  metrics.accepted = row.getColumn(5).getUInt();
  metrics.rejected = row.getColumn(6).getUInt();
  metrics.dropped = row.getColumn(7).getUInt();
  metrics.examples = from_column(row.getColumn(8).getInt64());
  metrics.train_loss =
      optional_of(row.getColumn(9)).value_or(std::numeric_limits<double>::quiet_NaN());
  metrics.train_steps = from_column(row.getColumn(10).getInt64());
  metrics.bytes_up = from_column(row.getColumn(11).getInt64());
  metrics.bytes_down = from_column(row.getColumn(12).getInt64());
  metrics.accuracy = optional_of(row.getColumn(13));
  metrics.loss = optional_of(row.getColumn(14));
  metrics.secure = row.getColumn(15).getInt() == 1;
  metrics.masked = row.getColumn(16).getUInt();
  metrics.recovered = row.getColumn(17).getUInt();
  metrics.clipped_coordinates = from_column(row.getColumn(18).getInt64());
  metrics.clipped_weights = row.getColumn(19).getUInt();
  metrics.epsilon = optional_of(row.getColumn(20));
  metrics.delta = optional_of(row.getColumn(21));
  metrics.clip_norm = optional_of(row.getColumn(22));
  metrics.noise_multiplier = optional_of(row.getColumn(23));
  metrics.private_figures = row.getColumn(24).getInt() == 1;
  metrics.rounding_error = optional_of(row.getColumn(25));
  return metrics;
}

void insert_snapshot(SQLite::Database& connection, RoundNumber round, const SharedBytes& model,
                     const std::vector<float>& state) {
  const Digest model_digest = sha256(model.span());
  const auto state_bytes = std::as_bytes(std::span(state));
  const Digest state_digest = sha256(state_bytes);
  SQLite::Statement insert(connection, "INSERT INTO snapshots VALUES(?,?,?,?,?)");
  insert.bind(1, value_of(round));
  bind_blob(insert, 2, bytes_of(model_digest));
  bind_blob(insert, 3, model.span());
  bind_blob(insert, 4, bytes_of(state_digest));
  bind_blob(insert, 5, state_bytes);
  insert.exec();
}

/// The newest snapshot's round; nothing before a run has begun.
std::optional<RoundNumber> last_committed(SQLite::Database& connection) {
  const SQLite::Column newest = connection.execAndGet("SELECT max(round) FROM snapshots");
  if (newest.isNull()) return std::nullopt;
  return RoundNumber{newest.getUInt()};
}

/// Fills the model and the state from the newest snapshot, verified.
Result<void> load_snapshot(SQLite::Database& connection, const std::string& path, StoredRun& run) {
  SQLite::Statement newest(connection,
                           "SELECT round, model_sha256, model, state_sha256, state "
                           "FROM snapshots ORDER BY round DESC LIMIT 1");
  if (!newest.executeStep()) {
    return malformed(
        fmt::format("the store {} has a run but no model: it is damaged; restore a copy, or "
                    "begin with another store",
                    path));
  }
  run.round = RoundNumber{newest.getColumn(0).getUInt()};
  const auto model = blob_of(newest.getColumn(2));
  const auto state = blob_of(newest.getColumn(4));
  if (!matches(newest.getColumn(1), model) || !matches(newest.getColumn(3), state) ||
      state.size() % sizeof(float) != 0) {
    return malformed(
        fmt::format("the model of round {} in the store {} does not match its SHA-256: the "
                    "file is damaged; restore a copy, or begin with another store",
                    value_of(run.round), path));
  }
  run.model = SharedBytes(std::vector<std::byte>(model.begin(), model.end()));
  run.strategy_state.resize(state.size() / sizeof(float));
  if (!state.empty()) std::memcpy(run.strategy_state.data(), state.data(), state.size());
  return {};
}

}  // namespace

Store::Store(std::unique_ptr<Database> database) : database_(std::move(database)) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

Result<Store> Store::open(const std::string& path) {
  if (path.empty()) return invalid_argument("the path of the store is empty");
  COVEY_ASSIGN(StoreLock lock, StoreLock::acquire(path));
  try {
    auto database = std::unique_ptr<Database>(new Database{
        path, std::move(lock),
        SQLite::Database(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, kBusyTimeoutMs)});
    COVEY_TRY(prepare_schema(database->connection, path));
    return Store(std::move(database));
  } catch (const std::exception& exception) {
    return Database::describe_failure(path, "open", exception);
  }
}

Result<std::optional<StoredRun>> Store::load_run() {
  Database& database = *database_;
  return database.guarded("read the run from", [&]() -> Result<std::optional<StoredRun>> {
    SQLite::Statement row(database.connection, "SELECT run_id, config_toml FROM run");
    if (!row.executeStep()) return std::optional<StoredRun>();
    StoredRun run;
    run.run = RunId{from_column(row.getColumn(0).getInt64())};
    run.config_toml = row.getColumn(1).getString();
    COVEY_TRY(load_snapshot(database.connection, database.path, run));
    return std::optional<StoredRun>(std::move(run));
  });
}

Result<void> Store::begin_run(const StoredRun& run) {
  Database& database = *database_;
  const std::size_t bytes = run.model.size() + run.strategy_state.size() * sizeof(float);
  if (bytes > kMaxSnapshotBytes) {
    return invalid_argument(
        fmt::format("the model and the strategy's state take {} bytes, a store keeps at "
                    "most {} per round",
                    bytes, kMaxSnapshotBytes));
  }
  return database.guarded("begin the run in", [&]() -> Result<void> {
    database.flush_commits();
    SQLite::Transaction transaction(database.connection, SQLite::TransactionBehavior::IMMEDIATE);
    if (database.connection.execAndGet("SELECT count(*) FROM run").getInt() != 0) {
      return failed(
          fmt::format("the store {} holds a run already; give another store", database.path));
    }
    SQLite::Statement insert(database.connection, "INSERT INTO run VALUES(1, ?, ?)");
    insert.bind(1, to_column(value_of(run.run)));
    insert.bind(2, run.config_toml);
    insert.exec();
    insert_snapshot(database.connection, run.round, run.model, run.strategy_state);
    transaction.commit();
    return {};
  });
}

Result<void> Store::commit_round(const RoundMetrics& metrics, const SharedBytes& model,
                                 const std::vector<float>& strategy_state,
                                 std::uint32_t keep_snapshots,
                                 const std::vector<ClientId>& participants) {
  Database& database = *database_;
  return database.guarded("commit the round to", [&]() -> Result<void> {
    database.flush_commits();
    SQLite::Transaction transaction(database.connection, SQLite::TransactionBehavior::IMMEDIATE);
    const auto last = last_committed(database.connection);
    if (!last) return failed(fmt::format("the store {} holds no run to commit to", database.path));
    if (metrics.round <= *last) {
      return failed(
          fmt::format("round {} cannot be committed to the store {}: it is at round {} already",
                      value_of(metrics.round), database.path, value_of(*last)));
    }
    insert_metrics(database.connection, metrics, true);
    insert_snapshot(database.connection, metrics.round, model, strategy_state);
    SQLite::Statement count(database.connection,
                            "INSERT INTO participations VALUES(?1, 1, ?2) ON CONFLICT(client) DO "
                            "UPDATE SET rounds = rounds + 1, last_round = ?2");
    count.bind(2, value_of(metrics.round));
    for (const ClientId client : participants) {
      count.bind(1, to_column(value_of(client)));
      count.exec();
      count.reset();
    }
    SQLite::Statement prune(database.connection,
                            "DELETE FROM snapshots WHERE round NOT IN "
                            "(SELECT round FROM snapshots ORDER BY round DESC LIMIT ?)");
    prune.bind(1, std::max<std::uint32_t>(keep_snapshots, 1));
    prune.exec();
    transaction.commit();
    return {};
  });
}

Result<void> Store::record_abandoned(const RoundMetrics& metrics) {
  Database& database = *database_;
  return database.guarded("record an abandoned round in", [&]() -> Result<void> {
    database.flush_commits();
    insert_metrics(database.connection, metrics, false);
    return {};
  });
}

Result<void> Store::record_evaluation(RoundNumber round, double accuracy, double loss) {
  Database& database = *database_;
  return database.guarded("record an evaluation in", [&]() -> Result<void> {
    SQLite::Statement update(
        database.connection,
        "UPDATE rounds SET accuracy = ?, loss = ? WHERE round = ? AND committed = 1");
    update.bind(1, accuracy);
    update.bind(2, loss);
    update.bind(3, value_of(round));
    if (update.exec() == 0) {
      return failed(
          fmt::format("round {} is not committed in the store {}, so it cannot be given an "
                      "accuracy",
                      value_of(round), database.path));
    }
    return {};
  });
}

Result<std::map<ClientId, std::uint32_t>> Store::load_participations() {
  Database& database = *database_;
  using Participations = std::map<ClientId, std::uint32_t>;
  return database.guarded("read the participations from", [&]() -> Result<Participations> {
    SQLite::Statement row(database.connection, "SELECT client, rounds FROM participations");
    Participations participations;
    while (row.executeStep()) {
      participations[ClientId{from_column(row.getColumn(0).getInt64())}] = row.getColumn(1).getUInt();
    }
    return participations;
  });
}

Result<std::map<ClientId, RoundNumber>> Store::load_last_rounds() {
  Database& database = *database_;
  using LastRounds = std::map<ClientId, RoundNumber>;
  return database.guarded("read the participations from", [&]() -> Result<LastRounds> {
    SQLite::Statement row(database.connection,
                          "SELECT client, last_round FROM participations WHERE last_round > 0");
    LastRounds rounds;
    while (row.executeStep()) {
      rounds[ClientId{from_column(row.getColumn(0).getInt64())}] =
          RoundNumber{row.getColumn(1).getUInt()};
    }
    return rounds;
  });
}

Result<std::vector<RoundMetrics>> Store::load_metrics() {
  Database& database = *database_;
  return database.guarded("read the rounds from", [&]() -> Result<std::vector<RoundMetrics>> {
    SQLite::Statement row(
        database.connection,
        "SELECT round, committed, started_us, ended_us, selected, accepted, rejected, "
        "dropped, examples, train_loss, train_steps, bytes_up, bytes_down, accuracy, "
        "loss, secure, masked, recovered, clipped_coordinates, clipped_weights, epsilon, delta, "
        "clip_norm, noise_multiplier, private_figures, rounding_error FROM rounds ORDER BY sequence");
    std::vector<RoundMetrics> rounds;
    while (row.executeStep()) rounds.push_back(read_metrics(row));
    return rounds;
  });
}

Result<void> Store::touch_client(ClientId client, std::int64_t unix_seconds,
                                 const std::string& agent_version) {
  Database& database = *database_;
  return database.guarded("remember a client in", [&]() -> Result<void> {
    // Nobody is told of this write, so it need not wait for the disk: thousands of devices check in
    // within a second, and a flush takes milliseconds.
    database.connection.exec("PRAGMA synchronous=NORMAL");
    SQLite::Statement upsert(
        database.connection,
        "INSERT INTO clients VALUES(?1, ?2, ?2, ?3) ON CONFLICT(client) DO UPDATE SET "
        "last_seen = max(last_seen, ?2), agent_version = ?3");
    upsert.bind(1, to_column(value_of(client)));
    upsert.bind(2, unix_seconds);
    upsert.bind(3, agent_version);
    upsert.exec();
    return {};
  });
}

}  // namespace covey::server
