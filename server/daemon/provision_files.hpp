#pragma once

#include <sys/types.h>

#include <covey/result.hpp>
#include <filesystem>
#include <string>

/// Files of the provisioning commands: whole or not at all, and never a key overwritten. Every
/// error names the file.
namespace covey::provision {

inline constexpr mode_t kPublicFile = 0644;
inline constexpr mode_t kSecretFile = 0600;
inline constexpr mode_t kPublicDirectory = 0755;
inline constexpr mode_t kSecretDirectory = 0700;

Result<std::string> read_file(const std::filesystem::path& path);

/// Puts a durable file in place at once, replacing what is there.
Result<void> replace_file(const std::filesystem::path& path, const std::string& content,
                          mode_t mode);
/// The same, but an error when there is something already.
Result<void> create_file(const std::filesystem::path& path, const std::string& content,
                         mode_t mode);
/// Adds one line, durably.
Result<void> append_line(const std::filesystem::path& path, const std::string& line);

/// Makes the directory (and its parents); one that exists is left as it is.
Result<void> make_directory(const std::filesystem::path& path, mode_t mode);

/// A folder under construction: files go into `path()`, and `commit` gives it its name. Without
/// that nothing remains of it.
class NewDirectory {
 public:
  /// Error when `target` exists.
  static Result<NewDirectory> make(const std::filesystem::path& target, mode_t mode);
  NewDirectory(NewDirectory&& other) noexcept;
  NewDirectory& operator=(NewDirectory&&) = delete;
  ~NewDirectory();

  const std::filesystem::path& path() const { return path_; }
  Result<void> commit();

 private:
  NewDirectory(std::filesystem::path target, std::filesystem::path path)
      : target_(std::move(target)), path_(std::move(path)) {}

  std::filesystem::path target_;
  std::filesystem::path path_;  ///< empty: nothing to clean up
};

/// Holds a folder against other provisioning commands, until destroyed. Waits for its turn.
class DirectoryLock {
 public:
  static Result<DirectoryLock> take(const std::filesystem::path& directory);
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

/// Wipes a text, such as a private key, when it goes out of scope.
class WipedAtEnd {
 public:
  explicit WipedAtEnd(std::string& secret) : secret_(secret) {}
  WipedAtEnd(const WipedAtEnd&) = delete;
  WipedAtEnd& operator=(const WipedAtEnd&) = delete;
  ~WipedAtEnd();

 private:
  std::string& secret_;
};

}  // namespace covey::provision
