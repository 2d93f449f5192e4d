#pragma once

#include <covey/result.hpp>
#include <covey/time.hpp>
#include <functional>
#include <memory>
#include <optional>

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
  /// Does what is due now, without waiting: for a process that has a loop of its own. On one thread
  /// at a time, as `run`.
  void poll();
  /// When the earliest Timer fires; nothing if none is set. On the thread that polls.
  std::optional<Time> next_timer() const;
  void post(std::function<void()> work);

  /// What drivers hand to the state machines: a clock that nobody sets, and that goes on while the machine
  /// sleeps.
  Time now() const;

  /// Calls `on_signal` once for the first SIGINT or SIGTERM; a second one ends the process at once.
  void on_termination(std::function<void(int)> on_signal);

  struct Internals;
  Internals& internals() { return *internals_; }

 private:
  std::unique_ptr<Internals> internals_;
};

/// Calls the loop from anywhere: any thread, or a signal handler. Several calls may come as one.
class Wakeup {
 public:
  /// Error where the process has no file descriptor left. Made and destroyed on the loop's thread,
  /// or while it does not run.
  static Result<std::unique_ptr<Wakeup>> make(EventLoop& loop, std::function<void()> on_wake);
  ~Wakeup();
  /// Async-signal-safe.
  void wake() noexcept;

 private:
  struct State;
  explicit Wakeup(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
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
  static void wait(const std::shared_ptr<State>& waiting, Time at);
  std::shared_ptr<State> state_;
};

}  // namespace covey::transport
