#pragma once

#include <atomic>
#include <condition_variable>
#include <covey/client/trainer.hpp>
#include <covey/result.hpp>
#include <covey/simulation/experiment.hpp>
#include <covey/simulation/training_worker.hpp>
#include <covey/strategies/registry.hpp>
#include <covey/time.hpp>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace covey::simulation {

/// Local training of virtual devices on real threads. Virtual time says when each job's result is
/// needed; the pool computes them in that order, a bounded number ahead, so memory is
/// O(workers x model + jobs x small) however many devices train at once, and a job that is
/// cancelled before its turn is never computed. Results do not depend on the number of workers.
/// `submit`, `take` and `cancel` belong to the simulation's thread.
class TrainingPool {
 public:
  using Job = TrainingJob;
  struct Key {
    std::uint32_t slot = 0;
    std::uint64_t number = 0;  ///< of the job, counted over the pool's life
  };

  /// `threads` counts the calling one, which trains whenever it has to wait. `more`: workers beside
  /// those, such as other machines; each has a thread here that waits for it.
  TrainingPool(const Experiment& experiment, const strategies::Registry& registry,
               client::SecretsFactory make_secrets, unsigned threads,
               std::vector<std::unique_ptr<TrainingWorker>> more = {});
  /// `own` works on the calling thread. At most `max_ahead` jobs are begun before they are asked
  /// for.
  TrainingPool(std::unique_ptr<TrainingWorker> own,
               std::vector<std::unique_ptr<TrainingWorker>> others, std::size_t max_ahead);
  ~TrainingPool();
  TrainingPool(const TrainingPool&) = delete;
  TrainingPool& operator=(const TrainingPool&) = delete;

  /// When `stop` is set, training ends with the step at hand and `take` gives errors that say
  /// nothing of the devices: the caller is about to end. Call it before the first `submit`.
  void stop_with(const std::atomic<bool>& stop) { stop_ = &stop; }

  Key submit(Time due, Job job);
  Result<client::TrainedUpdate> take(Key key);
  void cancel(Key key);

  /// Jobs that workers began, wherever they ended: what was computed, also for nothing.
  std::uint64_t begun() const;

 private:
  enum class State : std::uint8_t { kFree, kWaiting, kRunning, kReady };
  struct Slot {
    Time due{};
    std::uint64_t number = 0;
    State state = State::kFree;
    bool dropped = false;                ///< cancelled while it runs: nobody will take it
    std::atomic<bool> cancelled{false};  ///< what its worker looks at
    Job job;
    std::optional<Result<client::TrainedUpdate>> result;
  };
  struct Waiting {
    Time due;
    std::uint64_t number;
    std::uint32_t slot;
  };
  static bool later(const Waiting& a, const Waiting& b);

  void work(TrainingWorker& worker);
  void rest(std::unique_lock<std::mutex>& lock);
  void wake_one();
  bool compute_ahead(TrainingWorker& worker, std::uint32_t index,
                     const std::atomic<bool>& cancelled, std::unique_lock<std::mutex>& lock);
  Result<client::TrainedUpdate> compute_now(std::uint32_t index,
                                            std::unique_lock<std::mutex>& lock);
  void wait_for(Slot& slot, std::unique_lock<std::mutex>& lock);
  std::optional<std::uint32_t> next_to_compute(const TrainingWorker& worker);
  void enqueue(std::uint32_t index);
  void drop_stale();
  bool stale(const Waiting& entry) const;
  void free_slot(std::uint32_t index);
  bool stopped() const { return stop_ != nullptr && stop_->load(std::memory_order_relaxed); }

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable finished_;
  std::deque<Slot> slots_;  ///< they stay where they are
  std::vector<std::uint32_t> free_;
  /// A heap of jobs that may be computed ahead, the earliest on top. An entry whose job was taken
  /// or cancelled meanwhile is stale, and skipped when it comes up.
  std::vector<Waiting> waiting_;
  std::size_t stale_ = 0;
  std::uint64_t jobs_ = 0;
  std::uint64_t begun_ = 0;
  std::size_t ahead_ = 0;  ///< jobs running or finished but not taken
  const std::size_t max_ahead_;
  std::atomic<std::uint64_t> signal_{
      0};                          ///< counts calls to work, for threads that look without the lock
  std::size_t resting_ = 0;        ///< threads that look at signal_
  std::size_t sleeping_ = 0;       ///< of those, at most so many wait for wake_
  const Slot* awaited_ = nullptr;  ///< whose end `finished_` is told of
  bool ending_ = false;
  bool some_queue_ = false;  ///< of others_
  const std::atomic<bool>* stop_ = nullptr;
  const std::atomic<bool> never_{false};
  std::unique_ptr<TrainingWorker> own_;
  std::vector<std::unique_ptr<TrainingWorker>> others_;
  std::vector<std::thread> threads_;
};

}  // namespace covey::simulation
