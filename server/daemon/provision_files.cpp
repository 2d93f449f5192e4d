#include "server/daemon/provision_files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

namespace covey::provision {
namespace {

namespace fs = std::filesystem;

Error system_error(const fs::path& path, std::string_view doing) {
  const int error = errno;
  return {error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kFailed,
          fmt::format("{}: {}: {}", path.string(), doing, std::strerror(error))};
}

Error already_there(const fs::path& path) {
  return invalid_argument(path.string() + ": exists already, and is never overwritten");
}

Result<void> write_all(int descriptor, const fs::path& path, std::string_view content) {
  while (!content.empty()) {
    const ssize_t written = ::write(descriptor, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_error(path, "writing");
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::fsync(descriptor) != 0) return system_error(path, "writing");
  return {};
}

/// Makes renames and new files in a directory durable.
Result<void> sync_directory(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return system_error(path, "opening");
  const int status = ::fsync(descriptor);
  ::close(descriptor);
  if (status != 0) return system_error(path, "writing");
  return {};
}

fs::path directory_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// Renames; with `replace` false an existing target stays, and is an error.
Result<void> rename_to(const fs::path& from, const fs::path& to, bool replace) {
  const unsigned flags = replace ? 0u : static_cast<unsigned>(RENAME_NOREPLACE);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) != 0) {
    if (errno == EEXIST) return already_there(to);
    // File systems without this flag; the folder's lock keeps other commands of ours out.
    if (errno != EINVAL || replace) return system_error(to, "putting in place");
    struct stat found {};
    if (::lstat(to.c_str(), &found) == 0) return already_there(to);
    if (::rename(from.c_str(), to.c_str()) != 0) return system_error(to, "putting in place");
  }
  return sync_directory(directory_of(to));
}

Result<void> write_file(const fs::path& path, const std::string& content, mode_t mode,
                        bool replace) {
  // Unpredictable in no way that matters: O_EXCL refuses a file that someone put there.
  const fs::path temporary = fmt::format("{}.partial-{}", path.string(), ::getpid());
  const int descriptor =
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  if (descriptor < 0) return system_error(temporary, "creating");
  auto status = write_all(descriptor, path, content);
  ::close(descriptor);
  if (status.ok()) status = rename_to(temporary, path, replace);
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

}  // namespace

Result<std::string> read_file(const fs::path& path) {
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return system_error(path, "opening");
  std::string content{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  // A folder opens like a file and fails only here.
  if (stream.bad()) return system_error(path, "reading");
  return content;
}

Result<void> replace_file(const fs::path& path, const std::string& content, mode_t mode) {
  return write_file(path, content, mode, true);
}

Result<void> create_file(const fs::path& path, const std::string& content, mode_t mode) {
  return write_file(path, content, mode, false);
}

Result<void> append_line(const fs::path& path, const std::string& line) {
  const int descriptor =
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kPublicFile);
  if (descriptor < 0) return system_error(path, "opening");
  const auto status = write_all(descriptor, path, line + "\n");
  ::close(descriptor);
  return status;
}

Result<void> make_directory(const fs::path& path, mode_t mode) {
  std::error_code error;
  if (fs::is_directory(path, error)) return {};
  fs::create_directories(directory_of(path), error);
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return system_error(path, "creating");
  if (!fs::is_directory(path, error)) return invalid_argument(path.string() + ": not a folder");
  return {};
}

Result<NewDirectory> NewDirectory::make(const fs::path& target, mode_t mode) {
  std::error_code error;
  if (fs::exists(target, error)) return already_there(target);
  fs::path path = directory_of(target) / fmt::format(".{}.partial", target.filename().string());
  fs::remove_all(path, error);  // what a command that was killed left behind
  COVEY_TRY(make_directory(path, mode));
  return NewDirectory(target, std::move(path));
}

NewDirectory::NewDirectory(NewDirectory&& other) noexcept
    : target_(std::move(other.target_)), path_(std::exchange(other.path_, fs::path())) {}

NewDirectory::~NewDirectory() {
  if (path_.empty()) return;
  std::error_code error;
  fs::remove_all(path_, error);
}

Result<void> NewDirectory::commit() {
  COVEY_TRY(sync_directory(path_));
  COVEY_TRY(rename_to(path_, target_, false));
  path_.clear();
  return {};
}

Result<DirectoryLock> DirectoryLock::take(const fs::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return system_error(directory, "opening");
  DirectoryLock lock(descriptor);
  while (::flock(descriptor, LOCK_EX) != 0) {
    if (errno != EINTR) return system_error(directory, "locking");
  }
  return lock;
}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

DirectoryLock::~DirectoryLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

WipedAtEnd::~WipedAtEnd() { ::explicit_bzero(secret_.data(), secret_.size()); }

}  // namespace covey::provision
