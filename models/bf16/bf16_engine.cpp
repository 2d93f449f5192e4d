#include "bf16/bf16_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <covey/assert.hpp>
#include <covey/bfloat16.hpp>
#include <cstring>

#include "workspace.hpp"

namespace covey::models {

namespace {

/// Values that go through fp32 together where a whole vector is read or written.
constexpr std::size_t kBlockFloats = 2048;

}  // namespace

Result<std::unique_ptr<Engine>> Bf16Engine::make(const ModelSpec& spec) {
  COVEY_ASSIGN(NetworkPlan plan, NetworkPlan::make(spec));
  return std::unique_ptr<Engine>(new Bf16Engine(std::move(plan)));
}

Bf16Engine::Bf16Engine(NetworkPlan plan)
    : plan_(std::move(plan)),
      kernels_(selected_bf16_kernels()),
      initial_(size() * sizeof(std::uint16_t)),
      weights_(size() * sizeof(std::uint16_t)) {}

DataShape Bf16Engine::data_shape() const {
  return {.example_size = plan_.inputs,
          .labels_per_example = plan_.predictions,
          .classes = plan_.classes,
          .vocabulary = plan_.vocabulary};
}

Result<void> Bf16Engine::check_training(const OptimizerSpec&, std::size_t batch) const {
  if (batch <= max_batch_) return {};      // has been reserved
  return check_step_memory(plan_, batch);  // of the same order, and larger
}

void Bf16Engine::reserve(std::size_t max_batch) {
  if (max_batch <= max_batch_) return;
  max_batch_ = max_batch;
  memory_ = Bf16Plan::make(plan_, max_batch);
  block_ = Bf16Block(memory_.floats * sizeof(float));
  reserve_gradient();
}

void Bf16Engine::reserve_gradient() {
  const bool whole = optimizer_.has_value() || memory_.chunk < max_batch_;
  if (whole && gradient_.size() == 0) gradient_ = ParameterVector(size());
  if (!whole) gradient_ = {};
}

Result<void> Bf16Engine::load(std::span<const std::byte> model) {
  const std::size_t expected = encoded_size(Encoding::kBf16, plan_.layout);
  if (model.size() != expected) {
    return malformed(fmt::format("{} bytes where {} parameters as bf16 take {}", model.size(),
                                 size(), expected));
  }
  std::memcpy(initial_.halves(0), model.data(), model.size());
  std::memcpy(weights_.halves(0), model.data(), model.size());
  return {};
}

void Bf16Engine::begin_training(const OptimizerSpec& optimizer, RandomStream random) {
  random_ = random;
  optimizer_spec_ = optimizer;
  if (Optimizer::is_fused(optimizer)) {
    optimizer_.reset();
  } else if (optimizer_ && optimizer_->spec() == optimizer) {
    optimizer_->reset();
  } else {
    optimizer_.emplace(optimizer, size());
  }
  reserve_gradient();
}

Bf16Pass Bf16Engine::pass() {
  return Bf16Pass({plan_, memory_, kernels_, block_, weights_.halves(0)});
}

template <typename F>
void Bf16Engine::for_each_chunk(std::span<const float> inputs, std::span<const std::int32_t> labels,
                                F f) {
  const std::size_t batch = inputs.size() / plan_.inputs;
  for (std::size_t first = 0; first < batch; first += memory_.chunk) {
    f(Bf16Batch{inputs.data() + first * plan_.inputs, labels.data() + first * plan_.predictions,
                std::min(memory_.chunk, batch - first), first});
  }
}

double Bf16Engine::train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                              float learning_rate, float proximal_mu) {
  const std::size_t batch = inputs.size() / plan_.inputs;
  COVEY_ASSERT(batch > 0 && batch <= max_batch_ && inputs.size() == batch * plan_.inputs);
  COVEY_ASSERT(labels.size() == batch * plan_.predictions);
  const std::size_t targets = count_targets(plan_, labels, batch);
  Bf16Descent descent;
  descent.scale = scale_of(targets);
  descent.random_key = random_.next_u64();
  descent.step.keep =
      1.0f - learning_rate * (proximal_mu + (optimizer_ ? 0.0f : optimizer_spec_.weight_decay));
  descent.step.pull = learning_rate * proximal_mu;
  descent.step.factor = -learning_rate;
  descent.step.anchor = proximal_mu == 0 ? nullptr : initial_.halves(0);
  descent.step.rounding.key = random_.next_u64();
  const bool gathered = optimizer_.has_value() || batch > memory_.chunk;
  const double sum = gathered ? train_gathered(inputs, labels, descent, proximal_mu)
                              : pass().descend({inputs.data(), labels.data(), batch, 0}, descent);
  return targets == 0 ? 0 : sum / static_cast<double>(targets);
}

double Bf16Engine::train_gathered(std::span<const float> inputs,
                                  std::span<const std::int32_t> labels, Bf16Descent descent,
                                  float proximal_mu) {
  COVEY_ASSERT(gradient_.size() == size());
  std::ranges::fill(gradient_.span(), 0.0f);
  descent.gathered = gradient_.data();
  double sum = 0;
  for_each_chunk(inputs, labels,
                 [&](const Bf16Batch& part) { sum += pass().descend(part, descent); });
  const Bf16Step& step = descent.step;
  if (optimizer_) {
    apply_optimizer(step, -step.factor, proximal_mu);
    return sum;
  }
  plan_.for_each_trained([&](std::size_t offset, std::size_t n) {
    Bf16Step part = step;
    if (part.anchor != nullptr) part.anchor += offset;
    part.rounding.index = static_cast<std::uint32_t>(offset);
    kernels_.descend(weights_.halves(0) + offset, gradient_.data() + offset, n, part);
  });
  return sum;
}

/// f(offset, n) for blocks of at most kBlockFloats of what is trained.
template <typename F>
void Bf16Engine::for_each_block(F f) const {
  plan_.for_each_trained([&](std::size_t offset, std::size_t n) {
    for (std::size_t done = 0; done < n; done += kBlockFloats) {
      f(offset + done, std::min(kBlockFloats, n - done));
    }
  });
}

/// What is clipped is the gradient of what is minimised: the proximal term is part of it.
void Bf16Engine::apply_optimizer(const Bf16Step& step, float learning_rate, float proximal_mu) {
  std::array<float, kBlockFloats + kKernelSlack> values;
  if (proximal_mu != 0) {
    for_each_block([&](std::size_t offset, std::size_t n) {
      float* g = gradient_.data() + offset;
      kernels_.widen(weights_.halves(0) + offset, n, values.data());
      plan_.kernels->add_scaled(values.data(), n, proximal_mu, g);
      kernels_.widen(initial_.halves(0) + offset, n, values.data());
      plan_.kernels->add_scaled(values.data(), n, -proximal_mu, g);
    });
  }
  if (optimizer_->spec().clip_norm > 0) {
    clip_gradient(gradient_.span(), optimizer_->spec().clip_norm);
  }
  optimizer_->begin_step();
  for_each_block([&](std::size_t offset, std::size_t n) {
    kernels_.widen(weights_.halves(0) + offset, n, values.data());
    optimizer_->update(offset, {gradient_.data() + offset, n}, {values.data(), n}, learning_rate);
    kernels_.narrow_stochastic(values.data(), n,
                               {step.rounding.key, static_cast<std::uint32_t>(offset)},
                               weights_.halves(0) + offset);
  });
}

Evaluation Bf16Engine::evaluate(std::span<const float> inputs,
                                std::span<const std::int32_t> labels) {
  const std::size_t batch = inputs.size() / plan_.inputs;
  COVEY_ASSERT(batch <= max_batch_ && inputs.size() == batch * plan_.inputs);
  COVEY_ASSERT(labels.size() == batch * plan_.predictions);
  Evaluation total;
  for_each_chunk(inputs, labels, [&](const Bf16Batch& part) {
    const LossResult result = pass().evaluate(part);
    total.loss_sum += result.sum;
    total.correct += result.correct;
  });
  total.examples = count_targets(plan_, labels, batch);
  return total;
}

bool Bf16Engine::finite() const {
  constexpr std::uint16_t kExponent = 0x7f80;  // all set: infinite or not a number
  return std::ranges::none_of(weights(),
                              [](std::uint16_t w) { return (w & kExponent) == kExponent; });
}

double Bf16Engine::difference_squared_norm() const {
  const std::uint16_t* initial = initial_.halves(0);
  const std::uint16_t* trained = weights_.halves(0);
  double sum = 0;
  for (std::size_t i = 0; i < size(); ++i) {
    const double difference = bf16_to_float(trained[i]) - bf16_to_float(initial[i]);
    sum += difference * difference;
  }
  return sum;
}

Result<SharedBytes> Bf16Engine::encode_difference(Encoding encoding, RandomStream random) const {
  std::vector<std::byte> bytes;
  bytes.reserve(encoded_size(encoding, plan_.layout));
  std::vector<float> trained;
  std::vector<float> initial;
  // Only int8 looks at a tensor as a whole (its scales); else a few values at a time are widened.
  for (const TensorLayout& tensor : plan_.layout.tensors()) {
    const std::size_t block = encoding == Encoding::kInt8 ? tensor.size() : kBlockFloats;
    for (std::size_t done = 0; done < tensor.size(); done += block) {
      const std::size_t n = std::min(block, tensor.size() - done);
      trained.resize(n);
      initial.resize(n);
      kernels_.widen(weights_.halves(0) + tensor.offset + done, n, trained.data());
      kernels_.widen(initial_.halves(0) + tensor.offset + done, n, initial.data());
      ModelLayout part;
      part.append(tensor.name,
                  n == tensor.size() ? tensor.shape : std::vector{static_cast<std::uint32_t>(n)});
      const SharedBytes encoded =
          covey::encode_difference(encoding, part, trained, initial, &random);
      bytes.insert(bytes.end(), encoded.span().begin(), encoded.span().end());
    }
  }
  COVEY_ASSERT(bytes.size() == encoded_size(encoding, plan_.layout));
  return SharedBytes(std::move(bytes));
}

void Bf16Engine::release_scratch() {
  block_ = {};
  gradient_ = {};
  optimizer_.reset();
  max_batch_ = 0;
}

std::size_t Bf16Engine::bytes() const {
  return initial_.bytes() + weights_.bytes() + block_.bytes() + gradient_.size() * sizeof(float) +
         (optimizer_ ? optimizer_->bytes() : 0);
}

}  // namespace covey::models
