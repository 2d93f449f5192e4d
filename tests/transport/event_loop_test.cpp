#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <covey/transport/event_loop.hpp>
#include <csignal>
#include <memory>
#include <thread>
#include <vector>

namespace covey::transport {
namespace {

using std::chrono::milliseconds;

}  // namespace

TEST_CASE("work posted from many threads runs on the loop's thread, each thread's in order") {
  EventLoop loop;
  constexpr int kThreads = 4;
  constexpr int kPosts = 2000;
  const auto loop_thread = std::this_thread::get_id();
  std::vector<int> next(kThreads, 0);
  int total = 0;
  bool right_thread = true;
  bool in_order = true;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        loop.post([&, t, i] {
          right_thread = right_thread && std::this_thread::get_id() == loop_thread;
          const auto index = static_cast<std::size_t>(t);
          in_order = in_order && next[index]++ == i;
          if (++total == kThreads * kPosts) loop.stop();
        });
      }
    });
  }
  loop.run();
  for (std::thread& thread : threads) thread.join();
  CHECK(total == kThreads * kPosts);
  CHECK(right_thread);
  CHECK(in_order);
}

TEST_CASE("run goes on with nothing to do, until another thread stops it") {
  EventLoop loop;
  std::thread stopper([&] {
    std::this_thread::sleep_for(milliseconds(30));
    loop.stop();
  });
  const Time start = loop.now();
  loop.run();
  CHECK(loop.now() - start >= milliseconds(25));
  stopper.join();
}

TEST_CASE("a loop that was stopped runs again, with what was left over") {
  EventLoop loop;
  int runs = 0;
  loop.post([&] {
    ++runs;
    loop.stop();
  });
  loop.run();
  loop.post([&] {
    ++runs;
    loop.stop();
  });
  loop.run();
  CHECK(runs == 2);
}

TEST_CASE("timers fire in the order of their times, not before them") {
  EventLoop loop;
  std::vector<int> order;
  const Time start = loop.now();
  bool early = false;
  Timer late(loop, [&] {
    early = early || loop.now() < start + milliseconds(20);
    order.push_back(2);
    loop.stop();
  });
  Timer soon(loop, [&] {
    early = early || loop.now() < start + milliseconds(5);
    order.push_back(1);
  });
  late.set(start + milliseconds(20));
  soon.set(start + milliseconds(5));
  loop.run();
  CHECK(order == std::vector<int>{1, 2});
  CHECK_FALSE(early);
}

TEST_CASE("setting a timer again replaces, cancelling and destroying stop it") {
  EventLoop loop;
  int replaced = 0;
  int cancelled = 0;
  int destroyed = 0;
  const Time start = loop.now();
  Timer timer(loop, [&] { ++replaced; });
  Timer never(loop, [&] { ++cancelled; });
  auto gone = std::make_unique<Timer>(loop, [&] { ++destroyed; });
  timer.set(start);
  timer.set(start + milliseconds(5));
  never.set(start);
  gone->set(start);
  // All are due by now; the cancelling happens in the same turn, before any of them.
  never.cancel();
  gone.reset();
  Timer end(loop, [&] { loop.stop(); });
  end.set(start + milliseconds(20));
  loop.run();
  CHECK(replaced == 1);
  CHECK(cancelled == 0);
  CHECK(destroyed == 0);
}

TEST_CASE("a firing already queued is dropped when its timer is cancelled meanwhile") {
  EventLoop loop;
  int fired = 0;
  std::unique_ptr<Timer> second;
  // Both are due at once, so both are queued before the first one runs.
  Timer first(loop, [&] {
    ++fired;
    second.reset();
  });
  second = std::make_unique<Timer>(loop, [&] { ++fired; });
  const Time due = loop.now();
  first.set(due);
  second->set(due);
  Timer end(loop, [&] { loop.stop(); });
  end.set(due + milliseconds(10));
  loop.run();
  CHECK(fired == 1);
}

TEST_CASE("a timer may destroy itself while it fires, which frees what it holds") {
  EventLoop loop;
  auto held = std::make_shared<int>(1);
  std::unique_ptr<Timer> timer;
  timer = std::make_unique<Timer>(loop, [&timer, &loop, held] {
    timer.reset();
    loop.stop();
  });
  timer->set(loop.now());
  loop.run();
  CHECK(held.use_count() == 1);
}

TEST_CASE("the first termination signal is handed over") {
  EventLoop loop;
  int received = 0;
  loop.on_termination([&](int number) {
    received = number;
    loop.stop();
  });
  loop.post([] { std::raise(SIGTERM); });
  loop.run();
  CHECK(received == SIGTERM);
}

TEST_CASE("a second termination signal ends the process even when the loop is stuck") {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    EventLoop loop;
    loop.on_termination([](int) {});
    loop.post([] {
      std::raise(SIGINT);
      std::raise(SIGTERM);  // still inside this piece of work
      ::_exit(3);
    });
    loop.run();
    ::_exit(4);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
}

TEST_CASE("a poll does what is due and waits for nothing") {
  EventLoop loop;
  CHECK_FALSE(loop.next_timer());
  loop.poll();  // nothing to do is nothing wrong
  int fired = 0;
  Timer timer(loop, [&] { ++fired; });
  const Time at = loop.now() + milliseconds(30);
  timer.set(at);
  REQUIRE(loop.next_timer());
  CHECK(*loop.next_timer() == at);
  loop.post([&] { fired += 10; });
  loop.poll();
  CHECK(fired == 10);
  std::this_thread::sleep_for(milliseconds(40));
  loop.poll();
  CHECK(fired == 11);
  CHECK_FALSE(loop.next_timer());
}

TEST_CASE("the next timer is the earliest of those that are still set") {
  EventLoop loop;
  Timer first(loop, [] {});
  auto second = std::make_unique<Timer>(loop, [] {});
  const Time now = loop.now();
  first.set(now + milliseconds(500));
  second->set(now + milliseconds(200));
  CHECK(*loop.next_timer() == now + milliseconds(200));
  second->set(now + milliseconds(900));  // replaces
  CHECK(*loop.next_timer() == now + milliseconds(500));
  first.cancel();
  CHECK(*loop.next_timer() == now + milliseconds(900));
  second.reset();
  CHECK_FALSE(loop.next_timer());
}

TEST_CASE("a wake-up reaches the loop from another thread and from a signal handler") {
  EventLoop loop;
  int woken = 0;
  auto wakeup = Wakeup::make(loop, [&] {
    ++woken;
    loop.stop();
  });
  REQUIRE(wakeup.ok());
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(20));
    (*wakeup)->wake();
  });
  loop.run();
  other.join();
  CHECK(woken == 1);

  static Wakeup* for_handler = nullptr;
  for_handler = wakeup->get();
  const auto old = std::signal(SIGUSR1, [](int) { for_handler->wake(); });
  std::raise(SIGUSR1);
  std::raise(SIGUSR1);  // comes as one
  std::signal(SIGUSR1, old);
  loop.run();
  loop.poll();
  CHECK(woken == 2);
}

TEST_CASE("a wake-up that is gone does not call") {
  EventLoop loop;
  int woken = 0;
  auto wakeup = Wakeup::make(loop, [&] { ++woken; });
  REQUIRE(wakeup.ok());
  (*wakeup)->wake();
  wakeup->reset();
  loop.poll();
  CHECK(woken == 0);
}

}  // namespace covey::transport
