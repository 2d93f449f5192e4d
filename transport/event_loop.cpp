#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <covey/assert.hpp>
#include <covey/transport/event_loop.hpp>
#include <csignal>

#include "asio.hpp"
#include "event_loop_internals.hpp"

namespace covey::transport {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

/// Write end of the pipe to the loop that waits for termination, -1 for none. Signals belong to the
/// process, so this cannot be a member.
std::atomic<int> termination_pipe{-1};

void restore_default_action() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

// Only async-signal-safe calls. The default action is back from here on, so a second signal ends
// the process even when the loop is stuck.
extern "C" void tell_loop_of_termination(int signal_number) {
  const int saved_errno = errno;
  restore_default_action();
  const auto byte = static_cast<unsigned char>(signal_number);
  [[maybe_unused]] const auto written = ::write(termination_pipe.load(), &byte, 1);
  errno = saved_errno;
}

void ignore_broken_pipes() {
  // OpenSSL writes with write(2): a peer that is gone would end the process. Someone's own handler
  // is left alone.
  struct sigaction current {};
  sigaction(SIGPIPE, nullptr, &current);
  if (current.sa_handler == SIG_DFL) {
    current.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &current, nullptr);
  }
}

}  // namespace

EventLoop::EventLoop() : internals_(std::make_unique<Internals>()) { ignore_broken_pipes(); }

EventLoop::~EventLoop() {
  if (internals_->termination) {
    restore_default_action();
    ::close(termination_pipe.exchange(-1));
  }
}

void EventLoop::run() {
  {
    const auto guard = asio::make_work_guard(internals_->io);
    internals_->io.run();
  }
  // So that run may be called again. After the guard, whose end stops an io_context without work.
  internals_->io.restart();
}

void EventLoop::stop() { internals_->io.stop(); }

void EventLoop::post(std::function<void()> work) { asio::post(internals_->io, std::move(work)); }

Time EventLoop::now() const {
  return Time(
      std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
}

void EventLoop::on_termination(std::function<void(int)> on_signal) {
  COVEY_ASSERT(termination_pipe.load() == -1);  // one loop of a process waits for signals, once
  int ends[2] = {-1, -1};
  COVEY_ASSERT(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
  termination_pipe = ends[1];
  internals_->termination.emplace(internals_->io, ends[0]);
  internals_->termination->async_read_some(
      asio::buffer(&internals_->signal_byte, 1),
      [this, on_signal = std::move(on_signal)](boost::system::error_code error, std::size_t) {
        if (!error) on_signal(internals_->signal_byte);
      });
  struct sigaction action {};
  action.sa_handler = tell_loop_of_termination;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

struct Timer::State {
  State(EventLoop& loop, std::function<void()> fire)
      : timer(loop.internals().io), on_fire(std::move(fire)) {}

  asio::steady_timer timer;
  std::function<void()> on_fire;
  /// Counts `set` and `cancel`: a firing that was already queued when it was replaced is stale.
  std::uint64_t generation = 0;
};

Timer::Timer(EventLoop& loop, std::function<void()> on_fire)
    : state_(std::make_shared<State>(loop, std::move(on_fire))) {}

Timer::~Timer() {
  if (state_) ++state_->generation;
}

void Timer::set(Time at) {
  const std::uint64_t generation = ++state_->generation;
  state_->timer.expires_at(
      SteadyTime(std::chrono::duration_cast<SteadyTime::duration>(at.time_since_epoch())));
  // Weak: destroying the Timer frees what on_fire holds at once. Locked while firing, so that
  // on_fire may destroy its own Timer.
  std::weak_ptr<State> weak = state_;
  state_->timer.async_wait([weak, generation](boost::system::error_code error) {
    const std::shared_ptr<State> state = weak.lock();
    if (error || !state || state->generation != generation) return;
    state->on_fire();
  });
}

void Timer::cancel() {
  ++state_->generation;
  state_->timer.cancel();
}

}  // namespace covey::transport
