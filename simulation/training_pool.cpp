#include "training_pool.hpp"

#include <covey/assert.hpp>

namespace covey::simulation {

TrainingPool::TrainingPool(const models::DataSet& data, const strategies::Registry& registry,
                           const models::EngineFactory& make_engine,
                           const client::SecretsFactory& make_secrets, unsigned threads)
    // Two results ahead per thread keep every worker busy while the simulation consumes one.
    : max_ahead_(2 * static_cast<std::size_t>(threads)),
      own_trainer_(data, registry, make_engine, make_secrets) {
  COVEY_ASSERT(threads >= 1);
  for (unsigned i = 1; i < threads; ++i) {
    trainers_.push_back(std::make_unique<client::SgdTrainer>(data, registry, make_engine, make_secrets));
    threads_.emplace_back([this, trainer = trainers_.back().get()] { work(*trainer); });
  }
}

TrainingPool::~TrainingPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

TrainingPool::Key TrainingPool::submit(Time due, Job job) {
  auto slot = std::make_unique<Slot>();
  slot->job = std::move(job);
  Key key;
  {
    const std::lock_guard lock(mutex_);
    key = {due, sequence_++};
    waiting_.emplace(key, slot.get());
    slots_.emplace(key, std::move(slot));
  }
  if (!threads_.empty()) wake_.notify_one();
  return key;
}

Result<client::TrainedUpdate> TrainingPool::take(Key key) {
  std::unique_lock lock(mutex_);
  const auto found = slots_.find(key);
  COVEY_ASSERT(found != slots_.end());
  Slot& slot = *found->second;
  if (!slot.running && !slot.result) {  // nobody has begun it: do it here instead of waiting
    waiting_.erase(key);
    lock.unlock();
    auto result = compute(own_trainer_, slot.job);
    lock.lock();
    slots_.erase(key);
    return result;
  }
  finished_.wait(lock, [&slot] { return slot.result.has_value(); });
  auto result = std::move(*slot.result);
  slots_.erase(key);
  --ahead_;
  lock.unlock();
  wake_.notify_one();
  return result;
}

void TrainingPool::cancel(Key key) {
  const std::lock_guard lock(mutex_);
  const auto found = slots_.find(key);
  if (found == slots_.end()) return;
  if (found->second->running) {
    found->second->cancelled = true;  // the worker drops it when it ends
    return;
  }
  if (found->second->result) --ahead_;
  waiting_.erase(key);
  slots_.erase(found);
}

void TrainingPool::work(client::SgdTrainer& trainer) {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || (!waiting_.empty() && ahead_ < max_ahead_); });
    if (stopping_) return;
    const auto first = waiting_.begin();
    const Key key = first->first;
    Slot& slot = *first->second;
    waiting_.erase(first);
    slot.running = true;
    ++ahead_;
    lock.unlock();
    auto result = compute(trainer, slot.job);
    lock.lock();
    slot.running = false;
    if (slot.cancelled) {
      slots_.erase(key);
      --ahead_;
    } else {
      slot.result.emplace(std::move(result));
      finished_.notify_one();
    }
  }
}

Result<client::TrainedUpdate> TrainingPool::compute(client::SgdTrainer& trainer, const Job& job) {
  trainer.use_examples(job.examples);
  client::TrainingControl control;
  control.max_epochs = job.max_epochs;
  return trainer.train(job.task, control);
}

}  // namespace covey::simulation
