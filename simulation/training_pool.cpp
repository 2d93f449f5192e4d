#include "training_pool.hpp"

#include <algorithm>
#include <chrono>
#include <covey/assert.hpp>
#include <utility>

#include "local_worker.hpp"

namespace covey::simulation {
namespace {

// How long a thread looks for work before it sleeps: about what falling asleep and being woken
// cost.
constexpr auto kLooksFor = std::chrono::microseconds(20);
constexpr int kLooksBetweenClocks = 32;
// How often a sleeping `take` looks whether the run was stopped.
constexpr auto kStopInterval = std::chrono::milliseconds(20);
// Stale entries that are not worth a pass over the heap.
constexpr std::size_t kFewStale = 256;

// Results ahead, by worker: two keep it busy while the simulation consumes one. More save wake-ups
// where a job takes microseconds, but may be for nothing, since a round can end before their turn.
constexpr std::size_t kMinAhead = 2;
constexpr std::size_t kMaxAhead = 4;
constexpr std::size_t kAheadBytes = std::size_t{16} << 20;  // all together, beyond kMinAhead
constexpr std::size_t kMaxBytesPerParameter = 8;            // of an update, packed for a secure sum

std::size_t ahead_for(std::size_t parameters, std::size_t workers) {
  const std::size_t update = std::max<std::size_t>(1, kMaxBytesPerParameter * parameters);
  return std::clamp(kAheadBytes / update, kMinAhead * workers, kMaxAhead * workers);
}

std::vector<std::unique_ptr<TrainingWorker>> with_local(
    const Experiment& experiment, const strategies::Registry& registry,
    const client::SecretsFactory& make_secrets, unsigned threads,
    std::vector<std::unique_ptr<TrainingWorker>> more) {
  COVEY_ASSERT(threads >= 1);
  for (unsigned i = 1; i < threads; ++i) {
    more.push_back(std::make_unique<LocalWorker>(experiment, registry, make_secrets));
  }
  return more;
}

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

/// Whether `ready` came true within kLooksFor.
template <typename Ready>
bool look_for(Ready ready) {
  const auto until = std::chrono::steady_clock::now() + kLooksFor;
  do {
    for (int i = 0; i < kLooksBetweenClocks; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < until);
  return false;
}

}  // namespace

TrainingPool::TrainingPool(const Experiment& experiment, const strategies::Registry& registry,
                           client::SecretsFactory make_secrets, unsigned threads,
                           std::vector<std::unique_ptr<TrainingWorker>> more)
    : TrainingPool(std::make_unique<LocalWorker>(experiment, registry, make_secrets),
                   with_local(experiment, registry, make_secrets, threads, std::move(more)),
                   ahead_for(experiment.layout.size(), threads + more.size())) {}

TrainingPool::TrainingPool(std::unique_ptr<TrainingWorker> own,
                           std::vector<std::unique_ptr<TrainingWorker>> others,
                           std::size_t max_ahead)
    : max_ahead_(max_ahead), own_(std::move(own)), others_(std::move(others)) {
  COVEY_ASSERT(max_ahead_ >= 1);
  some_queue_ = std::ranges::any_of(others_, [](const auto& worker) { return worker->queues(); });
  for (const auto& worker : others_) {
    threads_.emplace_back([this, one = worker.get()] { work(*one); });
  }
}

TrainingPool::~TrainingPool() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    for (Slot& slot : slots_) slot.cancelled.store(true, std::memory_order_relaxed);
    signal_.fetch_add(1, std::memory_order_relaxed);
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool TrainingPool::later(const Waiting& a, const Waiting& b) {
  return a.due != b.due ? a.due > b.due : a.number > b.number;
}

bool TrainingPool::stale(const Waiting& entry) const {
  const Slot& slot = slots_[entry.slot];
  return slot.number != entry.number || slot.state != State::kWaiting;
}

void TrainingPool::enqueue(std::uint32_t index) {
  const Slot& slot = slots_[index];
  waiting_.push_back({slot.due, slot.number, index});
  std::push_heap(waiting_.begin(), waiting_.end(), later);
}

/// Entries behind the top may be stale for long: they are cleared away before they are most of it.
void TrainingPool::drop_stale() {
  while (!waiting_.empty() && stale(waiting_.front())) {
    std::pop_heap(waiting_.begin(), waiting_.end(), later);
    waiting_.pop_back();
    if (stale_ > 0) --stale_;
  }
  if (stale_ < kFewStale || stale_ < waiting_.size() / 2) return;
  std::erase_if(waiting_, [this](const Waiting& entry) { return stale(entry); });
  std::make_heap(waiting_.begin(), waiting_.end(), later);
  stale_ = 0;
}

void TrainingPool::free_slot(std::uint32_t index) {
  Slot& slot = slots_[index];
  slot.state = State::kFree;
  slot.number = 0;
  slot.job = {};  // its model goes
  slot.result.reset();
  free_.push_back(index);
}

TrainingPool::Key TrainingPool::submit(Time due, Job job) {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const std::uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  slot.due = due;
  slot.number = ++jobs_;
  slot.state = State::kWaiting;
  slot.dropped = false;
  slot.cancelled.store(false, std::memory_order_relaxed);
  slot.job = std::move(job);
  if (!threads_.empty() && !slot.job.may_be_late) {
    enqueue(index);
    if (ahead_ < max_ahead_) wake_one();
  }
  return {index, slot.number};
}

Result<client::TrainedUpdate> TrainingPool::take(Key key) {
  std::unique_lock lock(mutex_);
  Slot& slot = slots_[key.slot];
  COVEY_ASSERT(slot.number == key.number);
  // Another worker has begun it: train what comes next instead of waiting. Otherwise the simulation
  // would follow that worker from job to job, idle.
  while (slot.state == State::kRunning && !stopped()) {
    const auto next = next_to_compute(*own_);
    if (next) {
      compute_ahead(*own_, *next, stop_ != nullptr ? *stop_ : never_, lock);
    } else {
      wait_for(slot, lock);
    }
  }
  if (slot.state == State::kWaiting) return compute_now(key.slot, lock);
  if (slot.state == State::kRunning) return failed("the simulation was stopped");
  auto result = std::move(*slot.result);
  free_slot(key.slot);
  --ahead_;
  // A worker that sleeps because it was far ahead is woken for some jobs at once, not for each.
  if (resting_ > 0 && 2 * ahead_ <= max_ahead_) {
    drop_stale();
    if (!waiting_.empty()) wake_one();
  }
  return result;
}

/// Nobody has begun it: here, instead of waiting for a worker.
Result<client::TrainedUpdate> TrainingPool::compute_now(std::uint32_t index,
                                                        std::unique_lock<std::mutex>& lock) {
  Slot& slot = slots_[index];
  slot.state = State::kRunning;
  if (!threads_.empty() && !slot.job.may_be_late) ++stale_;
  drop_stale();
  ++begun_;
  lock.unlock();
  auto outcome = own_->compute(slot.job, stop_ != nullptr ? *stop_ : never_);
  lock.lock();
  free_slot(index);
  if (!outcome) return failed("the simulation was stopped");
  return std::move(*outcome);
}

/// Returns when `slot` may have ended.
void TrainingPool::wait_for(Slot& slot, std::unique_lock<std::mutex>& lock) {
  awaited_ = &slot;
  const std::uint64_t seen = signal_.load(std::memory_order_relaxed);
  lock.unlock();
  const bool ended = look_for([&] { return signal_.load(std::memory_order_relaxed) != seen; });
  lock.lock();
  if (!ended && slot.state == State::kRunning) finished_.wait_for(lock, kStopInterval);
  awaited_ = nullptr;
}

void TrainingPool::cancel(Key key) {
  const std::lock_guard lock(mutex_);
  Slot& slot = slots_[key.slot];
  if (slot.number != key.number) return;
  if (slot.state == State::kRunning) {  // its worker ends with the step at hand and frees it
    slot.dropped = true;
    slot.cancelled.store(true, std::memory_order_relaxed);
    return;
  }
  if (slot.state == State::kReady) --ahead_;
  if (slot.state == State::kWaiting && !threads_.empty() && !slot.job.may_be_late) ++stale_;
  free_slot(key.slot);
  drop_stale();
  if (resting_ > 0 && !waiting_.empty() && 2 * ahead_ <= max_ahead_) wake_one();
}

std::uint64_t TrainingPool::begun() const {
  const std::lock_guard lock(mutex_);
  return begun_;
}

std::optional<std::uint32_t> TrainingPool::next_to_compute(const TrainingWorker& worker) {
  if (ahead_ >= max_ahead_) return std::nullopt;
  drop_stale();
  const std::size_t enough = worker.queues() ? 1 + others_.size() : 0;
  if (waiting_.size() <= enough) return std::nullopt;
  const std::uint32_t index = waiting_.front().slot;
  std::pop_heap(waiting_.begin(), waiting_.end(), later);
  waiting_.pop_back();
  return index;
}

/// False: the worker is gone.
bool TrainingPool::compute_ahead(TrainingWorker& worker, std::uint32_t index,
                                 const std::atomic<bool>& cancelled,
                                 std::unique_lock<std::mutex>& lock) {
  Slot& slot = slots_[index];
  slot.state = State::kRunning;
  ++ahead_;
  ++begun_;
  lock.unlock();
  auto outcome = worker.compute(slot.job, cancelled);
  lock.lock();
  const bool alive = outcome.has_value() || cancelled.load(std::memory_order_relaxed);
  if (slot.dropped) {
    --ahead_;
    free_slot(index);
  } else if (outcome) {
    slot.state = State::kReady;
    slot.job = {};
    slot.result = std::move(outcome);
  } else {  // for another worker
    --ahead_;
    slot.state = State::kWaiting;
    enqueue(index);
    if (!alive) wake_one();
  }
  if (awaited_ == &slot) {
    signal_.fetch_add(1, std::memory_order_relaxed);
    finished_.notify_one();
  }
  return alive;
}

void TrainingPool::work(TrainingWorker& worker) {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    const auto next = next_to_compute(worker);
    if (!next) {
      rest(lock);
    } else if (!compute_ahead(worker, *next, slots_[*next].cancelled, lock)) {
      return;
    }
  }
}

void TrainingPool::rest(std::unique_lock<std::mutex>& lock) {
  ++resting_;
  const std::uint64_t seen = signal_.load(std::memory_order_relaxed);
  const auto called = [&] { return signal_.load(std::memory_order_relaxed) != seen; };
  lock.unlock();
  const bool found = look_for(called);
  lock.lock();
  if (!found && !called()) {
    ++sleeping_;
    wake_.wait(lock, [&] { return ending_ || called(); });
  }
  --resting_;
}

/// Costs a system call only while a thread sleeps. `sleeping_` may count threads that woke by
/// themselves, never too few.
void TrainingPool::wake_one() {
  if (resting_ == 0) return;
  signal_.fetch_add(1, std::memory_order_relaxed);
  if (sleeping_ == 0) return;
  if (some_queue_) {  // whoever woke alone might not be the one that may begin a job
    sleeping_ = 0;
    wake_.notify_all();
    return;
  }
  --sleeping_;
  wake_.notify_one();
}

}  // namespace covey::simulation
