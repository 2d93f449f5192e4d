// The optimisers on the flat vector against libtorch's own, each on the same quadratic-like loss.
#include <torch/optim.h>
#include <torch/types.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <memory>

#include "script_models.hpp"

using namespace covey;
using namespace covey::torch_tests;

namespace {

constexpr double kRate = 0.05;
constexpr int kSteps = 12;

struct Case {
  OptimizerKind kind;
  float weight_decay;
  float clip_norm;
};

std::unique_ptr<::torch::optim::Optimizer> reference_of(const Case& wanted,
                                                        std::vector<at::Tensor> weights) {
  namespace optim = ::torch::optim;
  const double decay = wanted.weight_decay;
  switch (wanted.kind) {
    case OptimizerKind::kSgd:
      return std::make_unique<optim::SGD>(weights, optim::SGDOptions(kRate).weight_decay(decay));
    case OptimizerKind::kMomentum:
      return std::make_unique<optim::SGD>(
          weights, optim::SGDOptions(kRate).momentum(0.9).weight_decay(decay));
    case OptimizerKind::kNesterov:
      return std::make_unique<optim::SGD>(
          weights, optim::SGDOptions(kRate).momentum(0.9).nesterov(true).weight_decay(decay));
    case OptimizerKind::kAdam:
      return std::make_unique<optim::Adam>(weights, optim::AdamOptions(kRate).weight_decay(decay));
    case OptimizerKind::kAdamW:
      return std::make_unique<optim::AdamW>(weights,
                                            optim::AdamWOptions(kRate).weight_decay(decay));
  }
  return nullptr;
}

/// Dense network of save_dense by autograd, from its flat vector.
at::Tensor loss_of(const std::vector<at::Tensor>& weights, const Batch& batch) {
  const at::Tensor x = at::from_blob(const_cast<float*>(batch.inputs.data()), {4, 6});
  const at::Tensor labels =
      at::from_blob(const_cast<std::int32_t*>(batch.labels.data()), {4}, at::kInt).to(at::kLong);
  const at::Tensor hidden = at::relu(at::matmul(x, weights[0]) + weights[1]);
  return at::cross_entropy_loss(at::matmul(hidden, weights[2]) + weights[3], labels);
}

}  // namespace

TEST_CASE("Every optimiser takes libtorch's own steps") {
  const auto wanted =
      GENERATE(Case{OptimizerKind::kSgd, 0, 0}, Case{OptimizerKind::kSgd, 0.1f, 0},
               Case{OptimizerKind::kSgd, 0, 0.05f}, Case{OptimizerKind::kMomentum, 0.1f, 0},
               Case{OptimizerKind::kNesterov, 0.1f, 0}, Case{OptimizerKind::kAdam, 0.1f, 0.05f},
               Case{OptimizerKind::kAdamW, 0.1f, 0});
  CAPTURE(to_string(wanted.kind), wanted.weight_decay, wanted.clip_norm);
  const TemporaryFolder folder;
  const auto engine = make_loaded(save_dense(folder.file("net.pt"), 6, 8, 3), {6});
  std::vector<at::Tensor> weights;
  for (const auto& tensor : engine->layout().tensors()) {
    const std::vector<std::int64_t> sizes(tensor.shape.begin(), tensor.shape.end());
    at::Tensor values = at::empty(sizes);
    std::copy_n(engine->initial().data() + tensor.offset, tensor.size(), values.data_ptr<float>());
    weights.push_back(values.requires_grad_());
  }
  const auto reference = reference_of(wanted, weights);

  OptimizerSpec spec;
  spec.kind = wanted.kind;
  spec.weight_decay = wanted.weight_decay;
  spec.clip_norm = wanted.clip_norm;
  // A round before: its state must be forgotten.
  engine->begin_training(spec, RandomStream(1, RandomPurpose::kTraining));
  const Batch other = random_batch(4, 6, 3, 99);
  engine->train_step(other.inputs, other.labels, 0.5f, 0);
  REQUIRE(
      engine
          ->load(encode_fp32(std::vector<float>(engine->initial().begin(), engine->initial().end()))
                     .span())
          .ok());
  engine->begin_training(spec, RandomStream(1, RandomPurpose::kTraining));

  for (std::uint64_t step = 0; step < kSteps; ++step) {
    const Batch batch = random_batch(4, 6, 3, step);
    reference->zero_grad();
    const at::Tensor loss = loss_of(weights, batch);
    loss.backward();
    double squared = 0;
    for (const auto& w : weights) squared += w.grad().pow(2).sum().item<double>();
    if (wanted.clip_norm > 0 && std::sqrt(squared) > wanted.clip_norm) {
      for (auto& w : weights) w.mutable_grad().mul_(wanted.clip_norm / std::sqrt(squared));
    }
    reference->step();
    const double own = engine->train_step(batch.inputs, batch.labels, static_cast<float>(kRate), 0);
    REQUIRE(own == Approx(loss.item<double>()).epsilon(1e-5));
  }
  for (std::size_t t = 0; t < weights.size(); ++t) {
    const float* values = weights[t].data_ptr<float>();
    const auto& tensor = engine->layout().tensors()[t];
    for (std::size_t i = 0; i < tensor.size(); ++i) {
      REQUIRE(engine->trained()[tensor.offset + i] == Approx(values[i]).margin(2e-5));
    }
  }
}
