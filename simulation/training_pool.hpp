#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <covey/client/trainer.hpp>
#include <covey/models/data_set.hpp>
#include <covey/result.hpp>
#include <covey/strategies/registry.hpp>
#include <covey/time.hpp>

namespace covey::simulation {

/// Local training of virtual devices on real threads. Virtual time says when each job's result is
/// needed; the pool computes them in that order, a bounded number ahead, so memory is
/// O(threads x model) however many devices train at once, and a job that is cancelled before its turn
/// is never computed. Results do not depend on the number of threads.
/// `submit`, `take` and `cancel` belong to the simulation's thread.
class TrainingPool {
 public:
  struct Job {
    client::TrainingTask task;
    std::span<const std::uint32_t> examples;
    std::uint32_t max_epochs = UINT32_MAX;
  };
  /// Due time, then order of submission.
  using Key = std::pair<Time, std::uint64_t>;

  /// `threads` counts the calling one, which trains whenever it has to wait.
  TrainingPool(const models::DataSet& data, const strategies::Registry& registry,
               const models::EngineFactory& make_engine,
               const client::SecretsFactory& make_secrets, unsigned threads);
  ~TrainingPool();
  TrainingPool(const TrainingPool&) = delete;
  TrainingPool& operator=(const TrainingPool&) = delete;

  Key submit(Time due, Job job);
  Result<client::TrainedUpdate> take(Key key);
  void cancel(Key key);

 private:
  struct Slot {
    Job job;
    bool running = false;
    bool cancelled = false;
    std::optional<Result<client::TrainedUpdate>> result;
  };
  void work(client::SgdTrainer& trainer);
  static Result<client::TrainedUpdate> compute(client::SgdTrainer& trainer, const Job& job);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable finished_;
  std::map<Key, std::unique_ptr<Slot>> slots_;
  std::map<Key, Slot*> waiting_;
  std::uint64_t sequence_ = 0;
  std::size_t ahead_ = 0;  ///< jobs running or finished but not taken
  std::size_t max_ahead_ = 0;
  bool stopping_ = false;
  client::SgdTrainer own_trainer_;
  std::vector<std::unique_ptr<client::SgdTrainer>> trainers_;
  std::vector<std::thread> threads_;
};

}  // namespace covey::simulation
