#pragma once

#include <sys/types.h>

#include <covey/result.hpp>
#include <optional>
#include <string>
#include <vector>

namespace covey {

/// This program again, with other arguments, in a process of its own that ends with this one. In a
/// process group of its own: Ctrl-C on the terminal reaches only its parent, which decides.
class ChildProcess {
 public:
  /// Standard output and error go to the file `log`.
  static Result<ChildProcess> start(const std::vector<std::string>& arguments,
                                    const std::string& log);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  ~ChildProcess();  ///< ended by force if it still runs

  /// The exit code once it has ended: 128 + the signal's number if a signal ended it.
  std::optional<int> ended();
  void signal(int number);

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

}  // namespace covey
