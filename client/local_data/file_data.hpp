#pragma once

#include <covey/client/local_data.hpp>
#include <covey/client/local_data_spec.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace covey::client {

/// Files of one kind that hold a device's examples. One thread at a time.
class ExampleFiles {
 public:
  virtual ~ExampleFiles() = default;
  /// What there is to read now; error where something is missing.
  virtual Result<std::vector<std::string>> files() const = 0;
  virtual Result<models::DataSet> load(const std::vector<std::string>& files) const = 0;
  /// How many examples `load` would give, more cheaply where that is possible.
  virtual Result<std::uint64_t> count(const std::vector<std::string>& files) const;
};

std::unique_ptr<ExampleFiles> csv_file(const LocalDataSpec& spec);
std::unique_ptr<ExampleFiles> idx_files(const LocalDataSpec& spec);
std::unique_ptr<ExampleFiles> directory_of_files(const LocalDataSpec& spec);

/// Tables one behind the other. A last line that is still being written (no line end, and the file
/// changed in the last seconds) is left for the next time.
Result<models::DataSet> load_tables(const std::vector<std::string>& files,
                                    const LocalDataSpec& spec);

/// Whether a file changed so lately that somebody may still be writing to it.
bool may_be_growing(std::int64_t modified_ns);

/// Whole lines of a table, and which share of the table has been read with them, (0, 1].
using TakeRows = std::function<Result<void>(std::string_view rows, double share)>;
/// What stands behind the last line end: a row in any case, or none while the file may be growing.
enum class TableEnd : std::uint8_t { kComplete, kMayGrow };
/// Feeds a table to `take` piece by piece.
Result<void> read_table(const std::string& path, const TakeRows& take, TableEnd end);

/// Examples in files, read again when the files are others (names, sizes, times, inodes).
/// Thread-safe.
class FileData : public LocalData {
 public:
  FileData(std::unique_ptr<ExampleFiles> files, std::function<void(std::string_view)> on_notice);

  Result<std::shared_ptr<const models::DataSet>> examples() override;
  std::uint64_t num_examples() override;
  void update_made(const std::shared_ptr<const models::DataSet>&, RunId, RoundNumber) override {}
  void update_counted(RunId, RoundNumber) override {}

 private:
  struct Signature {
    std::string path;
    std::uint64_t size = 0, inode = 0;
    std::int64_t modified_ns = 0;
    bool operator==(const Signature&) const = default;
  };
  static Result<std::vector<Signature>> signatures(const std::vector<std::string>& files);

  std::unique_ptr<ExampleFiles> files_;
  std::function<void(std::string_view)> on_notice_;
  std::mutex mutex_;
  std::vector<Signature> loaded_;              ///< what `held_` was read from
  std::weak_ptr<const models::DataSet> held_;  ///< by a training
  std::vector<Signature> counted_;
  std::uint64_t count_ = 0;
  std::string told_;  ///< the last problem that on_notice was told
};

inline constexpr std::uint64_t kDefaultMaxBytes = std::uint64_t{256} << 20;
inline std::uint64_t max_bytes_of(const LocalDataSpec& spec) {
  return spec.max_bytes > 0 ? spec.max_bytes : kDefaultMaxBytes;
}

}  // namespace covey::client
