#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <covey/result.hpp>
#include <covey/server/store.hpp>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

namespace covey::server {

/// An exclusive flock on a side file, held for the life of the object (and released by the kernel
/// when the process dies in whatever way).
class StoreLock {
 public:
  static Result<StoreLock> acquire(const std::string& store_path);
  StoreLock(StoreLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  StoreLock& operator=(StoreLock&&) = delete;
  ~StoreLock();

 private:
  explicit StoreLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

/// An open, locked store whose schema is right. SQLite's exceptions stop in `guarded`.
struct Store::Database {
  std::string path;
  StoreLock lock;  // before `connection`: released after it is closed
  SQLite::Database connection;

  /// Runs `body` and turns what it throws into an Error: "cannot <doing> the store <path>:
  /// <reason>".
  template <typename Body>
  auto guarded(const char* doing, Body body) -> std::invoke_result_t<Body> {
    try {
      return body();
    } catch (const std::exception& exception) {
      return describe_failure(path, doing, exception);
    }
  }

  /// From here on a commit returns after it has reached the disk (touch_client switches this off).
  void flush_commits() { connection.exec("PRAGMA synchronous=FULL"); }

  static Error describe_failure(const std::string& path, const char* doing,
                                const std::exception& exception);
};

/// Makes the schema in an empty database, accepts our own version, brings the one before to it, and
/// refuses everything else before anything is written. Throws what SQLite throws.
Result<void> prepare_schema(SQLite::Database& connection, const std::string& path);

/// Binds bytes without a copy (they outlive the statement); an empty span as an empty blob, not
/// NULL.
void bind_blob(SQLite::Statement& statement, int index, std::span<const std::byte> bytes);

/// The bytes of a blob column, valid until the statement steps again.
std::span<const std::byte> blob_of(const SQLite::Column& column);

}  // namespace covey::server
