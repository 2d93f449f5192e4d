#include "script_engine.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <mutex>
#include <numeric>

#include "errors.hpp"

namespace covey::torch {
namespace {

/// SplitMix64 (Steele et al. 2014): neighbouring steps get unrelated seeds.
std::uint64_t mixed(std::uint64_t seed, std::uint64_t step) {
  std::uint64_t z = seed + (step + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::span<const float> floats_of(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

std::span<const float> on_host(const at::Tensor& tensor, std::vector<float>& copy) {
  if (tensor.is_cpu()) return floats_of(tensor);
  const at::Tensor host = tensor.cpu();
  const auto values = floats_of(host);
  copy.assign(values.begin(), values.end());
  return copy;
}

}  // namespace

ScriptEngine::ScriptEngine(ScriptModule module, const ModelSpec& spec)
    : module_(std::move(module)), spec_(spec), initial_(module_.state().clone()) {
  shape_.example_size = std::accumulate(spec.input_shape.begin(), spec.input_shape.end(),
                                        std::size_t{1}, std::multiplies<>());
}

Result<std::unique_ptr<ScriptEngine>> ScriptEngine::make(const ScriptFile& file,
                                                         const ModelSpec& spec) {
  constexpr std::uint64_t kMaxInputs = std::uint64_t{1} << 24;  // as for networks of layers
  std::uint64_t inputs = spec.input_shape.empty() ? 0 : 1;
  for (const std::uint32_t extent : spec.input_shape) {
    inputs = std::min(inputs * extent, kMaxInputs + 1);
  }
  if (inputs == 0 || inputs > kMaxInputs || spec.input_shape.size() > 3) {
    return invalid_argument("the TorchScript file's plan gives an input shape of no values, of more "
                            "than 2^24, or of more than three dimensions");
  }
  try {
    const PlainExecution plain;
    COVEY_ASSIGN(ScriptModule module, ScriptModule::load(file));
    std::unique_ptr<ScriptEngine> engine(new ScriptEngine(std::move(module), spec));
    COVEY_TRY(engine->probe());
    return engine;
  } catch (const std::exception& exception) {
    return failed("the TorchScript file: " + reason_of(exception));
  }
}

void ScriptEngine::reserve(std::size_t max_batch) { max_batch_ = std::max(max_batch_, max_batch); }

Result<void> ScriptEngine::load(std::span<const std::byte> model) {
  try {
    const at::NoGradGuard no_grad;
    const std::size_t d = layout().size();
    if (module_.state().is_cpu()) {
      COVEY_TRY(decode_fp32(model, {module_.state().data_ptr<float>(), d}));
    } else {
      host_trained_.resize(d);
      COVEY_TRY(decode_fp32(model, host_trained_));
      module_.state().copy_(at::from_blob(host_trained_.data(), {static_cast<std::int64_t>(d)}));
    }
    initial_.copy_(module_.state());
    module_.reset_local_buffers();
    return {};
  } catch (const std::exception& exception) {
    return failed("the model does not load into the TorchScript module: " + reason_of(exception));
  }
}

void ScriptEngine::begin_training(const OptimizerSpec& optimizer, RandomStream random) {
  optimizer_.begin(optimizer);
  seed_ = random.next_u64();
  steps_ = 0;
  problem_.clear();
}

TensorBatch ScriptEngine::batch_of(std::span<const float> inputs,
                                   std::span<const std::int32_t> labels,
                                   std::size_t examples) const {
  std::vector<std::int64_t> sides{static_cast<std::int64_t>(examples)};
  sides.insert(sides.end(), spec_.input_shape.begin(), spec_.input_shape.end());
  const at::Device device = module_.device();
  TensorBatch batch;
  // from_blob takes no const; nothing writes to these tensors.
  const at::Tensor given = at::from_blob(const_cast<float*>(inputs.data()), sides).to(device);
  batch.features = given.reshape({sides[0], -1});
  if (shape_.vocabulary > 0) {
    batch.inputs = given.to(at::kLong);
  } else if (spec_.input_shape.size() == 3) {
    batch.inputs = given.permute({0, 3, 1, 2}).contiguous();  // [n, h, w, c] -> [n, c, h, w]
  } else {
    batch.inputs = given;
  }
  if (!labels.empty()) {
    const auto per_example = static_cast<std::int64_t>(labels.size()) / sides[0];
    batch.labels = at::from_blob(const_cast<std::int32_t*>(labels.data()), {sides[0], per_example},
                                 at::TensorOptions().dtype(at::kInt))
                       .to(at::TensorOptions().dtype(at::kLong).device(device));
  }
  return batch;
}

std::mutex& ScriptEngine::generator_mutex() {
  static std::mutex mutex;
  return mutex;
}

/// A forward pass in training mode, with this step's own random numbers.
at::Tensor ScriptEngine::training_outputs(const at::Tensor& inputs) {
  module_.set_training(true);
  if (!module_.may_draw_random()) return module_.forward(inputs);
  const std::lock_guard lock(generator_mutex());
  at::Generator generator = at::globalContext().defaultGenerator(module_.device());
  {
    const std::lock_guard generator_lock(generator.mutex());
    generator.set_current_seed(mixed(seed_, steps_));
  }
  return module_.forward(inputs);
}

double ScriptEngine::step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                          float learning_rate, float proximal_mu) {
  const PlainExecution plain;
  const TensorBatch batch = batch_of(inputs, labels, labels.size() / shape_.labels_per_example);
  module_.gradient().zero_();
  const at::Tensor loss = mean_loss(spec_, training_outputs(batch.inputs), batch);
  loss.backward();

  const at::NoGradGuard no_grad;
  at::Tensor& weights = module_.weights();
  at::Tensor& gradient = module_.gradient();
  if (proximal_mu > 0) {
    if (!scratch_.defined()) scratch_ = at::empty_like(weights);
    at::sub_out(scratch_, weights, initial_.narrow(0, 0, weights.numel()));
    gradient.add_(scratch_, proximal_mu);
  }
  optimizer_.step(weights, gradient, learning_rate);
  ++steps_;
  return loss.item<double>();
}

double ScriptEngine::train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                                float learning_rate, float proximal_mu) {
  try {
    return step(inputs, labels, learning_rate, proximal_mu);
  } catch (const std::exception& exception) {
    problem_ = "the TorchScript file: " + reason_of(exception);
    return std::numeric_limits<double>::quiet_NaN();
  }
}

models::Evaluation ScriptEngine::evaluate(std::span<const float> inputs,
                                          std::span<const std::int32_t> labels) {
  const std::size_t examples = labels.size() / shape_.labels_per_example;
  problem_.clear();
  try {
    const PlainExecution plain;
    const at::NoGradGuard no_grad;
    module_.set_training(false);
    const TensorBatch batch = batch_of(inputs, labels, examples);
    return evaluate_loss(spec_, module_.forward(batch.inputs), batch);
  } catch (const std::exception& exception) {
    problem_ = "the TorchScript file: " + reason_of(exception);
    return {std::numeric_limits<double>::quiet_NaN(), 0, labels.size()};
  }
}

bool ScriptEngine::finite() const {
  return std::ranges::all_of(trained(), [](float value) { return std::isfinite(value); });
}

double ScriptEngine::difference_squared_norm() const {
  const auto before = initial();
  const auto after = trained();
  double sum = 0;
  for (std::size_t i = 0; i < after.size(); ++i) {
    const double difference = after[i] - before[i];
    sum += difference * difference;
  }
  return sum;
}

Result<SharedBytes> ScriptEngine::encode_difference(Encoding encoding, RandomStream random) const {
  return covey::encode_difference(encoding, layout(), trained(), initial(), &random);
}

std::span<const float> ScriptEngine::initial() const { return on_host(initial_, host_initial_); }
std::span<const float> ScriptEngine::trained() const {
  return on_host(module_.state(), host_trained_);
}

std::size_t ScriptEngine::bytes() const {
  const std::size_t scratch = scratch_.defined() ? scratch_.nbytes() : 0;
  return module_.state().nbytes() + initial_.nbytes() + module_.trainable() * sizeof(float) +
         optimizer_.bytes() + scratch +
         (host_initial_.capacity() + host_trained_.capacity()) * sizeof(float);
}

}  // namespace covey::torch
