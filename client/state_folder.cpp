#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <covey/client/state_folder.hpp>
#include <cstring>
#include <system_error>
#include <utility>

namespace covey::client {
namespace {

constexpr std::string_view kBeside = ".tmp";  // of a file that is being written
constexpr mode_t kOwnerOnly = 0600;           // updates and residuals tell about the owner's data

/// A descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int get() const { return number_; }
  bool valid() const { return number_ >= 0; }

 private:
  int number_;
};

class PosixFolder final : public StateFolder {
 public:
  PosixFolder(std::string path, Descriptor folder, Descriptor lock)
      : path_(std::move(path)), folder_(std::move(folder)), lock_(std::move(lock)) {}

  Result<std::vector<File>> list() const override;
  Result<SharedBytes> map(const std::string& name) const override;
  Result<void> put(const std::string& name, std::span<const std::byte> bytes) override;
  Result<void> append(const std::string& name, std::uint64_t offset,
                      std::span<const std::byte> bytes) override;
  Result<void> sync(const std::string& name) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> truncate(const std::string& name, std::uint64_t size) override;
  Result<void> remove(const std::string& name) override;

 private:
  Error error(std::string_view doing, const std::string& name) const {
    return failed(
        fmt::format("{} {}/{}: {}", doing, path_, name, std::generic_category().message(errno)));
  }
  Descriptor open(const std::string& name, int flags) const {
    return Descriptor(
        ::openat(folder_.get(), name.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, kOwnerOnly));
  }
  Result<void> write(int file, const std::string& name, std::span<const std::byte> bytes,
                     std::uint64_t offset) const;

  std::string path_;
  Descriptor folder_;
  Descriptor lock_;  ///< held while it is open
};

Result<std::vector<StateFolder::File>> PosixFolder::list() const {
  const int copy = ::openat(folder_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* directory = copy >= 0 ? ::fdopendir(copy) : nullptr;
  if (directory == nullptr) {
    const Error why = error("reading", "");
    if (copy >= 0) ::close(copy);
    return why;
  }
  std::vector<File> files;
  while (const dirent* entry = ::readdir(directory)) {
    struct stat status {};
    if (::fstatat(folder_.get(), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (S_ISREG(status.st_mode)) {
      files.push_back({entry->d_name, static_cast<std::uint64_t>(status.st_size)});
    }
  }
  ::closedir(directory);
  return files;
}

Result<SharedBytes> PosixFolder::map(const std::string& name) const {
  const Descriptor file = open(name, O_RDONLY);
  struct stat status {};
  if (!file.valid() || ::fstat(file.get(), &status) != 0) return error("reading", name);
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return SharedBytes();
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) return error("mapping", name);
  std::shared_ptr<const void> owner(
      address, [size](const void* mapped) { ::munmap(const_cast<void*>(mapped), size); });
  const std::span view(static_cast<const std::byte*>(address), size);
  return SharedBytes(std::move(owner), view);
}

Result<void> PosixFolder::write(int file, const std::string& name, std::span<const std::byte> bytes,
                                std::uint64_t offset) const {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return error("writing", name);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return {};
}

Result<void> PosixFolder::put(const std::string& name, std::span<const std::byte> bytes) {
  const std::string beside = name + std::string(kBeside);
  const auto written = [&]() -> Result<void> {
    const Descriptor file = open(beside, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file.valid()) return error("making", beside);
    COVEY_TRY(write(file.get(), beside, bytes, 0));
    if (::fsync(file.get()) != 0) return error("writing", beside);
    if (::renameat(folder_.get(), beside.c_str(), folder_.get(), name.c_str()) != 0) {
      return error("putting in place", name);
    }
    return {};
  }();
  if (!written) {
    ::unlinkat(folder_.get(), beside.c_str(), 0);
    return written.error();
  }
  if (::fsync(folder_.get()) != 0) return error("writing the folder of", name);
  return {};
}

Result<void> PosixFolder::append(const std::string& name, std::uint64_t offset,
                                 std::span<const std::byte> bytes) {
  const Descriptor file = open(name, O_WRONLY | O_CREAT | (offset == 0 ? O_TRUNC : 0));
  if (!file.valid()) return error("writing", name);
  COVEY_TRY(write(file.get(), name, bytes, offset));
  // That there is such a file has to be known behind a loss of power, too.
  if (offset == 0 && ::fsync(folder_.get()) != 0) return error("writing the folder of", name);
  return {};
}

Result<void> PosixFolder::sync(const std::string& name) {
  const Descriptor file = open(name, O_WRONLY);
  if (!file.valid() || ::fdatasync(file.get()) != 0) return error("writing", name);
  return {};
}

Result<void> PosixFolder::rename(const std::string& from, const std::string& to) {
  COVEY_TRY(sync(from));
  if (::renameat(folder_.get(), from.c_str(), folder_.get(), to.c_str()) != 0) {
    return error("putting in place", to);
  }
  if (::fsync(folder_.get()) != 0) return error("writing the folder of", to);
  return {};
}

Result<void> PosixFolder::truncate(const std::string& name, std::uint64_t size) {
  const Descriptor file = open(name, O_WRONLY);
  if (!file.valid() || ::ftruncate(file.get(), static_cast<off_t>(size)) != 0) {
    return error("cutting", name);
  }
  return {};
}

Result<void> PosixFolder::remove(const std::string& name) {
  if (::unlinkat(folder_.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    return error("removing", name);
  }
  return {};
}

/// Like mkdir -p; what is there already is left as it is.
Result<void> make_folders(const std::string& path) {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      return failed(fmt::format("making {}: {}", part, std::generic_category().message(errno)));
    }
    if (end == std::string::npos) return {};
  }
}

}  // namespace

Result<std::unique_ptr<StateFolder>> open_state_folder(const std::string& path) {
  const auto error = [&](std::string_view doing) {
    return failed(fmt::format("the state directory {} cannot be {}: {}", path, doing,
                              std::generic_category().message(errno)));
  };
  if (path.empty()) return invalid_argument("the state directory has no name");
  COVEY_TRY(make_folders(path));
  Descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) return error("opened");
  Descriptor lock(::openat(folder.get(), "lock", O_RDWR | O_CREAT | O_CLOEXEC, kOwnerOnly));
  if (!lock.valid()) return error("written");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return error("locked");
    return failed("the state directory " + path + " is in use by another process");
  }
  return std::unique_ptr<StateFolder>(
      std::make_unique<PosixFolder>(path, std::move(folder), std::move(lock)));
}

}  // namespace covey::client
