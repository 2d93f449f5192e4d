#pragma once

#include <covey/bytes.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace covey::client {

/// A folder of files that one process at a time keeps what it has to remember in. A seam, so that
/// tests can tear writes and fill disks. Errors name the file and what the system said. One thread
/// at a time.
class StateFolder {
 public:
  struct File {
    std::string name;
    std::uint64_t size = 0;
  };
  virtual ~StateFolder() = default;

  virtual Result<std::vector<File>> list() const = 0;
  /// The file's bytes, mapped: they cost clean pages and no heap, and stay when the file is
  /// removed.
  virtual Result<SharedBytes> map(const std::string& name) const = 0;
  /// All of it or nothing, and durable on return: written beside, synced, renamed, folder synced.
  virtual Result<void> put(const std::string& name, std::span<const std::byte> bytes) = 0;
  /// Writes at `offset`, which is the file's end (0 makes it). Not durable before `sync`.
  virtual Result<void> append(const std::string& name, std::uint64_t offset,
                              std::span<const std::byte> bytes) = 0;
  virtual Result<void> sync(const std::string& name) = 0;
  /// Synced, then under its new name, durably.
  virtual Result<void> rename(const std::string& from, const std::string& to) = 0;
  virtual Result<void> truncate(const std::string& name, std::uint64_t size) = 0;
  virtual Result<void> remove(const std::string& name) = 0;  ///< nothing to do if there is none
};

/// Makes the folder where there is none (for its owner only), and locks it. Error if another
/// process has it, or it cannot be written.
Result<std::unique_ptr<StateFolder>> open_state_folder(const std::string& path);

}  // namespace covey::client
