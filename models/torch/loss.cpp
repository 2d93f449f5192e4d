#include "loss.hpp"

#include <ATen/ATen.h>

#include <covey/models/data_set.hpp>

namespace covey::torch {
namespace {

/// Outputs as one row a prediction, and the label of each.
struct Predictions {
  at::Tensor outputs;  ///< [predictions x classes]
  at::Tensor labels;   ///< int64 [predictions]
};

Predictions predictions_of(const at::Tensor& outputs, const TensorBatch& batch) {
  return {outputs.reshape({-1, outputs.size(-1)}), batch.labels.reshape({-1})};
}

/// What outputs are compared with where that is not a class: [predictions x classes].
at::Tensor targets_of(const ModelSpec& spec, const Predictions& predictions,
                      const TensorBatch& batch) {
  if (spec.target == Target::kInput) return batch.features;
  const at::Tensor known = predictions.labels.clamp_min(0);
  const std::int64_t classes = predictions.outputs.size(1);
  if (classes == 1) return known.unsqueeze(1).to(at::kFloat);
  return at::one_hot(known, classes).to(at::kFloat);
}

/// [predictions]: the loss of each, 0 where there is no target.
at::Tensor losses_of(const ModelSpec& spec, const Predictions& predictions,
                     const TensorBatch& batch) {
  if (spec.loss == Loss::kCrossEntropy) {
    return at::cross_entropy_loss(predictions.outputs, predictions.labels, {}, at::Reduction::None,
                                  models::kNoLabel);
  }
  const at::Tensor targets = targets_of(spec, predictions, batch);
  const at::Tensor each = spec.loss == Loss::kMeanSquaredError
                              ? at::mse_loss(predictions.outputs, targets, at::Reduction::None)
                              : at::binary_cross_entropy_with_logits(predictions.outputs, targets,
                                                                     {}, {}, at::Reduction::None);
  const at::Tensor losses = each.mean(1);
  if (spec.target == Target::kInput) return losses;
  return losses.masked_fill(predictions.labels == models::kNoLabel, 0);
}

std::int64_t targets_in(const ModelSpec& spec, const Predictions& predictions) {
  if (spec.target == Target::kInput) return predictions.outputs.size(0);
  return (predictions.labels != models::kNoLabel).sum().item<std::int64_t>();
}

std::int64_t correct_in(const ModelSpec& spec, const Predictions& predictions) {
  if (spec.target == Target::kInput) return 0;
  const at::Tensor& labels = predictions.labels;
  at::Tensor correct;
  if (predictions.outputs.size(1) > 1) {
    correct = predictions.outputs.argmax(1) == labels;
  } else if (spec.loss == Loss::kMeanSquaredError) {
    correct = ((predictions.outputs.squeeze(1) - labels).abs() < 0.5) & (labels >= 0);
  } else {
    correct = (predictions.outputs.squeeze(1) > 0).to(at::kLong) == labels;
  }
  return correct.sum().item<std::int64_t>();
}

}  // namespace

at::Tensor mean_loss(const ModelSpec& spec, const at::Tensor& outputs, const TensorBatch& batch) {
  const Predictions predictions = predictions_of(outputs, batch);
  const bool all_have_targets =
      spec.target == Target::kInput || batch.labels.dim() < 2 || batch.labels.size(1) == 1;
  if (spec.loss == Loss::kCrossEntropy && all_have_targets) {
    return at::cross_entropy_loss(predictions.outputs, predictions.labels);
  }
  const auto count = static_cast<double>(targets_in(spec, predictions));
  const at::Tensor sum = losses_of(spec, predictions, batch).sum();
  return count > 0 ? sum / count : sum;
}

models::Evaluation evaluate_loss(const ModelSpec& spec, const at::Tensor& outputs,
                                 const TensorBatch& batch) {
  const Predictions predictions = predictions_of(outputs, batch);
  models::Evaluation result;
  result.loss_sum = losses_of(spec, predictions, batch).sum(at::kDouble).item<double>();
  result.correct = static_cast<std::uint64_t>(correct_in(spec, predictions));
  result.examples = static_cast<std::uint64_t>(targets_in(spec, predictions));
  return result;
}

}  // namespace covey::torch
