#include "store_database.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

namespace covey::server {

namespace {

// "COVY" in ASCII; marks the file as ours (https://sqlite.org/fileformat2.html#application_id).
constexpr int kApplicationId = 0x434f5659;
// Raise with every change of the tables below.
constexpr int kSchemaVersion = 3;

constexpr const char* kSchema = R"sql(
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE run(
  one INTEGER PRIMARY KEY CHECK(one = 1),
  run_id INTEGER NOT NULL,
  config_toml TEXT NOT NULL);
CREATE TABLE clients(
  client INTEGER PRIMARY KEY,
  first_seen INTEGER NOT NULL,   -- seconds since 1970
  last_seen INTEGER NOT NULL,
  agent_version TEXT NOT NULL);
CREATE TABLE participations(
  client INTEGER PRIMARY KEY,
  rounds INTEGER NOT NULL,       -- committed ones, where participation is limited
  last_round INTEGER NOT NULL DEFAULT 0);  -- of these; 0: not known
CREATE TABLE rounds(
  sequence INTEGER PRIMARY KEY,  -- the order in which they ended
  round INTEGER NOT NULL,
  committed INTEGER NOT NULL,
  started_us INTEGER NOT NULL,
  ended_us INTEGER NOT NULL,
  selected INTEGER NOT NULL,
  accepted INTEGER NOT NULL,
  rejected INTEGER NOT NULL,
  dropped INTEGER NOT NULL,
  examples INTEGER NOT NULL,
  train_loss REAL,               -- NULL: not a number
  train_steps INTEGER NOT NULL,
  bytes_up INTEGER NOT NULL,
  bytes_down INTEGER NOT NULL,
  accuracy REAL,
  loss REAL,
  secure INTEGER NOT NULL,
  masked INTEGER NOT NULL,
  recovered INTEGER NOT NULL,
  clipped_coordinates INTEGER NOT NULL,
  clipped_weights INTEGER NOT NULL,
  epsilon REAL,
  delta REAL,
  clip_norm REAL,
  noise_multiplier REAL,
  private_figures INTEGER NOT NULL,
  rounding_error REAL);
CREATE UNIQUE INDEX committed_rounds ON rounds(round) WHERE committed = 1;
CREATE TABLE snapshots(
  round INTEGER PRIMARY KEY,     -- 0: the initial model
  model_sha256 BLOB NOT NULL,
  model BLOB NOT NULL,           -- fp32, little-endian
  state_sha256 BLOB NOT NULL,
  state BLOB NOT NULL);          -- of the strategy and the privacy mechanism, fp32, little-endian
)sql";

// From version 2, which did not know when a device had last taken part.
constexpr int kOldestVersion = 2;
constexpr const char* kFromVersion2 =
    "ALTER TABLE participations ADD COLUMN last_round INTEGER NOT NULL DEFAULT 0";

std::string reason_of(int error) { return std::generic_category().message(error); }

/// The process that wrote its number into the lock file, "another process" if there is none.
std::string holder_of(int descriptor) {
  char text[32] = {};
  const ssize_t length = ::pread(descriptor, text, sizeof text - 1, 0);
  const std::string digits(text, length > 0 ? static_cast<std::size_t>(length) : 0);
  if (digits.empty() || digits.find_first_not_of("0123456789\n") != std::string::npos) {
    return "another process";
  }
  return "process " + digits.substr(0, digits.find('\n'));
}

}  // namespace

Result<StoreLock> StoreLock::acquire(const std::string& store_path) {
  const std::string path = store_path + ".lock";
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    return failed(
        fmt::format("cannot make {}, which guards the store: {}", path, reason_of(errno)));
  }
  StoreLock lock(descriptor);
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error != EWOULDBLOCK) {
      return failed(fmt::format("cannot lock {}: {}", path, reason_of(error)));
    }
    return failed(
        fmt::format("the store {} is in use by {}: stop that server, or give this one another "
                    "store",
                    store_path, holder_of(descriptor)));
  }
  // The number only serves the sentence above, so a full disk is no reason to refuse.
  const std::string number = fmt::format("{}\n", ::getpid());
  if (::ftruncate(descriptor, 0) == 0) {
    [[maybe_unused]] const ssize_t written = ::pwrite(descriptor, number.data(), number.size(), 0);
  }
  return lock;
}

StoreLock::~StoreLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Error Store::Database::describe_failure(const std::string& path, const char* doing,
                                        const std::exception& exception) {
  std::string advice;
  ErrorCode code = ErrorCode::kFailed;
  if (const auto* sqlite = dynamic_cast<const SQLite::Exception*>(&exception)) {
    switch (sqlite->getErrorCode()) {
      case SQLITE_FULL:
        advice = " (free some space; nothing that was committed is lost)";
        break;
      case SQLITE_BUSY:
        advice = " (another program is writing to it)";
        break;
      case SQLITE_NOTADB:
        advice = " (this file is not a Covey store; give another path)";
        code = ErrorCode::kInvalidArgument;
        break;
      case SQLITE_CORRUPT:
        advice = " (the file is damaged: restore a copy, or begin with another store)";
        code = ErrorCode::kMalformed;
        break;
      default:
        break;
    }
  }
  return {code, fmt::format("cannot {} the store {}: {}{}", doing, path, exception.what(), advice)};
}

Result<void> prepare_schema(SQLite::Database& connection, const std::string& path) {
  const int application = connection.execAndGet("PRAGMA application_id").getInt();
  const int version = connection.execAndGet("PRAGMA user_version").getInt();
  const bool empty = connection.execAndGet("SELECT count(*) FROM sqlite_master").getInt() == 0;
  const bool fresh = empty && application == 0 && version == 0;
  if (!fresh && application != kApplicationId) {
    return invalid_argument(fmt::format(
        "{} is a database of another program, not a Covey store; give another path", path));
  }
  if (!fresh && (version < kOldestVersion || version > kSchemaVersion)) {
    return invalid_argument(fmt::format(
        "the store {} has version {}, this covey reads versions {} to {}: it was made by {} covey; "
        "use that one, or give another path",
        path, version, kOldestVersion, kSchemaVersion,
        version > kSchemaVersion ? "a newer" : "an older"));
  }
  if (connection.execAndGet("PRAGMA journal_mode=WAL").getString() != "wal") {
    return failed(
        fmt::format("the store {} cannot use a write-ahead log there: it needs a local file "
                    "system",
                    path));
  }
  connection.exec("PRAGMA synchronous=FULL");
  if (!fresh && version == kSchemaVersion) return {};
  SQLite::Transaction transaction(connection, SQLite::TransactionBehavior::IMMEDIATE);
  connection.exec(fresh ? kSchema : kFromVersion2);
  connection.exec(
      fmt::format("INSERT OR REPLACE INTO meta VALUES('schema_version', '{}')", kSchemaVersion));
  connection.exec(fmt::format("PRAGMA application_id={}", kApplicationId));
  connection.exec(fmt::format("PRAGMA user_version={}", kSchemaVersion));
  transaction.commit();
  return {};
}

void bind_blob(SQLite::Statement& statement, int index, std::span<const std::byte> bytes) {
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw SQLite::Exception("more than 2^31 bytes do not fit into one row", SQLITE_TOOBIG);
  }
  const void* const data = bytes.empty() ? "" : static_cast<const void*>(bytes.data());
  statement.bindNoCopy(index, data, static_cast<int>(bytes.size()));
}

std::span<const std::byte> blob_of(const SQLite::Column& column) {
  const void* const data = column.getBlob();
  return {static_cast<const std::byte*>(data), static_cast<std::size_t>(column.getBytes())};
}

}  // namespace covey::server
