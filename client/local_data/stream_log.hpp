#pragma once

#include <covey/client/example_stream.hpp>
#include <covey/ids.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace covey::client {

inline constexpr std::uint64_t kNoSlot = std::numeric_limits<std::uint64_t>::max();

/// What the examples of a stream look like and how many places there are for them.
struct StreamLayout {
  StreamOptions::Element element = StreamOptions::Element::kFloat;
  std::vector<std::uint32_t> shape;  ///< at most 4 extents
  std::uint64_t window = 0;          ///< places
  std::uint64_t reservoir = 0;       ///< places
  bool operator==(const StreamLayout&) const = default;

  std::size_t example_size() const;   ///< features
  std::size_t example_bytes() const;  ///< that these take
};

struct StreamState {
  std::uint64_t seen = 0;        ///< examples that ever came
  std::uint64_t used = 0;        ///< of these, the first so many were trained on
  std::uint64_t table = 0;       ///< names the table that is being taken in; 0: none
  std::uint64_t table_rows = 0;  ///< of it were taken
};

/// The last update that was made of the stream. It may be counted, by a later process too.
struct StreamUpdate {
  RunId run{};
  RoundNumber round{};
  std::uint64_t seen = 0;  ///< examples that had come when its snapshot was taken; 0: no update yet
};

struct StreamExample {
  std::uint64_t sequence = 0;
  std::uint64_t window_slot = kNoSlot;
  std::uint64_t reservoir_slot = kNoSlot;
  std::uint64_t table_row = 0;  ///< from 1, of the table that it came from; 0: of none
  std::int32_t label = 0;
  std::span<const std::byte> features;  ///< [example_bytes()]
};

/// A stream's file: a header, then what happened, each with a checksum. Adding an example appends
/// to it; a file that holds much that is no longer kept is written anew and put in place at once.
/// One thread at a time; one process at a time.
class StreamLog {
 public:
  /// What a file holds, in the order in which it happened.
  struct Reader {
    std::function<Result<void>(const StreamLayout&)> layout;
    std::function<bool(const StreamExample&)> example;  ///< false: nothing that can have happened
    std::function<void(const StreamState&)> state;
    std::function<void(const StreamUpdate&)> update;
    std::function<void(std::string_view)> notice;
  };
  /// Opens or makes `directory` and reads the file in it, if there is one. What is torn or broken
  /// is cut off or put aside, and `notice` told. Error where another process has it, or the disk
  /// fails.
  static Result<std::unique_ptr<StreamLog>> open(const std::string& directory,
                                                 const Reader& reader);
  ~StreamLog();
  StreamLog(const StreamLog&) = delete;
  StreamLog& operator=(const StreamLog&) = delete;

  /// The file anew, whole or not at all: this layout, then whatever `write` appends.
  Result<void> rewrite(const StreamLayout& layout, const std::function<Result<void>()>& write);
  /// Error where the disk is full or fails; then nothing was appended. rewrite comes first.
  Result<void> append(const StreamExample& example);
  Result<void> append(const StreamState& state);
  Result<void> append(const StreamUpdate& update);
  Result<void> sync();
  Result<void> remove();  ///< the file; the next thing is a rewrite

  std::uint64_t bytes() const { return bytes_; }

 private:
  explicit StreamLog(std::string directory);
  Result<void> lock();
  Result<void> read(const Reader& reader);
  Result<void> put_aside(const Reader& reader, std::string_view why);
  Result<void> write_record(std::span<const std::byte> record);
  std::string path() const;

  std::string directory_;
  StreamLayout layout_;
  int lock_ = -1;
  int file_ = -1;
  std::uint64_t bytes_ = 0;
  std::vector<std::byte> record_;  ///< being made
};

}  // namespace covey::client
