#pragma once

#include <covey/time.hpp>
#include <functional>
#include <memory>

namespace covey::transport {

/// The one thread that does all network work of a process (an io_context behind a fence). Every
/// callback of this folder runs on the thread inside `run`. `post` and `stop` may be called from
/// any thread. It outlives everything that was made with it. Ignores SIGPIPE, unless the process
/// handles it.
class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Until `stop`. Ends only then, even with nothing to do.
  void run();
  void stop();
  void post(std::function<void()> work);

  /// Monotonic time of this loop: what drivers hand to the state machines.
  Time now() const;

  /// Calls `on_signal` once for the first SIGINT or SIGTERM; a second one ends the process at once.
  void on_termination(std::function<void(int)> on_signal);

  struct Internals;
  Internals& internals() { return *internals_; }

 private:
  std::unique_ptr<Internals> internals_;
};

/// Fires once per `set`; setting again replaces, destroying cancels. Loop thread only.
class Timer {
 public:
  Timer(EventLoop& loop, std::function<void()> on_fire);
  ~Timer();
  void set(Time at);
  void cancel();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace covey::transport
