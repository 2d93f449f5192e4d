#include "client/daemon/covey_client/service.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace covey::client {
namespace {

/// Whether standard error is the journal's: JOURNAL_STREAM names the device and inode that it gave
/// us, which a redirection would have replaced (systemd.exec(5)).
bool stderr_is_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  if (stream == nullptr || fstat(STDERR_FILENO, &status) != 0) return false;
  return fmt::format("{}:{}", status.st_dev, status.st_ino) == stream;
}

std::string_view name_of(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      return "debug";
  }
  return "";
}

std::string time_of_day() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t whole = static_cast<std::time_t>(milliseconds / 1000);
  struct tm parts {};
  localtime_r(&whole, &parts);
  char text[32];
  const std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return fmt::format("{}.{:03}", std::string_view(text, length), milliseconds % 1000);
}

/// A variable of the environment, which children are not to have.
std::string take(const char* name) {
  const char* value = std::getenv(name);
  std::string text = value != nullptr ? value : "";
  unsetenv(name);
  return text;
}

}  // namespace

Log make_stderr_log(LogLevel least) {
  return [least, journal = stderr_is_journal()](LogLevel level, std::string_view text) {
    if (level > least) return;
    const std::string line = journal
                                 ? fmt::format("<{}>{}\n", static_cast<int>(level), text)
                                 : fmt::format("{} {} {}\n", time_of_day(), name_of(level), text);
    // Nobody is left to be told when this fails.
    [[maybe_unused]] const auto written = write(STDERR_FILENO, line.data(), line.size());
  };
}

ServiceManager ServiceManager::from_environment() {
  ServiceManager manager;
  manager.socket_ = take("NOTIFY_SOCKET");
  const std::string microseconds = take("WATCHDOG_USEC"), pid = take("WATCHDOG_PID");
  std::int64_t interval = 0;
  const auto [end, error] =
      std::from_chars(microseconds.data(), microseconds.data() + microseconds.size(), interval);
  const bool ours = pid.empty() || pid == fmt::to_string(getpid());
  if (error == std::errc() && end == microseconds.data() + microseconds.size() && interval > 0 &&
      ours) {
    manager.watchdog_ = Duration(interval);
  }
  return manager;
}

void ServiceManager::tell(std::string_view state) const {
  sockaddr_un address{};
  if (socket_.empty() || socket_.size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_.front() == '@') address.sun_path[0] = '\0';  // a name in the abstract namespace
  const int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  // The manager misses the message when this fails, and then acts as if it had not been sent.
  [[maybe_unused]] const auto sent = sendto(descriptor, state.data(), state.size(), MSG_NOSIGNAL,
                                            reinterpret_cast<const sockaddr*>(&address), length);
  close(descriptor);
}

}  // namespace covey::client
