#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace covey::testing {

/// A child process whose output goes to files; killed when the object goes.
class Process {
 public:
  /// Runs the program `covey` with these arguments; output to `<log>.out` and `<log>.err`.
  Process(const std::vector<std::string>& arguments, const std::string& log);
  /// Another program, with more in its environment ("NAME=VALUE").
  Process(const std::string& program, const std::vector<std::string>& arguments,
          const std::string& log, const std::vector<std::string>& environment = {});
  ~Process();
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;

  void signal(int number);
  void kill();  ///< SIGKILL, and waits
  bool running();
  /// Exit code (128 + signal number if a signal ended it); nothing if it still runs after
  /// `patience`.
  std::optional<int> wait(std::chrono::seconds patience);

  std::string standard_output() const;
  std::string standard_error() const;
  /// The last line of standard output as JSON; null if it is none.
  nlohmann::json json() const;

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
  std::string log_;
};

/// Looks every 20 ms until `condition` holds or `patience` is over.
bool eventually(const std::function<bool()>& condition, std::chrono::seconds patience);

/// A folder of its own under the temporary directory, removed at the end.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& name);
  ~TemporaryFolder();
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& content);
std::size_t count(const std::string& text, const std::string& what);

}  // namespace covey::testing
