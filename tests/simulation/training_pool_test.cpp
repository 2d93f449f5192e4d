#include "simulation/training_pool.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <covey/random.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

using namespace covey;
using simulation::TrainingJob;
using simulation::TrainingPool;
using simulation::TrainingWorker;

namespace {

Time at(int ms) { return Time{} + std::chrono::milliseconds(ms); }

TrainingJob job(std::uint64_t client) {
  TrainingJob made;
  made.task.client = static_cast<ClientId>(client);
  return made;
}

/// What the workers of a test did, and a gate that holds them back.
class Workshop {
 public:
  void enter(std::uint64_t client) {
    std::unique_lock lock(mutex_);
    begun_.push_back(client);
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held_.contains(client); });
  }
  void hold(std::uint64_t client) {
    const std::lock_guard lock(mutex_);
    held_.insert(client);
  }
  void release(std::uint64_t client) {
    const std::lock_guard lock(mutex_);
    held_.erase(client);
    changed_.notify_all();
  }
  bool wait_for_begun(std::size_t jobs) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return begun_.size() >= jobs; });
  }
  std::vector<std::uint64_t> begun() {
    const std::lock_guard lock(mutex_);
    return begun_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::uint64_t> held_;
  std::vector<std::uint64_t> begun_;
};

/// Gives num_examples = 1000 + the client's number.
class FakeWorker : public TrainingWorker {
 public:
  explicit FakeWorker(Workshop& workshop) : workshop_(workshop) {}
  Outcome compute(const TrainingJob& job, const std::atomic<bool>&) override {
    workshop_.enter(value_of(job.task.client));
    client::TrainedUpdate update;
    update.num_examples = 1000 + value_of(job.task.client);
    return Result<client::TrainedUpdate>(std::move(update));
  }

 private:
  Workshop& workshop_;
};

/// Finishes nothing: a machine that went away.
class GoneWorker : public TrainingWorker {
 public:
  explicit GoneWorker(std::atomic<int>& calls) : calls_(calls) {}
  Outcome compute(const TrainingJob&, const std::atomic<bool>&) override {
    ++calls_;
    return std::nullopt;
  }

 private:
  std::atomic<int>& calls_;
};

/// Works until it is told to stop.
class EndlessWorker : public TrainingWorker {
 public:
  explicit EndlessWorker(std::atomic<int>& at_work) : at_work_(at_work) {}
  Outcome compute(const TrainingJob&, const std::atomic<bool>& cancelled) override {
    ++at_work_;
    while (!cancelled.load()) std::this_thread::yield();
    --at_work_;
    return std::nullopt;
  }

 private:
  std::atomic<int>& at_work_;
};

std::vector<std::unique_ptr<TrainingWorker>> fakes(Workshop& workshop, std::size_t count) {
  std::vector<std::unique_ptr<TrainingWorker>> workers;
  for (std::size_t i = 0; i < count; ++i) {
    workers.push_back(std::make_unique<FakeWorker>(workshop));
  }
  return workers;
}

std::uint64_t taken(TrainingPool& pool, TrainingPool::Key key) {
  const auto result = pool.take(key);
  REQUIRE(result.ok());
  return result->num_examples;
}

bool eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace

TEST_CASE("a job's result goes to who submitted it, in any order, with any number of workers") {
  const auto others = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{3});
  const std::uint64_t seed = 20;
  CAPTURE(others, seed);
  RandomStream random(seed, RandomPurpose::kTraining);
  Workshop workshop;
  TrainingPool pool(std::make_unique<FakeWorker>(workshop), fakes(workshop, others), 4);
  std::map<std::uint64_t, TrainingPool::Key> open;
  std::uint64_t next = 0, asked = 0, cancelled = 0;
  for (int step = 0; step < 20'000; ++step) {
    const double what = random.uniform();
    if (what < 0.5 || open.empty()) {
      TrainingJob made = job(next);
      made.may_be_late = random.uniform() < 0.2;
      open.emplace(next, pool.submit(at(static_cast<int>(random.below(1000))), std::move(made)));
      ++next;
      continue;
    }
    auto one = open.begin();
    std::advance(one,
                 static_cast<std::ptrdiff_t>(random.below(std::min<std::size_t>(open.size(), 50))));
    if (what < 0.9) {
      REQUIRE(taken(pool, one->second) == 1000 + one->first);
      ++asked;
    } else {
      pool.cancel(one->second);
      ++cancelled;
    }
    open.erase(one);
  }
  for (const auto& [client, key] : open) REQUIRE(taken(pool, key) == 1000 + client);
  asked += open.size();
  CHECK(asked + cancelled == next);
  const auto begun = workshop.begun();
  CHECK(std::set(begun.begin(), begun.end()).size() == begun.size());  // none is computed twice
  CHECK(begun.size() >= asked);
  if (others == 0) CHECK(begun.size() == asked);  // alone, nothing is computed for nothing
  CHECK(pool.begun() == begun.size());
}

TEST_CASE("workers begin jobs in the order in which they are due, a bounded number ahead") {
  Workshop workshop;
  TrainingPool pool(std::make_unique<FakeWorker>(workshop), fakes(workshop, 1), 3);
  workshop.hold(0);
  const auto first = pool.submit(at(0), job(0));  // keeps the worker until all are submitted
  REQUIRE(workshop.wait_for_begun(1));
  std::vector<TrainingPool::Key> keys;
  for (const int due : {50, 10, 40, 20, 30}) {
    keys.push_back(pool.submit(at(due), job(static_cast<std::uint64_t>(due))));
  }
  workshop.release(0);
  REQUIRE(workshop.wait_for_begun(3));
  CHECK(taken(pool, first) == 1000);  // two lie ready: more than half of three, so nobody is woken
  CHECK(workshop.begun() == std::vector<std::uint64_t>{0, 10, 20});
  CHECK(taken(pool, keys[1]) == 1010);
  REQUIRE(workshop.wait_for_begun(5));
  CHECK(workshop.begun() == std::vector<std::uint64_t>{0, 10, 20, 30, 40});
}

TEST_CASE("jobs due at one moment are begun in the order of submission") {
  Workshop workshop;
  TrainingPool pool(std::make_unique<FakeWorker>(workshop), fakes(workshop, 1), 8);
  workshop.hold(0);
  pool.submit(at(0), job(0));
  REQUIRE(workshop.wait_for_begun(1));
  for (std::uint64_t i = 1; i < 6; ++i) pool.submit(at(7), job(i));
  workshop.release(0);
  REQUIRE(workshop.wait_for_begun(6));
  CHECK(workshop.begun() == std::vector<std::uint64_t>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("what was cancelled before its turn, or may be late, is not computed ahead") {
  Workshop workshop;
  TrainingPool pool(std::make_unique<FakeWorker>(workshop), fakes(workshop, 1), 8);
  workshop.hold(0);
  const auto first = pool.submit(at(0), job(0));
  REQUIRE(workshop.wait_for_begun(1));
  TrainingJob late = job(1);
  late.may_be_late = true;
  const auto maybe = pool.submit(at(1), std::move(late));
  const auto unwanted = pool.submit(at(2), job(2));
  const auto wanted = pool.submit(at(3), job(3));
  pool.cancel(unwanted);
  workshop.release(0);
  REQUIRE(workshop.wait_for_begun(2));
  CHECK(taken(pool, first) == 1000);
  CHECK(taken(pool, wanted) == 1003);
  CHECK(workshop.begun() == std::vector<std::uint64_t>{0, 3});
  CHECK(taken(pool, maybe) == 1001);  // asked for after all
  CHECK(workshop.begun() == std::vector<std::uint64_t>{0, 3, 1});
}

TEST_CASE("who waits for a worker trains the next job meanwhile") {
  Workshop workshop;
  TrainingPool pool(std::make_unique<FakeWorker>(workshop), fakes(workshop, 1), 4);
  workshop.hold(0);
  const auto first = pool.submit(at(0), job(0));
  REQUIRE(workshop.wait_for_begun(1));
  const auto second = pool.submit(at(1), job(1));
  std::thread gate([&] {
    // Only the waiting thread can begin job 1: the worker is held in job 0.
    const bool helped = workshop.wait_for_begun(2);
    workshop.release(0);
    if (!helped) WARN("job 1 was not begun while job 0 was awaited");
  });
  CHECK(taken(pool, first) == 1000);
  gate.join();
  CHECK(workshop.begun() == std::vector<std::uint64_t>{0, 1});
  CHECK(taken(pool, second) == 1001);
}

TEST_CASE("the jobs of a worker that is gone are computed by the others, once") {
  Workshop workshop;
  std::atomic<int> calls{0};
  std::vector<std::unique_ptr<TrainingWorker>> others;
  others.push_back(std::make_unique<GoneWorker>(calls));
  others.push_back(std::make_unique<FakeWorker>(workshop));
  TrainingPool pool(std::make_unique<FakeWorker>(workshop), std::move(others), 8);
  std::vector<TrainingPool::Key> keys;
  for (std::uint64_t i = 0; i < 200; ++i) keys.push_back(pool.submit(at(0), job(i)));
  for (std::uint64_t i = 0; i < 200; ++i) CHECK(taken(pool, keys[i]) == 1000 + i);
  CHECK(calls <= 1);  // it may not have come to any
  const auto begun = workshop.begun();
  CHECK(begun.size() == 200);
  CHECK(std::set(begun.begin(), begun.end()).size() == 200);
}

TEST_CASE("a worker whose jobs wait behind others' is given one only where all have enough") {
  class Queueing : public FakeWorker {
   public:
    using FakeWorker::FakeWorker;
    bool queues() const override { return true; }
  };
  Workshop workshop;
  std::vector<std::unique_ptr<TrainingWorker>> others;
  others.push_back(std::make_unique<Queueing>(workshop));
  TrainingPool pool(std::make_unique<FakeWorker>(workshop), std::move(others), 8);
  std::vector<TrainingPool::Key> keys;
  for (std::uint64_t i = 0; i < 2; ++i) keys.push_back(pool.submit(at(0), job(i)));
  for (std::uint64_t i = 0; i < 2; ++i) CHECK(taken(pool, keys[i]) == 1000 + i);
  workshop.hold(10);  // both jobs were done by who asked: the first of five is left to the worker
  for (std::uint64_t i = 10; i < 15; ++i) keys.push_back(pool.submit(at(1), job(i)));
  REQUIRE(workshop.wait_for_begun(3));
  CHECK(workshop.begun() == std::vector<std::uint64_t>{0, 1, 10});
  workshop.release(10);
  REQUIRE(workshop.wait_for_begun(5));  // of 11 to 14, the last two are not for it
  for (std::uint64_t i = 0; i < 5; ++i) CHECK(taken(pool, keys[2 + i]) == 1010 + i);
}

TEST_CASE("a running job that is cancelled is stopped, and so is one at the pool's end") {
  std::atomic<int> at_work{0};
  Workshop workshop;
  std::vector<std::unique_ptr<TrainingWorker>> others;
  others.push_back(std::make_unique<EndlessWorker>(at_work));
  {
    TrainingPool pool(std::make_unique<FakeWorker>(workshop), std::move(others), 2);
    const auto first = pool.submit(at(0), job(0));
    REQUIRE(eventually([&] { return at_work == 1; }));
    pool.cancel(first);
    REQUIRE(eventually([&] { return at_work == 0; }));
    pool.submit(at(0), job(1));
    REQUIRE(eventually([&] { return at_work == 1; }));
  }
  CHECK(at_work == 0);
}

TEST_CASE("a stopped run waits for no worker") {
  std::atomic<int> at_work{0};
  std::atomic<bool> stop{false};
  std::vector<std::unique_ptr<TrainingWorker>> others;
  others.push_back(std::make_unique<EndlessWorker>(at_work));
  TrainingPool pool(std::make_unique<EndlessWorker>(at_work), std::move(others), 2);
  pool.stop_with(stop);
  const auto first = pool.submit(at(0), job(0));
  REQUIRE(eventually([&] { return at_work == 1; }));
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    stop = true;
  });
  CHECK_FALSE(pool.take(first).ok());
  stopper.join();
  CHECK_FALSE(pool.take(pool.submit(at(0), job(1))).ok());
}
