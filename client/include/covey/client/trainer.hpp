#pragma once

#include <atomic>
#include <covey/bytes.hpp>
#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/models/data_set.hpp>
#include <covey/models/engine.hpp>
#include <covey/privacy/packed_vector.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/result.hpp>
#include <covey/strategies/registry.hpp>
#include <covey/time.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace covey::client {

/// One device's work in one round, as a value: enough to do it on any thread.
struct TrainingTask {
  RunId run{};
  RoundNumber round{};
  ClientId client{};
  TrainingPlan plan;
  SharedBytes model;         ///< as model_encoding(plan.precision), verified against its hash
  Duration report_within{};  ///< until the round's deadline, from the assignment; 0: none known
  /// R^d in fp32: what compression lost of this device's earlier updates (error feedback); empty: nothing.
  SharedBytes residual = {};
};

/// What comes of it: the update, encoded, and what a Report says of it.
struct TrainedUpdate {
  SharedBytes update;
  Digest digest;  ///< of `update`
  double weight = 0;
  std::vector<double> scalars;
  std::uint64_t num_examples = 0;
  std::uint32_t steps = 0;
  double train_loss = 0;
  /// Under secure aggregation: how `update` is packed. It is not to leave the device before it is
  /// masked, so it has no digest yet; weight and figures are inside.
  std::optional<privacy::PackedFormat> packed;
  std::uint64_t clipped_coordinates = 0;  ///< likewise: outside the fixed-point range
  /// R^d in fp32: what compression lost, TrainingTask::residual of the next round once this update is
  /// counted; nothing without error feedback.
  std::optional<SharedBytes> residual = std::nullopt;
};

/// Where a device's noise comes from, by round and client. A deployment has the system's generator.
using SecretsFactory =
    std::function<std::unique_ptr<privacy::SecretSource>(RoundNumber, ClientId)>;
std::unique_ptr<privacy::SecretSource> system_secrets_for(RoundNumber round, ClientId client);

/// How the host watches and stops training. Called between steps on the training thread.
struct TrainingControl {
  const std::atomic<bool>* cancelled = nullptr;      ///< checked between steps
  std::atomic<std::uint32_t>* steps_done = nullptr;  ///< written between steps
  /// Set when time runs short: training ends with the epoch at hand, if the plan accepts partial
  /// work.
  const std::atomic<bool>* wrap_up = nullptr;
  /// Set while training has to rest; it goes on with the next step when this is cleared and notified
  /// (std::atomic::notify_all). To cancel a training that may rest, set `cancelled`, then clear and notify
  /// this.
  const std::atomic<bool>* paused = nullptr;
  /// After how many epochs to stop early; fewer than the plan's only if it accepts partial work.
  std::uint32_t max_epochs = UINT32_MAX;
};

/// What a device does otherwise than it is told to, where a simulation wants it to: an empty function does
/// nothing. Called on the training thread.
struct Deviation {
  /// Changes each batch before it is trained on: features [n x example size], labels [n x labels of each].
  std::function<void(std::span<float> features, std::span<std::int32_t> labels)> examples;
  /// Changes the update, R^d, before it is made private and encoded. An error fails the training.
  std::function<Result<void>(std::span<float> update)> update;
};

/// The seam between the protocol and a training engine. One thread at a time.
class Trainer {
 public:
  virtual ~Trainer() = default;
  /// Error: cancelled, loss or parameters not finite, plan that cannot be carried out.
  virtual Result<TrainedUpdate> train(const TrainingTask& task, const TrainingControl& control) = 0;
};

/// Epochs of minibatch SGD over local examples, then the strategy's device half. Keeps its engine
/// between rounds while the plan's network and precision stay the same, so nothing is allocated per
/// step. `data` and `registry` outlive it.
class SgdTrainer : public Trainer {
 public:
  SgdTrainer(const models::DataSet& data, const strategies::Registry& registry,
             models::EngineFactory make_engine = models::make_engine,
             SecretsFactory make_secrets = system_secrets_for);
  ~SgdTrainer() override;

  /// The examples that the next `train` uses: indices into `data`; copied nowhere, must stay alive.
  void use_examples(std::span<const std::uint32_t> indices) { indices_ = indices; }
  /// The same, of another data set, which must stay alive likewise.
  void use_examples(const models::DataSet& data, std::span<const std::uint32_t> indices) {
    data_ = &data;
    indices_ = indices;
  }
  /// From the next `train` on; {} makes the device honest again.
  void use_deviation(Deviation deviation) { deviation_ = std::move(deviation); }
  /// Whether engine and buffers go after each training, and what is no longer needed as soon as the update
  /// is made of it: for a device that trains now and then. Off at first.
  void free_after_training(bool frees) { frees_ = frees; }
  /// Frees them now; the next `train` makes them again.
  void release();
  /// Running out of memory is an error like others.
  Result<TrainedUpdate> train(const TrainingTask& task, const TrainingControl& control) override;

 private:
  struct Workbench;
  Result<TrainedUpdate> train_to_the_end(const TrainingTask& task, const TrainingControl& control);
  const models::DataSet* data_;
  const strategies::Registry& registry_;
  SecretsFactory make_secrets_;
  std::span<const std::uint32_t> indices_;
  bool frees_ = false;
  Deviation deviation_;
  std::unique_ptr<Workbench> workbench_;
};

/// A random update of the model's length in the plan's encoding, for load tests without training.
class EchoTrainer : public Trainer {
 public:
  Result<TrainedUpdate> train(const TrainingTask& task, const TrainingControl& control) override;

 private:
  Result<void> plan_for(const TrainingTask& task);

  std::optional<ModelSpec> spec_;  ///< that layout_ is of, in precision_
  std::string precision_;
  ModelLayout layout_;
};

}  // namespace covey::client
