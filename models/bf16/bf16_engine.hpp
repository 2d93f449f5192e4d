#pragma once

#include <covey/models/engine.hpp>
#include <covey/models/optimizer.hpp>
#include <optional>

#include "bf16/bf16_pass.hpp"

namespace covey::models {

/// Trains with bf16 weights and activations and fp32 sums: w^t and w take 2 bytes a weight each and
/// no fp32 copy of the model exists, except where an optimiser with state or a batch that runs in
/// pieces needs the whole gradient. Steps are rounded stochastically, so that ones far below half a
/// unit in the last place (2^-9 of a weight) are not lost but taken now and then. One thread at a
/// time.
class Bf16Engine final : public Engine {
 public:
  static Result<std::unique_ptr<Engine>> make(const ModelSpec& spec);

  const ModelLayout& layout() const override { return plan_.layout; }
  DataShape data_shape() const override;
  Result<void> check_training(const OptimizerSpec& optimizer, std::size_t batch) const override;
  void reserve(std::size_t max_batch) override;
  std::size_t max_batch() const override { return max_batch_; }

  Result<void> load(std::span<const std::byte> model) override;
  void begin_training(const OptimizerSpec& optimizer, RandomStream random) override;
  double train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                    float learning_rate, float proximal_mu) override;
  Evaluation evaluate(std::span<const float> inputs, std::span<const std::int32_t> labels) override;

  bool finite() const override;
  double difference_squared_norm() const override;
  Result<SharedBytes> encode_difference(Encoding encoding, RandomStream random) const override;
  void release_scratch() override;
  std::size_t bytes() const override;

 private:
  explicit Bf16Engine(NetworkPlan plan);
  std::size_t size() const { return plan_.layout.size(); }
  std::span<const std::uint16_t> weights() const { return {weights_.halves(0), size()}; }
  Bf16Pass pass();
  void reserve_gradient();
  double train_gathered(std::span<const float> inputs, std::span<const std::int32_t> labels,
                        Bf16Descent descent, float proximal_mu);
  void apply_optimizer(const Bf16Step& step, float learning_rate, float proximal_mu);
  template <typename F>
  void for_each_block(F f) const;
  template <typename F>
  void for_each_chunk(std::span<const float> inputs, std::span<const std::int32_t> labels, F f);

  NetworkPlan plan_;
  const Bf16Kernels& kernels_;
  Bf16Plan memory_;
  std::size_t max_batch_ = 0;
  Bf16Block block_;
  Bf16Block initial_;         ///< w^t, bf16
  Bf16Block weights_;         ///< w, bf16
  ParameterVector gradient_;  ///< R^d, where a step needs it whole
  OptimizerSpec optimizer_spec_;
  std::optional<Optimizer> optimizer_;  ///< none: SGD, in the pass that computes the gradient
  RandomStream random_{0, RandomPurpose::kTrainingStep};  ///< a key for each step
};

}  // namespace covey::models
