#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <covey/models/example_files.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "local_data/file_data.hpp"

namespace covey::client {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
// A line of numbers is far shorter; a file without line ends is no table.
constexpr std::size_t kMaxLineBytes = std::size_t{32} << 20;

/// Finds the ends of rows in text that comes in pieces: line ends outside of quoted cells (RFC
/// 4180).
class RowEnds {
 public:
  /// How many bytes of the text so far are whole rows, with `piece` behind what came before.
  std::size_t feed(std::string_view piece) {
    for (const char c : piece) {
      ++at_;
      if (quoted_) {
        if (c == '"') quoted_ = false, closed_ = true;
        continue;
      }
      if (c == '"' && (cell_begins_ || closed_)) quoted_ = true;
      closed_ = false;
      cell_begins_ = c == ',' || c == '\n';
      if (c == '\n') end_ = at_;
    }
    return end_;
  }
  /// The first `count` bytes were taken away.
  void taken(std::size_t count) {
    at_ -= count;
    end_ -= count;
  }

 private:
  std::size_t at_ = 0, end_ = 0;
  bool quoted_ = false;
  bool closed_ = false;  ///< by the quote just before: another one is a quote within the cell
  bool cell_begins_ = true;
};

struct Descriptor {
  int number = -1;
  explicit Descriptor(int n) : number(n) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

std::int64_t nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

bool may_be_growing(std::int64_t modified_ns) {
  // A writer that is alive flushes within seconds; a clock that was set back looks like "lately"
  // only shortly.
  constexpr std::int64_t kQuietNs = 5'000'000'000;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::abs(std::chrono::nanoseconds(now).count() - modified_ns) < kQuietNs;
}

Result<void> read_table(const std::string& path, const TakeRows& take, TableEnd end) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (file.number < 0 || ::fstat(file.number, &status) != 0) {
    return not_found(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  }
  if (!S_ISREG(status.st_mode)) return invalid_argument(path + ": is not a file");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  std::string text;
  RowEnds ends;
  for (std::uint64_t offset = 0; offset < size;) {
    const std::size_t old = text.size();
    text.resize(old +
                static_cast<std::size_t>(std::min<std::uint64_t>(kPieceBytes, size - offset)));
    const ssize_t count = ::read(file.number, text.data() + old, text.size() - old);
    if (count < 0) return failed(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
    if (count == 0) {
      return failed(path + ": became shorter while it was read; it is read again next time");
    }
    text.resize(old + static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
    const std::size_t whole = ends.feed(std::string_view(text).substr(old));
    if (whole > 0) {
      COVEY_TRY(take(std::string_view(text).substr(0, whole),
                     static_cast<double>(offset) / static_cast<double>(size)));
      text.erase(0, whole);
      ends.taken(whole);
    }
    if (text.size() > kMaxLineBytes) {
      return malformed(fmt::format("{}: a line, or a quoted cell, is longer than {} MiB", path,
                                   kMaxLineBytes >> 20));
    }
  }
  // What is behind the last line end is a row, unless its writer has not come to the end of it yet.
  if (text.empty()) return {};
  if (end == TableEnd::kMayGrow && may_be_growing(nanoseconds(status.st_mtim))) return {};
  return take(text, 1);
}

Result<models::DataSet> load_tables(const std::vector<std::string>& files,
                                    const LocalDataSpec& spec) {
  models::CsvExamples examples({.label = spec.label, .classes = spec.class_names});
  const std::uint64_t limit = max_bytes_of(spec);
  for (const std::string& path : files) {
    examples.begin(path);
    const std::size_t before = examples.size();
    const auto add = [&](std::string_view rows, double share) -> Result<void> {
      COVEY_TRY(examples.add(rows));
      if (examples.bytes() > limit) {
        return failed(fmt::format(
            "{}: its examples take more than the {} bytes that they may (max-bytes); a stream "
            "keeps a bounded number of them",
            path, limit));
      }
      const std::size_t rows_of_all = examples.size();
      if (share < 1 && rows_of_all > 0) {
        const auto rest = static_cast<double>(rows_of_all - before) / share * 1.02;
        const std::uint64_t allowed = limit / (examples.bytes() / rows_of_all) + 1;
        examples.reserve(
            static_cast<std::size_t>(std::min(before + static_cast<std::uint64_t>(rest), allowed)));
      }
      return {};
    };
    COVEY_TRY(read_table(path, add, TableEnd::kMayGrow));
  }
  if (examples.size() == 0) {
    return failed(fmt::format("{}: there is no whole row of examples", files.front()));
  }
  return std::move(examples).finish();
}

namespace {

class CsvFile : public ExampleFiles {
 public:
  explicit CsvFile(LocalDataSpec spec) : spec_(std::move(spec)) {}
  Result<std::vector<std::string>> files() const override {
    std::error_code error;
    if (std::filesystem::is_regular_file(spec_.path, error)) return std::vector{spec_.path};
    return not_found(spec_.path + ": there is no such file");
  }
  Result<models::DataSet> load(const std::vector<std::string>& files) const override {
    return load_tables(files, spec_);
  }

 private:
  LocalDataSpec spec_;
};

}  // namespace

std::unique_ptr<ExampleFiles> csv_file(const LocalDataSpec& spec) {
  return std::make_unique<CsvFile>(spec);
}

}  // namespace covey::client
