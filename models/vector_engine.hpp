#pragma once

#include <covey/models/engine.hpp>
#include <covey/models/optimizer.hpp>
#include <optional>

namespace covey::models {

/// Trains in fp32: w^t (or a share of the bytes it came in), w and the optimiser's state are all it
/// keeps of a model's size, beside the workspace. One thread at a time.
class VectorEngine : public Engine {
 public:
  explicit VectorEngine(Network network);

  const ModelLayout& layout() const override { return network_.layout(); }
  DataShape data_shape() const override;
  Result<void> check_training(const OptimizerSpec& optimizer, std::size_t batch) const override;
  void reserve(std::size_t max_batch) override;
  std::size_t max_batch() const override { return options_.max_batch; }

  Result<void> load(std::span<const std::byte> model) override;
  Result<void> load_shared(const SharedBytes& model) override;
  void begin_training(const OptimizerSpec& optimizer, RandomStream random) override;
  double train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                    float learning_rate, float proximal_mu) override;
  Evaluation evaluate(std::span<const float> inputs, std::span<const std::int32_t> labels) override;

  bool finite() const override;
  double difference_squared_norm() const override;
  Result<SharedBytes> encode_difference(Encoding encoding, RandomStream random) const override;
  ParameterVector take_difference() override;
  void release_scratch() override;
  std::span<const float> initial() const override { return initial_; }
  std::span<const float> trained() const override { return trained_.span(); }

  std::size_t bytes() const override;

 protected:
  const Network& network() const { return network_; }
  Workspace& workspace();
  /// A training step with loss and gradient at other parameters than those that move; empty: at
  /// those.
  double step_at(std::span<const float> evaluated_at, std::span<const float> inputs,
                 std::span<const std::int32_t> labels, float learning_rate, float proximal_mu);

 private:
  void start_from(std::span<const float> initial);
  void need(bool training, bool keeps_gradient);

  Network network_;
  WorkspaceOptions options_{.max_batch = 0, .training = false};
  std::optional<Workspace> workspace_;  ///< by options_; made when it is first needed
  std::optional<Optimizer> optimizer_;  ///< none: plain SGD
  std::span<const float> initial_;      ///< w^t, R^d: of one of the next two
  ParameterVector own_initial_;
  SharedBytes shared_initial_;
  ParameterVector trained_;                               ///< w, R^d
  RandomStream random_{0, RandomPurpose::kTrainingStep};  ///< a key for each step
};

}  // namespace covey::models
