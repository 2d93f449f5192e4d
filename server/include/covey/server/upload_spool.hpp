#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <covey/bytes.hpp>
#include <covey/result.hpp>
#include <covey/server/round_coordinator.hpp>

namespace covey::server {

/// Where updates lie while they arrive. One thread at a time.
class UploadSpool {
 public:
  virtual ~UploadSpool() = default;
  /// Bytes held already of this upload (0: a new one).
  virtual Result<std::uint64_t> open(const UploadKey& key, std::uint64_t size) = 0;
  virtual Result<void> write(const UploadKey& key, std::uint64_t offset, const SharedBytes& payload) = 0;
  /// The whole upload, kept alive by what is returned.
  virtual Result<SharedBytes> read(const UploadKey& key) = 0;
  virtual void drop(const UploadKey& key) = 0;
  /// Drops everything that is not of this round.
  virtual void keep_only(RunId run, RoundNumber round) = 0;
};

/// In memory: the simulator. A single chunk that is the whole update is shared, not copied.
std::unique_ptr<UploadSpool> make_memory_spool();
/// Files in `directory` (made if absent), read back by mapping them: the daemon. Survives a restart, so
/// an interrupted upload goes on where it stopped.
Result<std::unique_ptr<UploadSpool>> make_file_spool(const std::string& directory);

}  // namespace covey::server
