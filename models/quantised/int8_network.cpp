#include <fmt/format.h>

#include <cmath>
#include <covey/assert.hpp>
#include <covey/models/int8_network.hpp>
#include <limits>
#include <utility>

#include "int8_softmax.hpp"
#include "int8_stages.hpp"

namespace covey::models {

namespace {

constexpr double kNotANumber = std::numeric_limits<double>::quiet_NaN();

bool biases_finite(const Int8Plan& plan, const Int8Storage& parameters) {
  for (const Int8Stage& stage : plan.stages) {
    const Int8Weights* weights = stage_weights(stage);
    if (weights == nullptr) continue;
    const float* biases = parameters.biases(*weights);
    for (std::size_t o = 0; o < weights->outputs; ++o) {
      if (!std::isfinite(biases[o])) return false;
    }
  }
  return true;
}

/// Runs the batch up to the logits. False if the inputs are not finite.
bool forward_all(const Int8Pass& pass, const float* inputs) {
  if (!quantise_inputs(pass, inputs)) return false;
  for (std::size_t s = 0; s < pass.plan.stages.size(); ++s) forward(pass, s);
  return true;
}

}  // namespace

Int8Network::Int8Network(std::unique_ptr<const Plan> plan) : plan_(std::move(plan)) {}
Int8Network::Int8Network(Int8Network&&) noexcept = default;
Int8Network& Int8Network::operator=(Int8Network&&) noexcept = default;
Int8Network::~Int8Network() = default;

Result<Int8Network> Int8Network::make(const ModelSpec& spec) {
  COVEY_ASSIGN(Int8Plan plan, Int8Plan::make(spec, "trained", "fp32 and bf16"));
  return Int8Network(std::make_unique<const Plan>(Plan{std::move(plan)}));
}

const ModelSpec& Int8Network::spec() const { return plan_->spec; }
const ModelLayout& Int8Network::layout() const { return plan_->layout; }
std::size_t Int8Network::inputs() const { return plan_->inputs; }
std::size_t Int8Network::classes() const { return plan_->classes; }
std::size_t Int8Network::max_batch() const { return plan_->max_batch; }

std::size_t Int8Network::parameter_bytes() const { return plan_->storage_bytes; }

Int8MemoryPlan Int8Network::training_memory(std::size_t max_batch) const {
  return Int8WorkspaceLayout::memory(*plan_, max_batch, true);
}
Int8MemoryPlan Int8Network::inference_memory(std::size_t max_batch) const {
  return Int8WorkspaceLayout::memory(*plan_, max_batch, false);
}

bool Int8Network::finite(const Int8Parameters& parameters) const {
  return biases_finite(*plan_, *parameters.storage_);
}

double Int8Network::train_step(Int8Workspace& workspace, std::span<const float> inputs,
                               std::span<const std::int32_t> labels, Int8Parameters& parameters,
                               const Int8Step& step) const {
  Int8Buffers& buffers = *workspace.buffers_;
  const std::size_t batch = labels.size();
  COVEY_ASSERT(buffers.layout.training);
  COVEY_ASSERT(batch > 0 && batch <= buffers.layout.max_batch);
  COVEY_ASSERT(inputs.size() == batch * plan_->inputs);
  COVEY_ASSERT(parameters.bytes() == plan_->storage_bytes);
  COVEY_ASSERT(step.proximal_mu == 0 ||
               (step.anchor != nullptr && step.anchor->bytes() == plan_->storage_bytes));
  const Int8Pass pass{*plan_, *plan_->kernels, buffers, *parameters.storage_, batch};
  if (!biases_finite(*plan_, *parameters.storage_)) return kNotANumber;
  if (!forward_all(pass, inputs.data())) return kNotANumber;
  const SoftmaxLoss loss =
      softmax_cross_entropy(buffers.logits(), labels.data(), batch, plan_->classes, true);
  if (std::isnan(loss.loss_sum)) return kNotANumber;
  const Int8Descent descent{step.learning_rate, step.proximal_mu,
                            step.proximal_mu > 0 ? step.anchor->storage_.get() : nullptr,
                            step.seed};
  float scale = quantise_loss_gradient(pass, descent);
  std::size_t from = 0;
  for (std::size_t s = plan_->stages.size(); s-- > plan_->first_trained; from = 1 - from) {
    scale = backward(pass, s, from, scale, descent);
  }
  return loss.loss_sum / static_cast<double>(batch);
}

Evaluation Int8Network::evaluate(Int8Workspace& workspace, std::span<const float> inputs,
                                 std::span<const std::int32_t> labels,
                                 const Int8Parameters& parameters) const {
  Int8Buffers& buffers = *workspace.buffers_;
  COVEY_ASSERT(inputs.size() == labels.size() * plan_->inputs);
  COVEY_ASSERT(parameters.bytes() == plan_->storage_bytes);
  Evaluation total;
  total.examples = labels.size();
  const bool finite = biases_finite(*plan_, *parameters.storage_);
  for (std::size_t first = 0; first < labels.size(); first += buffers.layout.max_batch) {
    const std::size_t batch = std::min(buffers.layout.max_batch, labels.size() - first);
    const Int8Pass pass{*plan_, *plan_->kernels, buffers, *parameters.storage_, batch};
    if (!finite || !forward_all(pass, inputs.data() + first * plan_->inputs)) {
      total.loss_sum = kNotANumber;
      continue;
    }
    const SoftmaxLoss loss = softmax_cross_entropy(buffers.logits(), labels.data() + first, batch,
                                                   plan_->classes, false);
    total.loss_sum += loss.loss_sum;
    total.correct += loss.correct;
  }
  return total;
}

Int8Workspace::Int8Workspace(std::unique_ptr<Buffers> buffers) : buffers_(std::move(buffers)) {}
Int8Workspace::Int8Workspace(Int8Workspace&&) noexcept = default;
Int8Workspace& Int8Workspace::operator=(Int8Workspace&&) noexcept = default;
Int8Workspace::~Int8Workspace() = default;

Result<Int8Workspace> Int8Workspace::make(const Int8Network& network, std::size_t max_batch) {
  if (max_batch == 0 || max_batch > network.max_batch()) {
    return invalid_argument(fmt::format(
        "a batch of {} examples cannot be trained in int8 with this model; 1 to {} can, beyond "
        "that the sums of a gradient may not fit 32 bits",
        max_batch, network.max_batch()));
  }
  return Int8Workspace(std::make_unique<Buffers>(*network.plan_, max_batch, true));
}

Result<Int8Workspace> Int8Workspace::make_for_inference(const Int8Network& network,
                                                        std::size_t max_batch) {
  if (max_batch == 0) return invalid_argument("a workspace for batches of no examples");
  return Int8Workspace(std::make_unique<Buffers>(*network.plan_, max_batch, false));
}

std::size_t Int8Workspace::max_batch() const { return buffers_->layout.max_batch; }
std::size_t Int8Workspace::bytes() const { return buffers_->bytes.size(); }

}  // namespace covey::models
