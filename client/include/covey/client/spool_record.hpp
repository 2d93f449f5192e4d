#pragma once

#include <chrono>
#include <covey/client/saved_work.hpp>
#include <covey/digest.hpp>
#include <covey/privacy/packed_vector.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

/// The bytes of what a Spool writes, without IO. What is read may have been torn, or be anybody's.
namespace covey::client {

using WallTime = std::chrono::sys_time<std::chrono::microseconds>;
inline constexpr WallTime kEarliestWallTime{};
inline constexpr WallTime kLatestWallTime{std::chrono::seconds(253402300800)};  // the year 10000
/// The nearest moment between those: clocks are set back and forth.
WallTime plausible(WallTime time);

/// A file of its own, by its hash.
struct BlobName {
  Digest digest;
  std::uint64_t size = 0;
  bool operator==(const BlobName&) const = default;
};

/// SavedWork as the file "state" has it: blobs by name, moments on the wall.
struct StateRecord {
  struct Residual {
    RunId run{};
    std::optional<BlobName> now, before;
    std::optional<RoundNumber> round;
    bool operator==(const Residual&) const = default;
  };
  /// A TrainedUpdate but for its bytes.
  struct Trained {
    BlobName update;
    Digest announced;  ///< of the update, in the report; zeros under secure aggregation
    double weight = 0;
    std::vector<double> scalars;
    std::uint64_t num_examples = 0;
    std::uint32_t steps = 0;
    double train_loss = 0;
    std::optional<privacy::PackedFormat> packed;
    std::uint64_t clipped_coordinates = 0;
    std::optional<BlobName> residual;  ///< size 0: there is one, and it is empty
    bool operator==(const Trained&) const = default;
  };
  struct Task {
    std::vector<std::byte> assignment;  ///< encoded
    std::optional<WallTime> report_by;
    Duration train_time{};
    std::uint8_t starts = 0;
    bool reported = false, decided = false;
    std::optional<Trained> trained;
    bool operator==(const Task&) const = default;
  };
  ClientId client{};
  WallTime written{};
  std::uint32_t draws = 0;
  std::uint8_t violations = 0, declines = 0;
  std::optional<RoundOfRun> last_accepted;
  std::vector<RoundOfRun> revealed;     ///< kMostRevealedRuns at most
  std::vector<AggregationRound> keyed;  ///< kMostKeyedSums at most
  std::optional<RoundOfRun> released;
  std::optional<WallTime> not_before;
  Residual residual;
  std::optional<BlobName> model, download;
  std::optional<Task> task;
  bool operator==(const StateRecord&) const = default;
};

std::vector<std::byte> serialise(const StateRecord& record);
/// Error saying what is wrong: not such a file, another version, torn, out of bounds.
Result<StateRecord> parse_state(std::span<const std::byte> bytes);

/// What lies beside a half-downloaded blob: a header, then an entry for each piece. A piece counts
/// when its entry, and its bytes, are whole.
struct DownloadJournal {
  static constexpr std::size_t kHeaderBytes = 64;
  static constexpr std::size_t kEntryBytes = 32;
  static std::vector<std::byte> header(const BlobName& blob);
  /// Of piece number `index`, which is `piece`, at [offset, offset + its size).
  static std::vector<std::byte> entry(std::uint64_t index, std::uint64_t offset,
                                      std::span<const std::byte> piece);
  struct Intact {
    std::uint64_t bytes = 0;  ///< of the blob, from its start
    std::uint64_t entries = 0;
  };
  /// How much of `data` is what was written, whatever both files hold.
  static Intact check(const BlobName& blob, std::span<const std::byte> journal,
                      std::span<const std::byte> data);
};

}  // namespace covey::client
