#include "client/daemon/device_trainer.hpp"

#include <new>
#include <numeric>

namespace covey::client {

DeviceTrainer::DeviceTrainer(LocalData& data)
    : data_(data), registry_(strategies::Registry::with_built_ins()), trainer_(none_, registry_) {
  trainer_.free_after_training(true);  // rounds are minutes or days apart
}

Result<TrainedUpdate> DeviceTrainer::train(const TrainingTask& task,
                                           const TrainingControl& control) {
  {
    const std::lock_guard lock(mutex_);
    control_ = control;
    training_ = true;
  }
  Result<TrainedUpdate> update = failed("");
  try {
    auto examples = data_.examples();
    update = examples.ok() ? train_on(*examples, task, control) : examples.error();
    if (update.ok()) data_.update_made(*examples, task.run, task.round);
  } catch (const std::bad_alloc&) {
    // With a ceiling on the process's memory. What was taken is free again.
    update = failed("the local data need more memory than this device allows");
  }
  const std::lock_guard lock(mutex_);
  training_ = false;
  control_ = {};
  return update;
}

Result<TrainedUpdate> DeviceTrainer::train_on(const Examples& examples, const TrainingTask& task,
                                              const TrainingControl& control) {
  if (examples->empty()) return failed("this device has no examples to train on");
  indices_.resize(examples->size());
  std::iota(indices_.begin(), indices_.end(), std::uint32_t{0});
  trainer_.use_examples(*examples, indices_);
  auto update = trainer_.train(task, control);
  trainer_.use_examples(none_, {});
  return update;
}

std::optional<std::uint32_t> DeviceTrainer::steps() const {
  const std::lock_guard lock(mutex_);
  if (!training_ || control_.steps_done == nullptr) return std::nullopt;
  if (control_.paused != nullptr && control_.paused->load()) return std::nullopt;
  return control_.steps_done->load(std::memory_order_relaxed);
}

}  // namespace covey::client
