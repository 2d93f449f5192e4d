#pragma once

#include <covey/time.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "client/daemon/log.hpp"

namespace covey::client {

/// Standard error: for the journal with syslog's priorities in front (sd-daemon(3)), for people
/// with the time. One write per line. `least`: what is less urgent is left out.
Log make_stderr_log(LogLevel least);

/// What a service manager wants to hear (sd_notify(3)). Says nothing where there is none.
class ServiceManager {
 public:
  /// Of NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, which it takes out of the environment.
  static ServiceManager from_environment();

  /// "READY=1", "STATUS=...", "WATCHDOG=1", "STOPPING=1"; several with line feeds between them.
  void tell(std::string_view state) const;
  /// How often it waits for "WATCHDOG=1" before it restarts the service; nothing: it does not.
  std::optional<Duration> watchdog() const { return watchdog_; }

 private:
  std::string socket_;
  std::optional<Duration> watchdog_;
};

}  // namespace covey::client
