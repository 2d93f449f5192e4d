#include "durable_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace covey::simulation {
namespace {

static_assert(std::endian::native == std::endian::little,
              "values are written as they lie in memory");

Error because(const std::string& what) { return failed(what + ": " + std::strerror(errno)); }

}  // namespace

Result<FileHandle> FileHandle::open_for_writing(const std::string& path, bool truncate) {
  const int descriptor =
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | (truncate ? O_TRUNC : 0), 0644);
  if (descriptor < 0) return because("cannot write " + path);
  return FileHandle(descriptor);
}

FileHandle::~FileHandle() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<void> FileHandle::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return because("cannot write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Result<void> FileHandle::cut(std::uint64_t length) {
  const auto end = static_cast<off_t>(length);
  if (::ftruncate(descriptor_, end) != 0) return because("cannot shorten");
  if (::lseek(descriptor_, end, SEEK_SET) != end) return because("cannot go to the end");
  return {};
}

Result<void> FileHandle::sync() {
  if (::fdatasync(descriptor_) != 0) return because("cannot flush to the disk");
  return {};
}

Result<std::optional<std::vector<std::byte>>> read_whole_file(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0 && errno == ENOENT) return std::optional<std::vector<std::byte>>();
  if (descriptor < 0) return because("cannot read " + path);
  struct stat status {};
  std::vector<std::byte> bytes;
  std::size_t filled = 0;
  bool good = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  if (good) bytes.resize(static_cast<std::size_t>(status.st_size));
  while (good && filled < bytes.size()) {
    const ssize_t got = ::read(descriptor, bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) good = false;
    if (got > 0) filled += static_cast<std::size_t>(got);
  }
  ::close(descriptor);
  if (!good) return failed("cannot read " + path + " to its end; it must be a plain file");
  return std::optional(std::move(bytes));
}

Result<void> rename_durably(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) return because("cannot write " + to);
  const std::string folder = std::filesystem::path(to).parent_path().string();
  const int descriptor =
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return because("cannot flush the folder of " + to);
  const bool synced = ::fsync(descriptor) == 0;
  ::close(descriptor);
  if (!synced) return because("cannot flush the folder of " + to);
  return {};
}

void ByteWriter::number(std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<std::byte>(value | 0x80));
  bytes_.push_back(static_cast<std::byte>(value));
}

void ByteWriter::raw(std::span<const std::byte> bytes) {
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

void ByteWriter::real(double value) { raw(std::as_bytes(std::span(&value, 1))); }

void ByteWriter::text(std::string_view value) {
  number(value.size());
  raw(std::as_bytes(std::span(value)));
}

std::uint64_t ByteReader::number() {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && ok_ && !bytes_.empty(); shift += 7) {
    const auto byte = std::to_integer<std::uint64_t>(bytes_.front());
    bytes_ = bytes_.subspan(1);
    if (shift == 63 && byte > 1) break;  // beyond 64 bits
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  ok_ = false;
  return 0;
}

double ByteReader::real() {
  double value = 0;
  const auto bytes = raw(sizeof value);
  if (ok_) std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::string ByteReader::text() {
  const auto bytes = raw(number());
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> ByteReader::raw(std::uint64_t length) {
  if (!ok_ || length > bytes_.size()) {
    ok_ = false;
    return {};
  }
  const auto part = bytes_.first(static_cast<std::size_t>(length));
  bytes_ = bytes_.subspan(part.size());
  return part;
}

Digest ByteReader::digest() {
  Digest value;
  const auto bytes = raw(value.bytes.size());
  if (ok_) std::memcpy(value.bytes.data(), bytes.data(), bytes.size());
  return value;
}

bool ByteReader::flag() {
  const auto byte = raw(1);
  if (ok_ && std::to_integer<unsigned>(byte.front()) > 1) ok_ = false;
  return ok_ && byte.front() == std::byte{1};
}

std::size_t ByteReader::count(std::size_t bytes_each) {
  const std::uint64_t value = number();
  if (value > bytes_.size() / bytes_each) ok_ = false;
  return ok_ ? static_cast<std::size_t>(value) : 0;
}

}  // namespace covey::simulation
