#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <covey/server/upload_spool.hpp>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>

#include "upload_window.hpp"

namespace covey::server {

namespace {

constexpr std::string_view kSuffix = ".part";

std::string reason_of(int error) { return std::generic_category().message(error); }

/// run-round-client-digest.part, each as fixed-width lower-case hexadecimal digits.
std::string file_name(const UploadKey& key) {
  return fmt::format("{:016x}-{:08x}-{:016x}-{}{}", value_of(key.run), value_of(key.round),
                     value_of(key.client), key.blob.hex(), kSuffix);
}

/// The key a file name stands for; nothing unless it is exactly a name that file_name makes.
std::optional<UploadKey> parse_file_name(std::string_view name) {
  // Widths of file_name's fields: 16 - 8 - 16 - 64 and the suffix.
  constexpr std::size_t kRoundAt = 17, kClientAt = 26, kDigestAt = 43, kDigestEnd = 107;
  if (name.size() != kDigestEnd + kSuffix.size()) return std::nullopt;
  const auto number = [&](std::size_t at, std::size_t width, auto& value) {
    const char* const end = name.data() + at + width;
    const auto [stop, error] = std::from_chars(name.data() + at, end, value, 16);
    return error == std::errc{} && stop == end;
  };
  std::uint64_t run = 0;
  std::uint32_t round = 0;
  std::uint64_t client = 0;
  const auto digest = Digest::from_hex(name.substr(kDigestAt, kDigestEnd - kDigestAt));
  if (!number(0, 16, run) || !number(kRoundAt, 8, round) || !number(kClientAt, 16, client) ||
      !digest) {
    return std::nullopt;
  }
  const UploadKey key{RunId{run}, RoundNumber{round}, ClientId{client}, *digest};
  if (file_name(key) != name) return std::nullopt;
  return key;
}

/// A descriptor that closes itself.
class File {
 public:
  File(const std::string& path, int flags) {
    do {
      descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    } while (descriptor_ < 0 && errno == EINTR);
  }
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool ok() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }

 private:
  int descriptor_ = -1;
};

/// Files that are opened for each write, so that the number of uploads is not bounded by
/// descriptors. An upload that starts over gets a new file: mapped ones are never truncated. One
/// thread at a time.
class FileSpool final : public UploadSpool {
 public:
  FileSpool(std::string directory, std::map<UploadKey, std::uint64_t> found)
      : directory_(std::move(directory)) {
    for (const auto& [key, held] : found)
      uploads_[key] = Upload{.size = std::nullopt, .held = held};
  }

  Result<std::uint64_t> open(const UploadKey& key, std::uint64_t size) override {
    COVEY_TRY(check_announced_size(key, size));
    const auto found = uploads_.find(key);
    if (found != uploads_.end()) {
      Upload& upload = found->second;
      if (upload.size.value_or(size) == size && upload.held <= size) {
        upload.size = size;
        return upload.held;
      }
      drop(key);
    }
    const std::string path = path_of(key);
    const File file(path, O_WRONLY | O_CREAT | O_EXCL);
    if (!file.ok()) return failed(fmt::format("cannot make {}: {}", path, reason_of(errno)));
    uploads_[key] = Upload{.size = size, .held = 0};
    return std::uint64_t{0};
  }

  Result<void> write(const UploadKey& key, std::uint64_t offset,
                     const SharedBytes& payload) override {
    const auto found = uploads_.find(key);
    if (found == uploads_.end() || !found->second.size)
      return failed(describe(key) + " was not opened");
    Upload& upload = found->second;
    COVEY_ASSIGN(const std::uint64_t skip,
                 bytes_to_skip(key, *upload.size, upload.held, offset, payload.size()));
    auto rest = payload.span().subspan(static_cast<std::size_t>(skip));
    if (rest.empty()) return {};
    const std::string path = path_of(key);
    const File file(path, O_WRONLY);
    if (!file.ok()) return failed(fmt::format("cannot write {}: {}", path, reason_of(errno)));
    while (!rest.empty()) {
      const ssize_t written =
          ::pwrite(file.get(), rest.data(), rest.size(), static_cast<off_t>(upload.held));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) {
        const int error = written < 0 ? errno : ENOSPC;
        return failed(
            fmt::format("cannot write {} at byte {}: {}", path, upload.held, reason_of(error)));
      }
      upload.held += static_cast<std::uint64_t>(written);
      rest = rest.subspan(static_cast<std::size_t>(written));
    }
    return {};
  }

  Result<SharedBytes> read(const UploadKey& key) override {
    const auto found = uploads_.find(key);
    if (found == uploads_.end() || !found->second.size)
      return failed(describe(key) + " was not opened");
    const Upload& upload = found->second;
    if (upload.held != *upload.size) {
      return failed(fmt::format("{} is incomplete: {} of {} bytes", describe(key), upload.held,
                                *upload.size));
    }
    return map(path_of(key), static_cast<std::size_t>(upload.held));
  }

  void drop(const UploadKey& key) override {
    if (uploads_.erase(key) > 0) ::unlink(path_of(key).c_str());
  }

  void keep_only(RunId run, RoundNumber oldest) override {
    std::vector<UploadKey> others;
    for (const auto& [key, upload] : uploads_) {
      if (key.run != run || key.round < oldest) others.push_back(key);
    }
    for (const UploadKey& key : others) drop(key);
  }

 private:
  struct Upload {
    std::optional<std::uint64_t>
        size;                ///< as announced; nothing: found at start-up, not opened yet
    std::uint64_t held = 0;  ///< the file's size
  };

  std::string path_of(const UploadKey& key) const { return directory_ + "/" + file_name(key); }

  /// The first page is page-aligned, so the bytes can be read as floats in place.
  static Result<SharedBytes> map(const std::string& path, std::size_t size) {
    if (size == 0) return SharedBytes();
    const File file(path, O_RDONLY);
    struct stat status {};
    if (!file.ok() || ::fstat(file.get(), &status) != 0) {
      return failed(fmt::format("cannot read {}: {}", path, reason_of(errno)));
    }
    if (static_cast<std::size_t>(status.st_size) != size) {
      return failed(
          fmt::format("{} has {} bytes where {} were written: something else changes the files "
                      "of this directory",
                      path, status.st_size, size));
    }
    void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
    if (address == MAP_FAILED) {
      return failed(fmt::format("cannot map {}: {}", path, reason_of(errno)));
    }
    ::madvise(address, size, MADV_SEQUENTIAL);  // advice only: hashed and summed front to back
    std::shared_ptr<const void> owner(
        address, [size](const void* mapped) { ::munmap(const_cast<void*>(mapped), size); });
    return SharedBytes(std::move(owner), {static_cast<const std::byte*>(address), size});
  }

  std::string directory_;
  std::map<UploadKey, Upload> uploads_;
};

}  // namespace

Result<std::unique_ptr<UploadSpool>> make_file_spool(const std::string& directory) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::exists(directory, error) && !error) {
    fs::create_directories(directory, error);
    if (!error) fs::permissions(directory, fs::perms::owner_all, error);  // updates are private
  }
  if (error) {
    return failed(
        fmt::format("cannot make the upload directory {}: {}", directory, error.message()));
  }
  std::map<UploadKey, std::uint64_t> found;
  fs::directory_iterator entry(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const auto key = parse_file_name(entry->path().filename().string());
    std::error_code gone;
    if (!key || !entry->is_regular_file(gone) || entry->is_symlink(gone)) continue;
    const std::uintmax_t size = entry->file_size(gone);
    if (!gone) found[*key] = size;
  }
  if (error) {
    return failed(
        fmt::format("cannot read the upload directory {}: {}", directory, error.message()));
  }
  if (::access(directory.c_str(), W_OK | X_OK) != 0) {
    return failed(
        fmt::format("cannot write to the upload directory {}: {}", directory, reason_of(errno)));
  }
  return std::unique_ptr<UploadSpool>(std::make_unique<FileSpool>(directory, std::move(found)));
}

}  // namespace covey::server
