// What the pool itself costs a job: submit, the worker's turn and take, with jobs that do nothing
// or turn the processor for 10 us (a device with the logistic model). One round of 100 devices at a
// time.

#include <benchmark/benchmark.h>

#include <chrono>
#include <memory>
#include <vector>

#include "simulation/training_pool.hpp"

namespace {

using namespace covey;
using namespace covey::simulation;

constexpr int kDevices = 100;

class Turner : public TrainingWorker {
 public:
  explicit Turner(std::chrono::nanoseconds time) : time_(time) {}
  Outcome compute(const TrainingJob&, const std::atomic<bool>&) override {
    const auto until = std::chrono::steady_clock::now() + time_;
    while (std::chrono::steady_clock::now() < until) {
    }
    return Result<client::TrainedUpdate>(client::TrainedUpdate{});
  }

 private:
  std::chrono::nanoseconds time_;
};

/// Arguments: threads, nanoseconds a job takes. `own_us`: wall time a job beyond its share of work.
void pool_round(benchmark::State& state) {
  const auto threads = static_cast<std::size_t>(state.range(0));
  const std::chrono::nanoseconds time(state.range(1));
  std::vector<std::unique_ptr<TrainingWorker>> others;
  for (std::size_t i = 1; i < threads; ++i) others.push_back(std::make_unique<Turner>(time));
  TrainingPool pool(std::make_unique<Turner>(time), std::move(others), 4 * threads);
  std::vector<TrainingPool::Key> keys(kDevices);
  const auto began = std::chrono::steady_clock::now();
  for (auto _ : state) {
    for (int i = 0; i < kDevices; ++i) {
      keys[static_cast<std::size_t>(i)] =
          pool.submit(Time{} + std::chrono::milliseconds(i * 37 % kDevices), {});
    }
    for (int i = 0; i < kDevices; ++i) {
      benchmark::DoNotOptimize(pool.take(keys[static_cast<std::size_t>(i * 73 % kDevices)]));
    }
  }
  const double us =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count();
  const double per_job = us / (kDevices * static_cast<double>(state.iterations()));
  state.counters["job_us"] = per_job;
  state.counters["own_us"] =
      per_job - static_cast<double>(state.range(1)) / 1000 / static_cast<double>(threads);
}

BENCHMARK(pool_round)->ArgsProduct({{1, 2}, {0, 10'000, 1'000'000}})->UseRealTime();

}  // namespace
