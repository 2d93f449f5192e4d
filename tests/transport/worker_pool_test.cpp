#include <atomic>
#include <catch2/catch.hpp>
#include <covey/transport/event_loop.hpp>
#include <covey/transport/worker_pool.hpp>
#include <future>
#include <memory>
#include <thread>
#include <vector>

namespace covey::transport {

TEST_CASE("one worker runs jobs in the order they were submitted") {
  WorkerPool pool(1);
  std::vector<int> order;
  std::promise<void> done;
  for (int i = 0; i < 100; ++i) pool.submit([&order, i] { order.push_back(i); });
  pool.submit([&] { done.set_value(); });
  done.get_future().wait();
  REQUIRE(order.size() == 100);
  bool right = true;
  for (int i = 0; i < 100; ++i) right = right && order[static_cast<std::size_t>(i)] == i;
  CHECK(right);
}

TEST_CASE("as many jobs run at the same time as there are threads") {
  WorkerPool pool(3);
  std::atomic<int> inside{0};
  std::promise<void> all;
  std::shared_future<void> release = all.get_future().share();
  std::vector<std::future<bool>> results;
  for (int i = 0; i < 3; ++i) {
    auto result = std::make_shared<std::promise<bool>>();
    results.push_back(result->get_future());
    // Each waits for the third to come in: with fewer threads none ever would.
    pool.submit([&inside, &all, release, result] {
      if (++inside == 3) all.set_value();
      result->set_value(release.wait_for(std::chrono::seconds(10)) == std::future_status::ready);
    });
  }
  for (auto& result : results) CHECK(result.get());
}

TEST_CASE("destroying the pool finishes the running job and drops the rest") {
  std::atomic<int> finished{0};
  auto held = std::make_shared<int>(0);
  {
    std::promise<void> started;
    WorkerPool pool(1);
    pool.submit([&] {
      started.set_value();
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      ++finished;
    });
    started.get_future().wait();
    for (int i = 0; i < 50; ++i) pool.submit([&finished, held] { ++finished; });
  }
  CHECK(finished == 1);
  CHECK(held.use_count() == 1);
}

TEST_CASE("zero threads are taken as one") {
  WorkerPool pool(0);
  std::promise<int> answer;
  pool.submit([&] { answer.set_value(7); });
  CHECK(answer.get_future().get() == 7);
}

TEST_CASE("results of jobs come back to the loop by post") {
  EventLoop loop;
  WorkerPool pool(2);
  const auto loop_thread = std::this_thread::get_id();
  int sum = 0;
  int arrived = 0;
  bool right_thread = true;
  for (int i = 1; i <= 100; ++i) {
    pool.submit([&, i] {
      const int square = i * i;
      loop.post([&, square] {
        right_thread = right_thread && std::this_thread::get_id() == loop_thread;
        sum += square;
        if (++arrived == 100) loop.stop();
      });
    });
  }
  loop.run();
  CHECK(sum == 338350);  // n (n + 1) (2n + 1) / 6 for n = 100
  CHECK(right_thread);
}

}  // namespace covey::transport
