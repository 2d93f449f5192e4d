#pragma once

#include <covey/models/engine.hpp>
#include <covey/models/int8_network.hpp>
#include <optional>

namespace covey::models {

/// Trains in int8: the round's model as the bytes it came in and the resident weights are all it
/// keeps, a byte a weight each; with a proximal term the round's weights as well. One thread at a
/// time.
class Int8Engine final : public Engine {
 public:
  explicit Int8Engine(Int8Network network);

  const ModelLayout& layout() const override { return network_.layout(); }
  DataShape data_shape() const override;
  /// Larger batches than the network can sum are evaluated in pieces.
  void reserve(std::size_t max_batch) override;
  std::size_t max_batch() const override { return max_batch_; }
  Result<void> check_training(const OptimizerSpec& optimizer, std::size_t batch) const override;

  Result<void> load(std::span<const std::byte> model) override;
  Result<void> load_shared(const SharedBytes& model) override;
  void begin_training(const OptimizerSpec& optimizer, RandomStream random) override;
  double train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                    float learning_rate, float proximal_mu) override;
  Evaluation evaluate(std::span<const float> inputs, std::span<const std::int32_t> labels) override;

  bool finite() const override;
  double difference_squared_norm() const override;
  /// Whole steps of the model's own scales: nothing is rounded, so `random` is not drawn from.
  Result<SharedBytes> encode_difference(Encoding encoding, RandomStream random) const override;

  void release_scratch() override;
  std::size_t bytes() const override;

 private:
  Int8Network network_;
  std::size_t max_batch_ = 0;
  std::optional<Int8Workspace> workspace_;
  SharedBytes initial_;                                   ///< w^t, an int8 blob
  Int8Parameters trained_;                                ///< w
  std::optional<Int8Parameters> anchor_;                  ///< w^t, once a step had a proximal term
  bool anchor_loaded_ = false;                            ///< anchor_ holds this round's
  RandomStream random_{0, RandomPurpose::kTrainingStep};  ///< a seed for each step
};

}  // namespace covey::models
