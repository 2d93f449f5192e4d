#include "int8_engine.hpp"

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <string>

namespace covey::models {

Int8Engine::Int8Engine(Int8Network network) : network_(std::move(network)), trained_(network_) {}

DataShape Int8Engine::data_shape() const {
  return {.example_size = network_.inputs(), .classes = network_.classes()};
}

void Int8Engine::reserve(std::size_t max_batch) {
  if (max_batch <= max_batch_) return;
  max_batch_ = max_batch;
  const std::size_t together = std::min(max_batch, network_.max_batch());
  if (workspace_ && workspace_->max_batch() >= together) return;
  auto made = Int8Workspace::make(network_, together);
  COVEY_ASSERT(made.ok());  // not zero, and at most what the network takes
  workspace_.emplace(std::move(*made));
}

Result<void> Int8Engine::check_training(const OptimizerSpec& optimizer, std::size_t batch) const {
  const bool plain = optimizer.kind == OptimizerKind::kSgd && optimizer.weight_decay == 0 &&
                     optimizer.clip_norm == 0;
  if (!plain) {
    return failed("int8 training takes plain sgd steps: " +
                  (optimizer.kind == OptimizerKind::kSgd
                       ? std::string("no weight decay and no clipping of gradients")
                       : "not " + std::string(to_string(optimizer.kind))) +
                  "; fp32 takes them all");
  }
  if (batch > network_.max_batch()) {
    return failed("int8 training of this network takes batches of up to " +
                  std::to_string(network_.max_batch()) + " examples, the plan's have " +
                  std::to_string(batch));
  }
  return {};
}

Result<void> Int8Engine::load(std::span<const std::byte> model) {
  return load_shared(SharedBytes(std::vector<std::byte>(model.begin(), model.end())));
}

Result<void> Int8Engine::load_shared(const SharedBytes& model) {
  COVEY_TRY(network_.load(trained_, model.span()));
  initial_ = model;
  anchor_loaded_ = false;
  return {};
}

void Int8Engine::begin_training(const OptimizerSpec& optimizer, RandomStream random) {
  COVEY_ASSERT(check_training(optimizer, 1).ok());
  random_ = random;
}

double Int8Engine::train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                              float learning_rate, float proximal_mu) {
  COVEY_ASSERT(workspace_.has_value());
  if (proximal_mu > 0 && !anchor_loaded_) {
    if (!anchor_) anchor_.emplace(network_);
    const auto loaded = network_.load(*anchor_, initial_.span());
    COVEY_ASSERT(loaded.ok());  // it was when it came
    anchor_loaded_ = true;
  }
  Int8Step step;
  step.learning_rate = learning_rate;
  step.proximal_mu = proximal_mu;
  step.anchor = proximal_mu > 0 ? &*anchor_ : nullptr;
  step.seed = random_.next_u64();
  return network_.train_step(*workspace_, inputs, labels, trained_, step);
}

Evaluation Int8Engine::evaluate(std::span<const float> inputs,
                                std::span<const std::int32_t> labels) {
  COVEY_ASSERT(workspace_.has_value());
  return network_.evaluate(*workspace_, inputs, labels, trained_);
}

/// Only biases can fail to be, and they are in the norm.
bool Int8Engine::finite() const { return std::isfinite(difference_squared_norm()); }

double Int8Engine::difference_squared_norm() const {
  return network_.difference_squared_norm(trained_, initial_.span());
}

Result<SharedBytes> Int8Engine::encode_difference(Encoding encoding, RandomStream) const {
  if (encoding != Encoding::kInt8) {
    return failed("the update of int8 training travels as int8, not as " +
                  std::string(to_string(encoding)));
  }
  return network_.encode_difference(trained_, initial_.span());
}

void Int8Engine::release_scratch() {
  workspace_.reset();
  max_batch_ = 0;
  anchor_.reset();
  anchor_loaded_ = false;
}

std::size_t Int8Engine::bytes() const {
  return initial_.size() + trained_.bytes() + (anchor_ ? anchor_->bytes() : 0) +
         (workspace_ ? workspace_->bytes() : 0);
}

}  // namespace covey::models
