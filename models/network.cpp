#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/models/network.hpp>
#include <utility>

#include "layers.hpp"
#include "network_plan.hpp"
#include "workspace.hpp"

namespace covey::models {

namespace {

/// A batch, or the part of it that goes through the network together.
struct Batch {
  const float* inputs;
  const std::int32_t* labels;
  std::size_t size;
};

/// One network and the workspace it runs in, for the length of a call.
class Engine {
 public:
  Engine(const NetworkPlan& plan, WorkspaceBuffers& buffers)
      : plan_(plan), kernels_(*plan.kernels), buffers_(buffers) {}

  SoftmaxResult evaluate(const Batch& batch, const float* parameters) {
    forward(batch, parameters);
    return kernels_.softmax(outputs_of(plan_.stages.size() - 1), batch.labels, batch.size,
                            plan_.classes, 0, nullptr);
  }

  /// `scale`: 1 / size of the whole batch. Returns the sum of the losses.
  double descend(const Batch& batch, float scale, const float* parameters, const Descent& descent) {
    forward(batch, parameters);
    const SoftmaxResult result =
        kernels_.softmax(outputs_of(plan_.stages.size() - 1), batch.labels, batch.size,
                         plan_.classes, scale, buffers_.gradients[0]);
    backward(batch, parameters, descent);
    return result.loss_sum;
  }

 private:
  float* outputs_of(std::size_t stage) const {
    return buffers_.activations + plan_.activation[stage] * buffers_.chunk;
  }
  const float* inputs_of(std::size_t stage, const Batch& batch) const {
    return stage == 0 ? batch.inputs : outputs_of(stage - 1);
  }

  void forward(const Batch& batch, const float* parameters);
  void backward(const Batch& batch, const float* parameters, const Descent& descent);

  void stage_forward(const DenseStage& stage, std::size_t batch, const float* parameters,
                     const float* x, float* y) {
    dense_forward(stage, kernels_, batch, parameters, x, y);
  }
  void stage_forward(const ConvolutionStage& stage, std::size_t batch, const float* parameters,
                     const float* x, float* y) {
    convolution_forward(stage, kernels_, buffers_, batch, parameters, x, y);
  }
  void stage_forward(const PoolStage& stage, std::size_t batch, const float*, const float* x,
                     float* y) {
    for (std::size_t b = 0; b < batch; ++b) {
      kernels_.max_pool(stage.shape, x + b * stage.inputs(), y + b * stage.outputs());
    }
  }
  void stage_forward(const ReluStage& stage, std::size_t batch, const float*, const float* x,
                     float* y) {
    kernels_.relu(x, batch * stage.size, y);
  }

  static void stage_backward(const DenseStage& stage, const BackwardPass& pass,
                             const Descent& descent) {
    dense_backward(stage, pass, descent);
  }
  static void stage_backward(const ConvolutionStage& stage, const BackwardPass& pass,
                             const Descent& descent) {
    convolution_backward(stage, pass, descent);
  }
  static void stage_backward(const PoolStage& stage, const BackwardPass& pass, const Descent&) {
    for (std::size_t b = 0; b < pass.batch; ++b) {
      const std::size_t in = b * stage.inputs();
      const std::size_t out = b * stage.outputs();
      pass.kernels.max_pool_backward(stage.shape, pass.inputs + in, pass.outputs + out,
                                     pass.gradient_outputs + out, pass.gradient_inputs + in);
    }
  }
  static void stage_backward(const ReluStage& stage, const BackwardPass& pass, const Descent&) {
    const std::size_t size = pass.batch * stage.size;
    pass.kernels.relu_backward(pass.outputs, size, pass.gradient_outputs);
    std::copy_n(pass.gradient_outputs, size, pass.gradient_inputs);
  }

  const NetworkPlan& plan_;
  const Kernels& kernels_;
  WorkspaceBuffers& buffers_;
};

void Engine::forward(const Batch& batch, const float* parameters) {
  for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
    const float* x = inputs_of(s, batch);
    float* y = outputs_of(s);
    std::visit([&](const auto& stage) { stage_forward(stage, batch.size, parameters, x, y); },
               plan_.stages[s]);
  }
}

void Engine::backward(const Batch& batch, const float* parameters, const Descent& descent) {
  float* above = buffers_.gradients[0];
  float* below = buffers_.gradients[1];
  for (std::size_t s = plan_.stages.size(); s-- > plan_.first_trained;) {
    const BackwardPass pass{.kernels = kernels_,
                            .buffers = buffers_,
                            .batch = batch.size,
                            .parameters = parameters,
                            .inputs = inputs_of(s, batch),
                            .outputs = outputs_of(s),
                            .gradient_outputs = above,
                            .gradient_inputs = s == plan_.first_trained ? nullptr : below};
    std::visit([&](const auto& stage) { stage_backward(stage, pass, descent); }, plan_.stages[s]);
    std::swap(above, below);
  }
}

/// f(part of the batch) for pieces of at most `chunk` examples, in order.
template <typename F>
void for_each_chunk(const NetworkPlan& plan, std::size_t chunk, std::span<const float> inputs,
                    std::span<const std::int32_t> labels, F f) {
  for (std::size_t first = 0; first < labels.size(); first += chunk) {
    f(Batch{inputs.data() + first * plan.inputs, labels.data() + first,
            std::min(chunk, labels.size() - first)});
  }
}

/// gradient += the mean gradient over the batch. Returns the sum of the losses.
double add_gradient(const NetworkPlan& plan, WorkspaceBuffers& buffers,
                    std::span<const float> inputs, std::span<const std::int32_t> labels,
                    const float* parameters, float* gradient) {
  Engine engine(plan, buffers);
  const Descent descent{.values = gradient};
  const float scale = 1.0f / static_cast<float>(labels.size());
  double loss_sum = 0;
  for_each_chunk(plan, buffers.chunk, inputs, labels, [&](const Batch& batch) {
    loss_sum += engine.descend(batch, scale, parameters, descent);
  });
  return loss_sum;
}

}  // namespace

Network::Network(std::unique_ptr<const Plan> plan) : plan_(std::move(plan)) {}
Network::Network(Network&&) noexcept = default;
Network& Network::operator=(Network&&) noexcept = default;
Network::~Network() = default;

Result<Network> Network::make(const ModelSpec& spec) {
  COVEY_ASSIGN(NetworkPlan plan, NetworkPlan::make(spec));
  return Network(std::make_unique<const Plan>(Plan{std::move(plan)}));
}

const ModelSpec& Network::spec() const { return plan_->spec; }
const ModelLayout& Network::layout() const { return plan_->layout; }
std::size_t Network::inputs() const { return plan_->inputs; }
std::size_t Network::classes() const { return plan_->classes; }
double Network::training_flops_per_example() const { return plan_->training_flops; }

void Network::initialise(std::span<float> parameters, RandomStream random) const {
  COVEY_ASSERT(parameters.size() == num_parameters());
  const auto& tensors = plan_->layout.tensors();
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(plan_->fan_in[t]));
    for (float& value : parameters.subspan(tensors[t].offset, tensors[t].size())) {
      value = static_cast<float>(random.uniform(-bound, bound));
    }
  }
}

double Network::train_step(Workspace& workspace, std::span<const float> inputs,
                           std::span<const std::int32_t> labels, std::span<float> parameters,
                           const SgdStep& step) const {
  WorkspaceBuffers& buffers = *workspace.buffers_;
  const std::size_t batch = labels.size();
  COVEY_ASSERT(batch > 0 && batch <= buffers.max_batch);
  COVEY_ASSERT(inputs.size() == batch * plan_->inputs);
  COVEY_ASSERT(parameters.size() == num_parameters());
  COVEY_ASSERT(step.proximal_mu == 0 || step.anchor.size() == parameters.size());
  const Descent descent{.values = parameters.data(),
                        .update = true,
                        .learning_rate = step.learning_rate,
                        .proximal_mu = step.proximal_mu,
                        .anchor = step.anchor.data()};
  const auto count = static_cast<double>(batch);
  if (batch <= buffers.chunk) {
    const Batch whole{inputs.data(), labels.data(), batch};
    return Engine(*plan_, buffers)
               .descend(whole, 1.0f / static_cast<float>(batch), parameters.data(), descent) /
           count;
  }
  float* gradient = buffers.parameter_gradient;
  std::fill_n(gradient, parameters.size(), 0.0f);
  const double loss_sum =
      add_gradient(*plan_, buffers, inputs, labels, parameters.data(), gradient);
  descent.pull(*plan_->kernels, 0, parameters.size());
  plan_->kernels->add_scaled(gradient, parameters.size(), descent.factor(), parameters.data());
  return loss_sum / count;
}

double Network::gradient(Workspace& workspace, std::span<const float> inputs,
                         std::span<const std::int32_t> labels, std::span<const float> parameters,
                         std::span<float> gradient) const {
  WorkspaceBuffers& buffers = *workspace.buffers_;
  COVEY_ASSERT(!labels.empty() && labels.size() <= buffers.max_batch);
  COVEY_ASSERT(inputs.size() == labels.size() * plan_->inputs);
  COVEY_ASSERT(parameters.size() == num_parameters() && gradient.size() == num_parameters());
  std::fill(gradient.begin(), gradient.end(), 0.0f);
  return add_gradient(*plan_, buffers, inputs, labels, parameters.data(), gradient.data()) /
         static_cast<double>(labels.size());
}

Evaluation Network::evaluate(Workspace& workspace, std::span<const float> inputs,
                             std::span<const std::int32_t> labels,
                             std::span<const float> parameters) const {
  WorkspaceBuffers& buffers = *workspace.buffers_;
  COVEY_ASSERT(labels.size() <= buffers.max_batch);
  COVEY_ASSERT(inputs.size() == labels.size() * plan_->inputs);
  COVEY_ASSERT(parameters.size() == num_parameters());
  Engine engine(*plan_, buffers);
  Evaluation total;
  for_each_chunk(*plan_, buffers.chunk, inputs, labels, [&](const Batch& batch) {
    const SoftmaxResult part = engine.evaluate(batch, parameters.data());
    total.loss_sum += part.loss_sum;
    total.correct += part.correct;
    total.examples += batch.size;
  });
  return total;
}

const char* kernel_instruction_set() { return selected_kernels().instruction_set; }

}  // namespace covey::models
