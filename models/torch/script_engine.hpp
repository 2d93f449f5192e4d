#pragma once

#include <covey/models/engine.hpp>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "flat_optimizer.hpp"
#include "loss.hpp"
#include "script_module.hpp"

namespace covey::torch {

/// models::Engine over a TorchScript module. libtorch allocates what a step needs and keeps it in
/// its own allocator.
class ScriptEngine : public models::Engine {
 public:
  /// Tries the module on a batch of two zero examples, forward and backward.
  static Result<std::unique_ptr<ScriptEngine>> make(const ScriptFile& file, const ModelSpec& spec);

  const ModelLayout& layout() const override { return module_.layout(); }
  models::DataShape data_shape() const override { return shape_; }
  void reserve(std::size_t max_batch) override;
  std::size_t max_batch() const override { return max_batch_; }
  Result<void> load(std::span<const std::byte> model) override;
  void begin_training(const OptimizerSpec& optimizer, RandomStream random) override;
  double train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                    float learning_rate, float proximal_mu) override;
  models::Evaluation evaluate(std::span<const float> inputs,
                              std::span<const std::int32_t> labels) override;
  bool finite() const override;
  double difference_squared_norm() const override;
  Result<SharedBytes> encode_difference(Encoding encoding, RandomStream random) const override;
  std::span<const float> initial() const override;
  std::span<const float> trained() const override;
  std::size_t bytes() const override;
  std::string_view problem() const override { return problem_; }

 private:
  ScriptEngine(ScriptModule module, const ModelSpec& spec);

  /// libtorch draws dropout masks from one generator that all threads share, so whoever needs draws
  /// of its own seeds it, draws and lets others on.
  static std::mutex& generator_mutex();

  // In script_probe.cpp: what the module takes and gives, found out by trying.
  Result<void> probe();
  bool takes_tokens(const at::Tensor& zeros);
  Result<void> read_shape(const at::Tensor& outputs);
  Result<void> probe_training(const at::Tensor& inputs);
  std::string refusal(const at::Tensor& inputs, const std::string& reason) const;

  TensorBatch batch_of(std::span<const float> inputs, std::span<const std::int32_t> labels,
                       std::size_t examples) const;
  at::Tensor training_outputs(const at::Tensor& inputs);
  double step(std::span<const float> inputs, std::span<const std::int32_t> labels,
              float learning_rate, float proximal_mu);

  ScriptModule module_;
  ModelSpec spec_;
  models::DataShape shape_;
  std::size_t max_batch_ = 0;
  FlatOptimizer optimizer_;
  std::uint64_t seed_ = 0;   ///< of this round's training
  std::uint64_t steps_ = 0;  ///< since begin_training
  at::Tensor initial_;       ///< w^t, R^d, on the module's device
  at::Tensor scratch_;       ///< R^p, for the proximal term; made when there is one
  std::string problem_;      ///< why a step or evaluation gave NaN, where libtorch said so
  // Copies in main memory, for a module that computes elsewhere.
  mutable std::vector<float> host_initial_, host_trained_;
};

}  // namespace covey::torch
