#pragma once

#include <covey/digest.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Bytes that outlive the process: a file whose writes reach the disk before they count, and the
/// plain binary values in it.
namespace covey::simulation {

/// An open file; closed when it goes. One thread at a time.
class FileHandle {
 public:
  /// Opens for writing, made if absent. Error naming the path.
  static Result<FileHandle> open_for_writing(const std::string& path, bool truncate);
  FileHandle(FileHandle&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileHandle& operator=(FileHandle&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~FileHandle();

  /// All of them, or the reason why not.
  Result<void> write(std::span<const std::byte> bytes);
  /// Cuts the file off and writes from there on.
  Result<void> cut(std::uint64_t length);
  /// Until the disk has it.
  Result<void> sync();

 private:
  explicit FileHandle(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

/// The file whole. Nothing where it does not exist.
Result<std::optional<std::vector<std::byte>>> read_whole_file(const std::string& path);
/// Renames and makes the renaming durable.
Result<void> rename_durably(const std::string& from, const std::string& to);

/// Values in little-endian order, small numbers short.
class ByteWriter {
 public:
  void number(std::uint64_t value);  ///< 1 to 10 bytes, seven bits each
  void real(double value);
  void text(std::string_view value);
  void raw(std::span<const std::byte> bytes);
  void digest(const Digest& value) { raw(std::as_bytes(std::span(value.bytes))); }
  void flag(bool value) { bytes_.push_back(static_cast<std::byte>(value)); }

  std::span<const std::byte> bytes() const { return bytes_; }
  bool empty() const { return bytes_.empty(); }
  void clear() { bytes_.clear(); }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads them back. Behind the end of the bytes, or at a value that no writer writes, every read
/// gives zeros and `ok` is false.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::uint64_t number();
  double real();
  std::string text();
  std::span<const std::byte> raw(std::uint64_t length);
  Digest digest();
  bool flag();
  /// A number of things of at least `bytes_each` bytes, so that no count asks for more than is
  /// there.
  std::size_t count(std::size_t bytes_each);

  bool ok() const { return ok_; }
  void fail() { ok_ = false; }
  std::size_t left() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

}  // namespace covey::simulation
