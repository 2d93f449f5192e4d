#pragma once

#include <covey/models/quantised_model.hpp>
#include <optional>
#include <string>
#include <vector>

#include "qat/fake_weights.hpp"
#include "vector_engine.hpp"

namespace covey::models {

/// Quantisation-aware training: fp32 master weights, but every step sees weights and activations
/// rounded to int8 (Jacob et al. 2018; gradients straight through, Bengio et al. 2013), and
/// evaluation is the integer arithmetic of the exported model. One thread at a time.
class QatEngine final : public VectorEngine {
 public:
  /// Error naming the first layer that the integer engine does not know.
  static Result<std::unique_ptr<Engine>> make(const ModelSpec& spec);

  Result<void> load(std::span<const std::byte> model) override;
  Result<void> load_shared(const SharedBytes& model) override;
  double train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                    float learning_rate, float proximal_mu) override;
  /// Of the integer model, which is built once for the weights as they are: that allocates. While
  /// no step has set the ranges (the first round's model) it is calibrated on each batch anew, so
  /// that the result does not depend on which batches came before.
  Evaluation evaluate(std::span<const float> inputs, std::span<const std::int32_t> labels) override;
  std::string_view problem() const override { return problem_; }
  std::size_t bytes() const override;

 private:
  explicit QatEngine(Network network);
  /// The integer model for these ranges, or the reason there is none in problem_.
  bool build(std::span<const float> ranges);

  FakeWeights weights_;
  std::size_t num_weights_ = 0;    ///< parameters without the ranges at the end
  std::vector<float> calibrated_;  ///< ranges of one batch
  std::optional<QuantisedModel> integer_model_;
  bool current_ = false;  ///< integer_model_ is of these weights, with known ranges
  std::string problem_;
};

}  // namespace covey::models
