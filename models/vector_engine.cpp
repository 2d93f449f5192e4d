#include "vector_engine.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <covey/assert.hpp>
#include <numeric>
#include <utility>

#include "workspace.hpp"

namespace covey::models {
namespace {

bool all_finite(std::span<const float> values) {
  // Exponent bits all set: infinite or not a number (IEEE 754-2008, 3.4). No branch, so it
  // vectorises.
  constexpr std::uint32_t kExponent = 0x7f800000;
  std::uint32_t bad = 0;
  for (const float value : values) {
    bad |=
        static_cast<std::uint32_t>((std::bit_cast<std::uint32_t>(value) & kExponent) == kExponent);
  }
  return bad == 0;
}

}  // namespace

VectorEngine::VectorEngine(Network network)
    : network_(std::move(network)), trained_(network_.num_parameters()) {}

DataShape VectorEngine::data_shape() const {
  return {.example_size = network_.inputs(),
          .labels_per_example = network_.predictions(),
          .classes = network_.classes(),
          .vocabulary = network_.vocabulary()};
}

Result<void> VectorEngine::check_training(const OptimizerSpec&, std::size_t batch) const {
  if (batch <= options_.max_batch) return {};  // has been reserved
  return check_step_memory(network_.plan(), batch);
}

void VectorEngine::reserve(std::size_t max_batch) {
  if (max_batch <= options_.max_batch) return;
  options_.max_batch = max_batch;
  workspace_.reset();  // made again for what comes first: evaluation takes far less than training
}

void VectorEngine::need(bool training, bool keeps_gradient) {
  if (workspace_ && options_.training >= training && options_.keeps_gradient >= keeps_gradient) {
    return;
  }
  workspace_.reset();  // before the next one: there is room for one
  options_.training = training;
  options_.keeps_gradient = keeps_gradient;
  workspace_.emplace(network_, options_);
}

Result<void> VectorEngine::load(std::span<const std::byte> model) {
  if (own_initial_.size() == 0) own_initial_ = ParameterVector(network_.num_parameters());
  COVEY_TRY(decode_fp32(model, own_initial_.span()));
  shared_initial_ = {};
  start_from(own_initial_.span());
  return {};
}

Result<void> VectorEngine::load_shared(const SharedBytes& model) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(model.data()) % alignof(float) == 0;
  const std::size_t d = network_.num_parameters();
  if (!aligned || d == 0 || model.size() != d * sizeof(float)) return load(model.span());
  shared_initial_ = model;
  own_initial_ = {};
  // Wire and memory are both little-endian (parameter_vector.cpp).
  start_from({reinterpret_cast<const float*>(model.data()), d});
  return {};
}

void VectorEngine::start_from(std::span<const float> initial) {
  initial_ = initial;
  if (trained_.size() != initial.size()) trained_ = ParameterVector(initial.size());
  std::ranges::copy(initial, trained_.data());
}

void VectorEngine::begin_training(const OptimizerSpec& optimizer, RandomStream random) {
  random_ = random;
  need(true, !Optimizer::is_fused(optimizer));
  const bool plain = Optimizer::is_fused(optimizer) && optimizer.weight_decay == 0;
  if (plain) {
    optimizer_.reset();
  } else if (optimizer_ && optimizer_->spec() == optimizer) {
    optimizer_->reset();
  } else {
    optimizer_.emplace(optimizer, network_.num_parameters());
  }
}

Workspace& VectorEngine::workspace() {
  need(false, false);
  return *workspace_;
}

double VectorEngine::train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                                float learning_rate, float proximal_mu) {
  return step_at({}, inputs, labels, learning_rate, proximal_mu);
}

double VectorEngine::step_at(std::span<const float> evaluated_at, std::span<const float> inputs,
                             std::span<const std::int32_t> labels, float learning_rate,
                             float proximal_mu) {
  SgdStep step;
  step.evaluated_at = evaluated_at;
  step.learning_rate = learning_rate;
  step.proximal_mu = proximal_mu;
  step.anchor = initial_;
  step.optimizer = optimizer_ ? &*optimizer_ : nullptr;
  step.random_key = random_.next_u64();
  return network_.train_step(workspace(), inputs, labels, trained_.span(), step);
}

Evaluation VectorEngine::evaluate(std::span<const float> inputs,
                                  std::span<const std::int32_t> labels) {
  return network_.evaluate(workspace(), inputs, labels, trained_.span());
}

bool VectorEngine::finite() const { return all_finite(trained_.span()); }

double VectorEngine::difference_squared_norm() const {
  // Lanes that the compiler may keep in vectors without reordering the sums.
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> lanes{};
  const auto square = [&](std::size_t i) {
    const double difference = trained_[i] - initial_[i];  // rounded to float, as it is sent
    return difference * difference;
  };
  std::size_t i = 0;
  for (; i + kLanes <= trained_.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += square(i + lane);
  }
  double sum = std::accumulate(lanes.begin(), lanes.end(), 0.0);
  for (; i < trained_.size(); ++i) sum += square(i);
  return sum;
}

Result<SharedBytes> VectorEngine::encode_difference(Encoding encoding, RandomStream random) const {
  return covey::encode_difference(encoding, network_.layout(), trained_.span(), initial_, &random);
}

ParameterVector VectorEngine::take_difference() {
  for (std::size_t i = 0; i < trained_.size(); ++i) trained_[i] -= initial_[i];
  return std::exchange(trained_, {});
}

void VectorEngine::release_scratch() {
  workspace_.reset();
  optimizer_.reset();
}

std::size_t VectorEngine::bytes() const {
  return (own_initial_.size() + trained_.size()) * sizeof(float) +
         (workspace_ ? workspace_->bytes() : 0) + (optimizer_ ? optimizer_->bytes() : 0);
}

}  // namespace covey::models
