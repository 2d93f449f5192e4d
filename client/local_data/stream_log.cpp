#include "local_data/stream_log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace covey::client {
namespace {

// All numbers are little-endian, as on every machine that this is built for.
constexpr std::array<char, 8> kMagic = {'C', 'V', 'Y', 'S', 'T', 'R', 'M', '1'};
constexpr std::size_t kMaxExtents = 4;

struct HeaderBytes {
  std::array<char, 8> magic = kMagic;
  std::uint32_t element = 0;
  std::uint32_t extents = 0;
  std::array<std::uint32_t, kMaxExtents> shape{};
  std::uint64_t window = 0;
  std::uint64_t reservoir = 0;
  std::uint32_t unused = 0;
  std::uint32_t checksum = 0;  ///< CRC-32 of what is before it
};
static_assert(sizeof(HeaderBytes) == 56);

enum class RecordKind : std::uint32_t {
  kExample = 0x6578616d,
  kState = 0x73746174,
  kUpdate = 0x75706474
};

/// In front of every record.
struct RecordHead {
  std::uint32_t checksum = 0;  ///< CRC-32 of what is behind it in the record
  std::uint32_t kind = 0;
};
static_assert(sizeof(RecordHead) == 8);

struct ExampleBytes {
  std::uint64_t sequence = 0, window_slot = 0, reservoir_slot = 0, table_row = 0;
  std::int32_t label = 0;
  std::uint32_t unused = 0;
};
static_assert(sizeof(ExampleBytes) == 40);

struct StateBytes {
  std::uint64_t seen = 0, used = 0, table = 0, table_rows = 0;
};
static_assert(sizeof(StateBytes) == 32);

struct UpdateBytes {
  std::uint64_t run = 0, seen = 0;
  std::uint32_t round = 0, unused = 0;
};
static_assert(sizeof(UpdateBytes) == 24);

std::uint32_t crc(std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(
      ::crc32_z(0, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

template <typename T>
T value_at(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

Error disk_error(const std::string& path, std::string_view doing) {
  return failed(fmt::format("{}: {}: {}", path, doing, std::strerror(errno)));
}

Result<void> write_all(int file, const std::string& path, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return disk_error(path, "cannot be written");
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return {};
}

/// Up to buffer.size() bytes; fewer at the end of the file.
Result<std::size_t> read_some(int file, const std::string& path, std::span<std::byte> buffer) {
  std::size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t count = ::read(file, buffer.data() + done, buffer.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return disk_error(path, "cannot be read");
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

/// Nothing if the bytes are no header of ours.
std::optional<StreamLayout> layout_of(std::span<const std::byte> bytes) {
  if (bytes.size() != sizeof(HeaderBytes)) return std::nullopt;
  const auto header = value_at<HeaderBytes>(bytes);
  const auto covered = bytes.first(sizeof(HeaderBytes) - sizeof(std::uint32_t));
  if (header.magic != kMagic || header.checksum != crc(covered)) return std::nullopt;
  if (header.element > 1 || header.extents == 0 || header.extents > kMaxExtents)
    return std::nullopt;
  StreamLayout layout;
  layout.element = static_cast<StreamOptions::Element>(header.element);
  layout.shape.assign(header.shape.begin(), header.shape.begin() + header.extents);
  layout.window = header.window;
  layout.reservoir = header.reservoir;
  std::uint64_t size = 1;
  for (const std::uint32_t extent : layout.shape) {
    size *= extent;
    if (size == 0 || size > (std::uint64_t{1} << 28)) return std::nullopt;
  }
  return layout;
}

}  // namespace

std::size_t StreamLayout::example_size() const {
  std::size_t size = 1;
  for (const std::uint32_t extent : shape) size *= extent;
  return size;
}

std::size_t StreamLayout::example_bytes() const {
  return example_size() * (element == StreamOptions::Element::kByte ? 1 : sizeof(float));
}

StreamLog::StreamLog(std::string directory) : directory_(std::move(directory)) {}

StreamLog::~StreamLog() {
  if (file_ >= 0) ::close(file_);
  if (lock_ >= 0) ::close(lock_);
}

std::string StreamLog::path() const { return directory_ + "/examples.log"; }

Result<std::unique_ptr<StreamLog>> StreamLog::open(const std::string& directory,
                                                   const Reader& reader) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return failed(fmt::format("{}: cannot be made: {}", directory, error.message()));
  }
  std::unique_ptr<StreamLog> log(new StreamLog(directory));
  COVEY_TRY(log->lock());
  std::filesystem::remove(log->path() + ".new",
                          error);  // of a rewrite that did not come to its end
  COVEY_TRY(log->read(reader));
  return log;
}

Result<void> StreamLog::lock() {
  const std::string name = directory_ + "/lock";
  lock_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) return disk_error(name, "cannot be opened");
  if (::flock(lock_, LOCK_EX | LOCK_NB) == 0) return {};
  return failed(directory_ + ": another process keeps its examples there");
}

Result<void> StreamLog::put_aside(const Reader& reader, std::string_view why) {
  const std::string aside = path() + ".broken";
  ::close(std::exchange(file_, -1));
  if (::rename(path().c_str(), aside.c_str()) != 0)
    return disk_error(path(), "cannot be put aside");
  if (reader.notice) {
    reader.notice(fmt::format("{}: {}; it is put aside as {}, and the stream begins anew", path(),
                              why, aside));
  }
  return {};
}

namespace {

/// Hands one record's content to `reader`; false if it is none that was ever written.
bool take(std::span<const std::byte> content, RecordKind kind, const StreamLog::Reader& reader) {
  if (kind == RecordKind::kState) {
    const auto raw = value_at<StateBytes>(content);
    reader.state({raw.seen, raw.used, raw.table, raw.table_rows});
    return true;
  }
  if (kind == RecordKind::kUpdate) {
    const auto raw = value_at<UpdateBytes>(content);
    reader.update({RunId{raw.run}, RoundNumber{raw.round}, raw.seen});
    return true;
  }
  const auto raw = value_at<ExampleBytes>(content);
  if (raw.label < 0) return false;
  return reader.example({raw.sequence, raw.window_slot, raw.reservoir_slot, raw.table_row,
                         raw.label, content.subspan(sizeof(ExampleBytes))});
}

}  // namespace

Result<void> StreamLog::read(const Reader& reader) {
  file_ = ::open(path().c_str(), O_RDWR | O_CLOEXEC);
  if (file_ < 0) {
    if (errno == ENOENT) return {};
    return disk_error(path(), "cannot be opened");
  }
  std::array<std::byte, sizeof(HeaderBytes)> header{};
  COVEY_ASSIGN(const std::size_t length, read_some(file_, path(), header));
  const auto layout = layout_of(std::span(header).first(length));
  if (!layout) return put_aside(reader, "does not begin as a stream's file does");
  COVEY_TRY(reader.layout(*layout));
  layout_ = *layout;
  bytes_ = sizeof(HeaderBytes);

  // One record is in memory at a time.
  struct stat status {};
  if (::fstat(file_, &status) != 0) return disk_error(path(), "cannot be looked at");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  const std::size_t example = sizeof(ExampleBytes) + layout_.example_bytes();
  while (bytes_ < size) {
    RecordHead head;
    COVEY_ASSIGN(const std::size_t got,
                 read_some(file_, path(), std::as_writable_bytes(std::span(&head, 1))));
    const auto kind = static_cast<RecordKind>(head.kind);
    const std::size_t content = kind == RecordKind::kExample  ? example
                                : kind == RecordKind::kState  ? sizeof(StateBytes)
                                : kind == RecordKind::kUpdate ? sizeof(UpdateBytes)
                                                              : 0;
    if (got < sizeof(head) || content == 0) break;
    if (sizeof(head) + content > size - bytes_) break;
    record_.resize(sizeof(head.kind) + content);
    std::memcpy(record_.data(), &head.kind, sizeof(head.kind));
    const auto rest = std::span(record_).subspan(sizeof(head.kind));
    COVEY_ASSIGN(const std::size_t filled, read_some(file_, path(), rest));
    if (filled < content || crc(record_) != head.checksum) break;
    if (!take(rest, kind, reader)) break;
    bytes_ += sizeof(head) + content;
  }
  if (bytes_ < size) {
    if (reader.notice) {
      reader.notice(fmt::format("{}: its last {} bytes are torn or broken and are cut off", path(),
                                size - bytes_));
    }
    if (::ftruncate(file_, static_cast<off_t>(bytes_)) != 0) {
      return disk_error(path(), "cannot be cut");
    }
  }
  if (::lseek(file_, static_cast<off_t>(bytes_), SEEK_SET) < 0) {
    return disk_error(path(), "cannot be written");
  }
  return {};
}

Result<void> StreamLog::rewrite(const StreamLayout& layout,
                                const std::function<Result<void>()>& write) {
  const std::string fresh = path() + ".new";
  const int file = ::open(fresh.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) return disk_error(fresh, "cannot be made");
  const int old_file = std::exchange(file_, file);
  const std::uint64_t old_bytes = std::exchange(bytes_, 0);
  const StreamLayout old_layout = std::exchange(layout_, layout);

  HeaderBytes header;
  header.element = static_cast<std::uint32_t>(layout.element);
  header.extents = static_cast<std::uint32_t>(layout.shape.size());
  std::ranges::copy(layout.shape, header.shape.begin());
  header.window = layout.window;
  header.reservoir = layout.reservoir;
  header.checksum = crc(bytes_of(header).first(sizeof(header) - sizeof(header.checksum)));
  const auto write_file = [&]() -> Result<void> {
    COVEY_TRY(write_record(bytes_of(header)));
    if (auto written = write(); !written.ok()) return written;
    if (::fsync(file) != 0) return disk_error(fresh, "cannot be written");
    if (::rename(fresh.c_str(), path().c_str()) != 0)
      return disk_error(fresh, "cannot be put in place");
    const int directory = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {
      ::fsync(directory);  // not every file system can; the old file is whole, too
      ::close(directory);
    }
    return {};
  };
  const auto result = write_file();
  if (result.ok()) {
    if (old_file >= 0) ::close(old_file);
    return {};
  }
  ::close(file);
  ::unlink(fresh.c_str());
  file_ = old_file;
  bytes_ = old_bytes;
  layout_ = old_layout;
  return result;
}

Result<void> StreamLog::write_record(std::span<const std::byte> record) {
  if (auto written = write_all(file_, path(), record); !written.ok()) {
    // What is left of it would be cut at the next start; the next record must not stand behind it.
    const bool cut = ::ftruncate(file_, static_cast<off_t>(bytes_)) == 0;
    if (cut) ::lseek(file_, static_cast<off_t>(bytes_), SEEK_SET);
    return written;
  }
  bytes_ += record.size();
  return {};
}

namespace {

/// A record of `kind`, whose content is `fixed` and `more`.
void make_record(RecordKind kind, std::span<const std::byte> fixed, std::span<const std::byte> more,
                 std::vector<std::byte>& out) {
  RecordHead head;
  head.kind = static_cast<std::uint32_t>(kind);
  out.resize(sizeof(head) + fixed.size() + more.size());
  std::memcpy(out.data() + sizeof(head), fixed.data(), fixed.size());
  if (!more.empty())
    std::memcpy(out.data() + sizeof(head) + fixed.size(), more.data(), more.size());
  std::memcpy(out.data() + sizeof(head.checksum), &head.kind, sizeof(head.kind));
  head.checksum = crc(std::span(out).subspan(sizeof(head.checksum)));
  std::memcpy(out.data(), &head.checksum, sizeof(head.checksum));
}

}  // namespace

Result<void> StreamLog::append(const StreamExample& example) {
  const ExampleBytes raw{example.sequence,  example.window_slot, example.reservoir_slot,
                         example.table_row, example.label,       0};
  make_record(RecordKind::kExample, bytes_of(raw), example.features, record_);
  return write_record(record_);
}

Result<void> StreamLog::append(const StreamState& state) {
  const StateBytes raw{state.seen, state.used, state.table, state.table_rows};
  make_record(RecordKind::kState, bytes_of(raw), {}, record_);
  return write_record(record_);
}

Result<void> StreamLog::append(const StreamUpdate& update) {
  const UpdateBytes raw{value_of(update.run), update.seen, value_of(update.round), 0};
  make_record(RecordKind::kUpdate, bytes_of(raw), {}, record_);
  return write_record(record_);
}

Result<void> StreamLog::sync() {
  if (file_ >= 0 && ::fdatasync(file_) != 0) return disk_error(path(), "cannot be written");
  return {};
}

Result<void> StreamLog::remove() {
  if (::unlink(path().c_str()) != 0 && errno != ENOENT)
    return disk_error(path(), "cannot be removed");
  if (file_ >= 0) ::close(std::exchange(file_, -1));
  bytes_ = 0;
  return {};
}

}  // namespace covey::client
