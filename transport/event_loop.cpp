#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <covey/assert.hpp>
#include <covey/transport/event_loop.hpp>
#include <csignal>
#include <cstring>
#include <ctime>

#include "asio.hpp"
#include "event_loop_internals.hpp"

namespace covey::transport {
namespace {

/// The system's timers stand still while the machine sleeps, so none is set for longer: what fell due
/// meanwhile fires at most so long after it woke.
constexpr Duration kLongestTimer = std::chrono::seconds(60);

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

void EventLoop::poll() {
  internals_->io.restart();  // an io_context that ran out of work counts as stopped
  internals_->io.poll();
}

std::optional<Time> EventLoop::next_timer() const {
  if (internals_->timers.empty()) return std::nullopt;
  return *internals_->timers.begin();
}

void EventLoop::post(std::function<void()> work) { asio::post(internals_->io, std::move(work)); }

// Unlike CLOCK_MONOTONIC, it goes on while the machine sleeps: what was due in an hour is due when a
// device that slept for eight wakes up. Nobody sets it.
Time EventLoop::now() const {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return Time(std::chrono::duration_cast<Duration>(std::chrono::seconds(now.tv_sec) +
                                                   std::chrono::nanoseconds(now.tv_nsec)));
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
  State(EventLoop& of, std::function<void()> fire)
      : loop(of), internals(of.internals()), timer(internals.io), on_fire(std::move(fire)) {}

  void forget_deadline() {
    if (!set) return;
    internals.timers.erase(*set);
    set.reset();
  }

  EventLoop& loop;
  EventLoop::Internals& internals;
  asio::steady_timer timer;
  std::function<void()> on_fire;
  std::optional<std::multiset<Time>::iterator> set;
  /// Counts `set` and `cancel`: a firing that was already queued when it was replaced is stale.
  std::uint64_t generation = 0;
};

Timer::Timer(EventLoop& loop, std::function<void()> on_fire)
    : state_(std::make_shared<State>(loop, std::move(on_fire))) {}

Timer::~Timer() {
  if (!state_) return;
  ++state_->generation;
  state_->forget_deadline();
}

void Timer::set(Time at) {
  ++state_->generation;
  state_->forget_deadline();
  state_->set = state_->internals.timers.insert(at);
  wait(state_, at);
}

void Timer::wait(const std::shared_ptr<State>& waiting, Time at) {
  const Time now = waiting->loop.now();
  waiting->timer.expires_after(at > now ? std::min(at - now, kLongestTimer) : Duration::zero());
  // Weak: destroying the Timer frees what on_fire holds at once. Locked while firing, so that
  // on_fire may destroy its own Timer.
  std::weak_ptr<State> weak = waiting;
  waiting->timer.async_wait(
      [weak, at, generation = waiting->generation](boost::system::error_code error) {
        const std::shared_ptr<State> state = weak.lock();
        if (error || !state || state->generation != generation) return;
        if (state->loop.now() < at) return wait(state, at);
        state->forget_deadline();
        state->on_fire();
      });
}

void Timer::cancel() {
  ++state_->generation;
  state_->forget_deadline();
  state_->timer.cancel();
}

struct Wakeup::State {
  State(EventLoop& loop, int descriptor, std::function<void()> wake)
      : number(descriptor), event(loop.internals().io, descriptor), on_wake(std::move(wake)) {}

  int number;
  asio::posix::stream_descriptor event;  ///< an eventfd(2)
  std::uint64_t count = 0;
  std::function<void()> on_wake;
  bool gone = false;

  static void listen(const std::shared_ptr<State>& state) {
    std::weak_ptr<State> weak = state;
    state->event.async_read_some(asio::buffer(&state->count, sizeof(state->count)),
                                 [weak](boost::system::error_code error, std::size_t) {
                                   const std::shared_ptr<State> self = weak.lock();
                                   if (error || !self) return;
                                   listen(self);
                                   if (!self->gone) self->on_wake();
                                 });
  }
};

Wakeup::Wakeup(std::shared_ptr<State> state) : state_(std::move(state)) {}
Wakeup::~Wakeup() { state_->gone = true; }

Result<std::unique_ptr<Wakeup>> Wakeup::make(EventLoop& loop, std::function<void()> on_wake) {
  const int descriptor = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (descriptor < 0) return failed(std::string("no eventfd: ") + std::strerror(errno));
  auto state = std::make_shared<State>(loop, descriptor, std::move(on_wake));
  State::listen(state);
  return std::unique_ptr<Wakeup>(new Wakeup(std::move(state)));
}

void Wakeup::wake() noexcept {
  const int saved_errno = errno;
  const std::uint64_t one = 1;
  // Full only when 2^64 - 2 calls are waiting: then it is awake.
  [[maybe_unused]] const auto written = ::write(state_->number, &one, sizeof(one));
  errno = saved_errno;
}

}  // namespace covey::transport
