#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/models/network.hpp>
#include <covey/models/optimizer.hpp>
#include <utility>

#include "losses.hpp"
#include "network_plan.hpp"
#include "workspace.hpp"

namespace covey::models {

namespace {

/// A batch, or the part of it that goes through the network together.
struct Batch {
  const float* inputs;
  const std::int32_t* labels;
  std::size_t size;
  std::size_t first = 0;  ///< of these examples within the whole batch
};

/// How a forward pass runs.
struct Mode {
  bool training = false;
  float* running = nullptr;  ///< R^d where running statistics are to be updated
  std::uint64_t random_key = 0;
  const Network::Observer* observer = nullptr;
};

/// One network and the workspace it runs in, for the length of a call.
template <typename Buffers>
class Pass {
 public:
  Pass(const NetworkPlan& plan, Buffers& buffers) : plan_(plan), buffers_(buffers) {}

  LossResult evaluate(const Batch& batch, const float* parameters) {
    forward(batch, parameters, {});
    return loss(batch, 0, nullptr);
  }

  void observe(const Batch& batch, const float* parameters, const Network::Observer& observer) {
    forward(batch, parameters, {.observer = &observer});
  }

  /// `scale`: 1 / targets of the whole batch. Returns the sum of the losses.
  double descend(const Batch& batch, float scale, const float* parameters, const Descent& descent,
                 const Mode& mode) {
    forward(batch, parameters, mode);
    const LossResult result = loss(batch, scale, gradient_of(plan_.stages.size() - 1));
    backward(batch, parameters, descent, mode);
    return result.sum;
  }

 private:
  const StageBuffers& where(std::size_t stage) const { return buffers_.memory.stages[stage]; }
  float* outputs_of(std::size_t stage) const { return buffers_.at(where(stage).outputs); }
  float* gradient_of(std::size_t stage) const { return buffers_.at(where(stage).gradient); }
  const float* inputs_of(std::size_t stage, const Batch& batch) const {
    return stage == 0 ? batch.inputs : outputs_of(stage - 1);
  }

  LossResult loss(const Batch& batch, float scale, float* gradient) const {
    return loss_of(plan_, batch.size, batch.inputs, batch.labels,
                   outputs_of(plan_.stages.size() - 1), scale, gradient);
  }

  void forward(const Batch& batch, const float* parameters, const Mode& mode);
  void backward(const Batch& batch, const float* parameters, const Descent& descent,
                const Mode& mode);
  void pass_to_residual(std::size_t stage, std::size_t batch);
  void add_residual_gradient(std::size_t stage, std::size_t batch);

  const NetworkPlan& plan_;
  Buffers& buffers_;
};

template <typename Buffers>
void Pass<Buffers>::forward(const Batch& batch, const float* parameters, const Mode& mode) {
  for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
    const PlannedStage& stage = plan_.stages[s];
    const ForwardPass pass{.kernels = *plan_.kernels,
                           .batch = batch.size,
                           .parameters = parameters,
                           .inputs = inputs_of(s, batch),
                           .skip = stage.skip ? inputs_of(*stage.skip, batch) : nullptr,
                           .outputs = outputs_of(s),
                           .saved = buffers_.at(where(s).saved),
                           .scratch = buffers_.at(where(s).forward_scratch),
                           .training = mode.training,
                           .running = mode.running,
                           .random_key = stage_key(mode.random_key, s),
                           .first_example = batch.first};
    std::visit([&](const auto& kind) { models::forward(kind, pass); }, stage.kind);
    if (mode.observer != nullptr && !std::holds_alternative<RangeStage>(stage.kind)) {
      (*mode.observer)(stage.layer, {outputs_of(s), batch.size * stage.outputs});
    }
  }
}

template <typename Buffers>
void Pass<Buffers>::backward(const Batch& batch, const float* parameters, const Descent& descent,
                             const Mode& mode) {
  for (std::size_t s = plan_.stages.size(); s-- > plan_.first_trained;) {
    const bool lowest = s == plan_.first_trained;
    pass_to_residual(s, batch.size);
    const BackwardPass pass{.kernels = *plan_.kernels,
                            .batch = batch.size,
                            .parameters = parameters,
                            .inputs = inputs_of(s, batch),
                            .outputs = outputs_of(s),
                            .gradient_outputs = gradient_of(s),
                            .gradient_inputs = lowest ? nullptr : gradient_of(s - 1),
                            .saved = buffers_.at(where(s).saved),
                            .scratch = buffers_.at(where(s).backward_scratch),
                            .random_key = stage_key(mode.random_key, s),
                            .first_example = batch.first};
    std::visit([&](const auto& kind) { models::backward(kind, pass, descent); },
               plan_.stages[s].kind);
    if (!lowest) add_residual_gradient(s - 1, batch.size);
  }
}

/// An add stage's gradient also goes to its second input, where it waits until the stages between
/// have sent theirs. Several add stages may wait at the same place.
template <typename Buffers>
void Pass<Buffers>::pass_to_residual(std::size_t stage, std::size_t batch) {
  const auto& skip = plan_.stages[stage].skip;
  if (!skip || *skip == 0 || *skip - 1 < plan_.first_trained) return;
  float* waiting = buffers_.at(where(*skip - 1).skip_gradient);
  const float* gradient = gradient_of(stage);
  const std::size_t size = batch * plan_.stages[stage].outputs;
  if (plan_.last_residual(*skip - 1) == stage) {
    std::copy_n(gradient, size, waiting);
  } else {
    plan_.kernels->add_scaled(gradient, size, 1.0f, waiting);
  }
}

template <typename Buffers>
void Pass<Buffers>::add_residual_gradient(std::size_t stage, std::size_t batch) {
  if (where(stage).skip_gradient == StageBuffers::kNone) return;
  plan_.kernels->add_scaled(buffers_.at(where(stage).skip_gradient),
                            batch * plan_.stages[stage].outputs, 1.0f, gradient_of(stage));
}

/// f(part of the batch) for pieces of at most `chunk` examples, in order.
template <typename F>
void for_each_chunk(const NetworkPlan& plan, std::size_t chunk, std::span<const float> inputs,
                    std::span<const std::int32_t> labels, F f) {
  const std::size_t batch = inputs.size() / plan.inputs;
  for (std::size_t first = 0; first < batch; first += chunk) {
    f(Batch{inputs.data() + first * plan.inputs, labels.data() + first * plan.predictions,
            std::min(chunk, batch - first), first});
  }
}

/// gradient += the mean gradient over the batch. Returns the sum of the losses.
template <typename Buffers>
double add_gradient(const NetworkPlan& plan, Buffers& buffers, std::span<const float> inputs,
                    std::span<const std::int32_t> labels, const float* parameters, float* gradient,
                    const Mode& mode) {
  Pass pass(plan, buffers);
  const Descent descent{.values = gradient};
  const float scale = scale_of(count_targets(plan, labels, inputs.size() / plan.inputs));
  double loss_sum = 0;
  for_each_chunk(plan, buffers.memory.chunk, inputs, labels, [&](const Batch& batch) {
    loss_sum += pass.descend(batch, scale, parameters, descent, mode);
  });
  return loss_sum;
}

/// Adds the terms beside the gradient, then moves the parameters: by the optimiser, or by plain
/// SGD.
void apply_gradient(const NetworkPlan& plan, std::span<float> gradient, std::span<float> parameters,
                    const SgdStep& step) {
  const Kernels& kernels = *plan.kernels;
  if (step.optimizer == nullptr) {
    const Descent descent{.values = parameters.data(),
                          .update = true,
                          .learning_rate = step.learning_rate,
                          .proximal_mu = step.proximal_mu,
                          .anchor = step.anchor.data(),
                          .correction = step.correction.data()};
    plan.for_each_trained([&](std::size_t offset, std::size_t n) {
      descent.pull(kernels, offset, n);
      kernels.add_scaled(gradient.data() + offset, n, descent.factor(), parameters.data() + offset);
    });
    return;
  }
  // What is clipped is the gradient of what is minimised: the proximal term is part of it.
  plan.for_each_trained([&](std::size_t offset, std::size_t n) {
    float* g = gradient.data() + offset;
    if (step.proximal_mu != 0) {
      kernels.add_scaled(parameters.data() + offset, n, step.proximal_mu, g);
      kernels.add_scaled(step.anchor.data() + offset, n, -step.proximal_mu, g);
    }
    if (!step.correction.empty()) {
      kernels.add_scaled(step.correction.data() + offset, n, 1.0f, g);
    }
  });
  Optimizer& optimizer = *step.optimizer;
  if (optimizer.spec().clip_norm > 0) clip_gradient(gradient, optimizer.spec().clip_norm);
  optimizer.begin_step();
  plan.for_each_trained([&](std::size_t offset, std::size_t n) {
    optimizer.update(offset, gradient.subspan(offset, n), parameters.subspan(offset, n),
                     step.learning_rate);
  });
}

double mean(double sum, std::size_t count) {
  return count == 0 ? 0 : sum / static_cast<double>(count);
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

Result<Network> Network::make_quantisation_aware(const ModelSpec& spec) {
  COVEY_ASSIGN(NetworkPlan plan, NetworkPlan::make(spec));
  COVEY_TRY(add_ranges(plan));
  return Network(std::make_unique<const Plan>(Plan{std::move(plan)}));
}

const ModelSpec& Network::spec() const { return plan_->spec; }
const ModelLayout& Network::layout() const { return plan_->layout; }
std::size_t Network::inputs() const { return plan_->inputs; }
std::size_t Network::classes() const { return plan_->classes; }
std::size_t Network::predictions() const { return plan_->predictions; }
std::uint32_t Network::vocabulary() const { return plan_->vocabulary; }
double Network::training_flops_per_example() const { return plan_->training_flops; }

void Network::initialise(std::span<float> parameters, RandomStream random) const {
  COVEY_ASSERT(parameters.size() == num_parameters());
  const auto& tensors = plan_->layout.tensors();
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    plan_->init[t].draw(plan_->spec.initialisation, random,
                        parameters.subspan(tensors[t].offset, tensors[t].size()));
  }
}

double Network::train_step(Workspace& workspace, std::span<const float> inputs,
                           std::span<const std::int32_t> labels, std::span<float> parameters,
                           const SgdStep& step) const {
  Workspace::Buffers& buffers = *workspace.buffers_;
  const std::size_t batch = inputs.size() / plan_->inputs;
  COVEY_ASSERT(batch > 0 && batch <= buffers.options.max_batch && buffers.options.training);
  COVEY_ASSERT(inputs.size() == batch * plan_->inputs);
  COVEY_ASSERT(labels.size() == batch * plan_->predictions);
  COVEY_ASSERT(parameters.size() == num_parameters());
  COVEY_ASSERT(step.proximal_mu == 0 || step.anchor.size() == parameters.size());
  COVEY_ASSERT(step.correction.empty() || step.correction.size() == parameters.size());
  COVEY_ASSERT(step.evaluated_at.empty() || step.evaluated_at.size() == parameters.size());
  const float* at = step.evaluated_at.empty() ? parameters.data() : step.evaluated_at.data();
  const std::size_t targets = count_targets(*plan_, labels, batch);
  const Mode mode{true, parameters.data(), step.random_key};
  const OptimizerSpec* optimizer = step.optimizer == nullptr ? nullptr : &step.optimizer->spec();
  const bool fused = optimizer == nullptr || Optimizer::is_fused(*optimizer);
  if (fused && batch <= buffers.memory.chunk) {
    const Descent descent{.values = parameters.data(),
                          .update = true,
                          .learning_rate = step.learning_rate,
                          .proximal_mu = step.proximal_mu,
                          .weight_decay = optimizer == nullptr ? 0.0f : optimizer->weight_decay,
                          .anchor = step.anchor.data(),
                          .correction = step.correction.data()};
    const Batch whole{inputs.data(), labels.data(), batch};
    const double sum = Pass(*plan_, buffers).descend(whole, scale_of(targets), at, descent, mode);
    return mean(sum, targets);
  }
  const std::span<float> gradient = buffers.parameter_gradient.span();
  COVEY_ASSERT(gradient.size() == parameters.size());  // WorkspaceOptions::keeps_gradient
  std::ranges::fill(gradient, 0.0f);
  const double sum = add_gradient(*plan_, buffers, inputs, labels, at, gradient.data(), mode);
  apply_gradient(*plan_, gradient, parameters, step);
  return mean(sum, targets);
}

double Network::gradient(Workspace& workspace, std::span<const float> inputs,
                         std::span<const std::int32_t> labels, std::span<const float> parameters,
                         std::span<float> gradient, std::uint64_t random_key) const {
  Workspace::Buffers& buffers = *workspace.buffers_;
  const std::size_t batch = inputs.size() / plan_->inputs;
  COVEY_ASSERT(batch > 0 && batch <= buffers.options.max_batch && buffers.options.training);
  COVEY_ASSERT(inputs.size() == batch * plan_->inputs);
  COVEY_ASSERT(labels.size() == batch * plan_->predictions);
  COVEY_ASSERT(parameters.size() == num_parameters() && gradient.size() == num_parameters());
  std::ranges::fill(gradient, 0.0f);
  const double sum = add_gradient(*plan_, buffers, inputs, labels, parameters.data(),
                                  gradient.data(), {true, nullptr, random_key});
  return mean(sum, count_targets(*plan_, labels, batch));
}

Evaluation Network::evaluate(Workspace& workspace, std::span<const float> inputs,
                             std::span<const std::int32_t> labels,
                             std::span<const float> parameters) const {
  Workspace::Buffers& buffers = *workspace.buffers_;
  const std::size_t batch = inputs.size() / plan_->inputs;
  COVEY_ASSERT(batch <= buffers.options.max_batch);
  COVEY_ASSERT(inputs.size() == batch * plan_->inputs);
  COVEY_ASSERT(labels.size() == batch * plan_->predictions);
  COVEY_ASSERT(parameters.size() == num_parameters());
  Pass pass(*plan_, buffers);
  Evaluation total;
  for_each_chunk(*plan_, buffers.memory.chunk, inputs, labels, [&](const Batch& part) {
    const LossResult result = pass.evaluate(part, parameters.data());
    total.loss_sum += result.sum;
    total.correct += result.correct;
  });
  total.examples = count_targets(*plan_, labels, batch);
  return total;
}

void Network::observe(Workspace& workspace, std::span<const float> inputs,
                      std::span<const float> parameters, const Observer& observer) const {
  Workspace::Buffers& buffers = *workspace.buffers_;
  const std::size_t batch = inputs.size() / plan_->inputs;
  COVEY_ASSERT(batch <= buffers.options.max_batch && inputs.size() == batch * plan_->inputs);
  COVEY_ASSERT(parameters.size() == num_parameters());
  Pass pass(*plan_, buffers);
  for (std::size_t first = 0; first < batch; first += buffers.memory.chunk) {
    const std::size_t size = std::min(buffers.memory.chunk, batch - first);
    pass.observe({inputs.data() + first * plan_->inputs, nullptr, size}, parameters.data(),
                 observer);
  }
}

const char* kernel_instruction_set() { return selected_kernels().instruction_set; }

}  // namespace covey::models
