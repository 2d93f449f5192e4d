#pragma once

#include <functional>
#include <string_view>

namespace covey::client {

enum class LogLevel : unsigned char { kError = 3, kWarning = 4, kInfo = 6, kDebug = 7 };  // as syslog(3)

/// Where a device's words go; passed in, so that a host application can have its own. Empty: nowhere.
using Log = std::function<void(LogLevel, std::string_view)>;

}  // namespace covey::client
