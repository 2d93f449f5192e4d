#pragma once

#include <chrono>
#include <covey/transport/event_loop.hpp>
#include <functional>
#include <optional>
#include <set>

#include "asio.hpp"

namespace covey::transport {

/// What the loop is made of. The hint 1 tells Asio that one thread runs it; posting from others
/// stays safe.
struct EventLoop::Internals {
  /// When each Timer that is set fires. Before `io`, whose end ends what holds timers.
  std::multiset<Time> timers;
  asio::io_context io{1};
  /// Read end of the pipe the signal handler writes to; open after on_termination.
  std::optional<asio::posix::stream_descriptor> termination;
  unsigned char signal_byte = 0;
};

}  // namespace covey::transport
