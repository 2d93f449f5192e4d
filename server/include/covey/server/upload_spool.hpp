#pragma once

#include <covey/bytes.hpp>
#include <covey/result.hpp>
#include <covey/server/round_coordinator.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace covey::server {

/// 4 bytes times 2^32 parameters: no upload may be announced larger than this.
inline constexpr std::uint64_t kMaxUploadBytes = std::uint64_t{16} << 30;

/// Where updates lie while they arrive. An upload only grows at its end: bytes that are held never
/// change, so what `read` returned stays as it was verified. One thread at a time.
class UploadSpool {
 public:
  virtual ~UploadSpool() = default;
  /// Bytes held already of this upload (0: a new one). Starts over when another size was announced
  /// before or more than `size` is held.
  virtual Result<std::uint64_t> open(const UploadKey& key, std::uint64_t size) = 0;
  /// Bytes below what is held are skipped (a device may send again what it does not know arrived).
  /// Error: not opened, a gap, beyond the announced size, or the disk refuses (what fitted is
  /// held).
  virtual Result<void> write(const UploadKey& key, std::uint64_t offset,
                             const SharedBytes& payload) = 0;
  /// The whole upload, kept alive by what is returned even after `drop`. Error: incomplete,
  /// unreadable.
  virtual Result<SharedBytes> read(const UploadKey& key) = 0;
  virtual void drop(const UploadKey& key) = 0;
  /// Drops everything of other runs, and of rounds before `oldest`.
  virtual void keep_only(RunId run, RoundNumber oldest) = 0;
};

/// In memory: the simulator. A single chunk that is the whole update is shared, not copied.
std::unique_ptr<UploadSpool> make_memory_spool();
/// Files in `directory` (made if absent), read back by mapping them: the daemon. Survives a
/// restart, so an interrupted upload goes on where it stopped.
Result<std::unique_ptr<UploadSpool>> make_file_spool(const std::string& directory);

}  // namespace covey::server
