#pragma once

#include <atomic>
#include <covey/client/trainer.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <optional>

namespace covey::simulation {

/// One virtual device's local training, as a value.
struct TrainingJob {
  client::TrainingTask task;
  std::uint32_t max_epochs = UINT32_MAX;
  /// Its result will probably not matter: it is computed when it is asked for, never ahead.
  bool may_be_late = false;
};

/// Computes one job at a time, on whatever thread calls it: here, or on another machine. The same
/// job gives the same bytes on every worker.
class TrainingWorker {
 public:
  /// The update, or why the device has none. Nothing: this worker could not finish the job, because
  /// `cancelled` was set or because it is gone for good; another may compute it.
  using Outcome = std::optional<Result<client::TrainedUpdate>>;

  virtual ~TrainingWorker() = default;
  /// Looks at `cancelled` now and then.
  virtual Outcome compute(const TrainingJob& job, const std::atomic<bool>& cancelled) = 0;
  /// Its jobs wait behind those of other workers: it is given one only where there are enough for all.
  virtual bool queues() const { return false; }
};

}  // namespace covey::simulation
