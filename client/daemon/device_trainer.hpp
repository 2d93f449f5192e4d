#pragma once

#include <atomic>
#include <covey/client/local_data.hpp>
#include <covey/client/trainer.hpp>
#include <covey/strategies/registry.hpp>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace covey::client {

/// Trains on what the device's data hold at the moment, and tells them which update was made of them.
/// `train` on one thread at a time, the rest on any.
class DeviceTrainer final : public Trainer {
 public:
  /// `data` outlives it.
  explicit DeviceTrainer(LocalData& data);

  Result<TrainedUpdate> train(const TrainingTask& task, const TrainingControl& control) override;

  /// Steps of the training at hand; nothing between trainings and while one rests.
  std::optional<std::uint32_t> steps() const;

 private:
  using Examples = std::shared_ptr<const models::DataSet>;

  Result<TrainedUpdate> train_on(const Examples& examples, const TrainingTask& task,
                                 const TrainingControl& control);

  LocalData& data_;
  const models::DataSet none_;  ///< what the trainer points at between two trainings
  const strategies::Registry registry_;
  SgdTrainer trainer_;
  std::vector<std::uint32_t> indices_;

  mutable std::mutex mutex_;
  TrainingControl control_;  ///< of the training at hand, under mutex_
  bool training_ = false;
};

}  // namespace covey::client
