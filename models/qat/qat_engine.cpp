#include "qat/qat_engine.hpp"

#include <algorithm>
#include <covey/models/calibration.hpp>
#include <limits>

#include "network_plan.hpp"

namespace covey::models {

namespace {

/// What else the integer engine refuses (sums that 32 bits may not hold, a relu behind the scores)
/// is better told before training than after it.
Result<void> check_integer_model(const Network& network) {
  const std::size_t ranges = count_ranges(network.spec());
  const ParameterVector zeros(network.num_parameters() - ranges);
  const std::vector<float> ones(ranges, 1.0f);
  const auto model = QuantisedModel::make(network.spec(), zeros.span(), ones);
  if (!model.ok()) return model.error();
  return {};
}

}  // namespace

Result<std::unique_ptr<Engine>> QatEngine::make(const ModelSpec& spec) {
  COVEY_ASSIGN(Network network, Network::make_quantisation_aware(spec));
  COVEY_TRY(
      check_integer_model(network));  // its memory is free again before the engine takes its own
  return std::unique_ptr<Engine>(new QatEngine(std::move(network)));
}

QatEngine::QatEngine(Network made)
    : VectorEngine(std::move(made)),
      weights_(network().layout(), *network().plan().kernels),
      calibrated_(count_ranges(network().spec())) {
  num_weights_ = network().num_parameters() - calibrated_.size();
}

Result<void> QatEngine::load(std::span<const std::byte> model) {
  current_ = false;
  return VectorEngine::load(model);
}

Result<void> QatEngine::load_shared(const SharedBytes& model) {
  current_ = false;
  return VectorEngine::load_shared(model);
}

double QatEngine::train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                             float learning_rate, float proximal_mu) {
  current_ = false;
  return step_at(weights_.quantise(trained()), inputs, labels, learning_rate, proximal_mu);
}

bool QatEngine::build(std::span<const float> ranges) {
  problem_.clear();
  auto model = QuantisedModel::make(network().spec(), trained().first(num_weights_), ranges);
  if (model.ok()) {
    integer_model_.emplace(std::move(model).value());
    return true;
  }
  problem_ = model.error().message;
  return false;
}

Evaluation QatEngine::evaluate(std::span<const float> inputs,
                               std::span<const std::int32_t> labels) {
  if (!current_) {
    std::span<const float> ranges = trained().subspan(num_weights_);
    // Layers may give nothing but zeros, inputs do not. Noise on an update may make a range
    // negative.
    const bool known =
        ranges[0] > 0 && std::ranges::all_of(ranges, [](float range) { return range >= 0; });
    if (!known) {
      std::ranges::fill(calibrated_, 0.0f);
      widen_ranges(network(), workspace(), weights_.quantise(trained()), inputs, calibrated_);
      ranges = calibrated_;
    }
    if (!build(ranges)) {
      return {.loss_sum = std::numeric_limits<double>::quiet_NaN(), .examples = labels.size()};
    }
    current_ = known;
  }
  return integer_model_->evaluate(inputs, labels);
}

std::size_t QatEngine::bytes() const {
  return VectorEngine::bytes() + weights_.bytes() + calibrated_.size() * sizeof(float) +
         (integer_model_ ? integer_model_->bytes() : 0);
}

}  // namespace covey::models
