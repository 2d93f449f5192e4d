#pragma once

#include <ATen/core/Tensor.h>

#include <covey/model_spec.hpp>
#include <covey/models/network.hpp>

namespace covey::torch {

/// A batch as libtorch sees it.
struct TensorBatch {
  at::Tensor inputs;    ///< as the module takes them
  at::Tensor features;  ///< [n x example_size], float: the targets of an autoencoder
  at::Tensor labels;    ///< int64 [n x labels_per_example]; kNoLabel where there is none
};

/// Mean loss over the batch's predictions that have a target (a scalar with its gradient).
/// outputs: [n x classes] or [n x steps x classes].
at::Tensor mean_loss(const ModelSpec& spec, const at::Tensor& outputs, const TensorBatch& batch);

/// Sum of losses, correct predictions, and how many predictions had a target. A prediction is
/// correct if its largest output is the label's; of a single output, if it lies within 1/2 of the
/// label (mean squared error) or on its side of 0 (logistic). A reconstruction is never correct.
models::Evaluation evaluate_loss(const ModelSpec& spec, const at::Tensor& outputs,
                                 const TensorBatch& batch);

}  // namespace covey::torch
