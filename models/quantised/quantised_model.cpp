#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/int8_encoding.hpp>
#include <cstring>
#include <limits>
#include <utility>

#include "int8_parameters.hpp"
#include "int8_softmax.hpp"
#include "int8_stages.hpp"
#include "quantised_state.hpp"

namespace covey::models {

namespace {

constexpr float kMost = 127;
constexpr double kMostInitial = 0x1p29;  // as in training: sums stay below 2^31

/// A range of zero was seen with zeros alone, which any scale represents.
float activation_scale(float range) { return range > 0 ? range / kMost : 1.0f; }

Requantisation requantisation(const Int8Weights& weights, const Int8Storage& storage,
                              float input_scale, float output_scale) {
  Requantisation result;
  const std::size_t padded = weights.padded_outputs();
  result.initial.resize(padded);
  result.multiplier.resize(padded);
  result.shift.assign(padded, 1);
  result.input_scale = input_scale;
  const float* scales = storage.scales(weights);
  const float* biases = storage.biases(weights);
  for (std::size_t o = 0; o < weights.outputs; ++o) {
    const double unit = static_cast<double>(input_scale) * static_cast<double>(scales[o]);
    const double bias =
        std::clamp(static_cast<double>(biases[o]) / unit, -kMostInitial, kMostInitial);
    result.initial[o] = static_cast<std::int32_t>(std::nearbyint(bias));
    const FixedPoint factor = fixed_point(unit / static_cast<double>(output_scale));
    result.multiplier[o] = factor.multiplier;
    result.shift[o] = factor.shift;
  }
  return result;
}

/// Runs `batch` examples through the layers; activations begin in buffer 0.
class Inference {
 public:
  Inference(const QuantisedState& state, std::size_t batch)
      : state_(state), kernels_(*state.plan.kernels), batch_(batch) {}

  void run(float* logits) {
    for (std::size_t s = 0; s < state_.plan.stages.size(); ++s) {
      const Int8Stage& stage = state_.plan.stages[s];
      if (const auto* dense = std::get_if<Int8DenseStage>(&stage)) {
        run_dense(*dense, s, logits);
      } else if (const auto* convolution = std::get_if<Int8ConvolutionStage>(&stage)) {
        run_convolution(*convolution, s);
      } else {
        forward_without_weights(stage, batch_, state_.activation(s), state_.activation(s + 1));
      }
    }
  }

 private:
  std::byte* scratch() const { return state_.buffers.data() + state_.scratch; }

  void requantise(const Requantisation& layer, const std::int32_t* sums, std::size_t outputs,
                  bool relu, std::int8_t* out) const {
    kernels_.requantise(sums, outputs, layer.multiplier.data(), layer.shift.data(), relu, out);
  }

  void run_dense(const Int8DenseStage& stage, std::size_t s, float* logits) {
    Carver carver(scratch());
    DenseForward frame(carver, stage, batch_, kernels_.operand_bytes);
    const Requantisation& layer = state_.layers[s];
    const std::size_t padded = stage.weights.padded_outputs();
    std::copy_n(layer.initial.data(), padded, frame.initial);
    dense_sums(kernels_, stage, state_.storage.values(stage.weights), state_.activation(s), batch_,
               frame);
    const bool last = s + 1 == state_.plan.stages.size();
    const float* scales = state_.storage.scales(stage.weights);
    for (std::size_t b = 0; b < batch_; ++b) {
      const std::int32_t* sums = frame.sums + b * padded;
      if (!last) {
        requantise(layer, sums, padded, stage.relu, state_.activation(s + 1) + b * padded);
        continue;
      }
      for (std::size_t o = 0; o < stage.values(); ++o) {
        *logits++ = static_cast<float>(sums[o]) * (layer.input_scale * scales[o]);
      }
    }
  }

  void run_convolution(const Int8ConvolutionStage& stage, std::size_t s) {
    Carver carver(scratch());
    const ConvolutionForward frame(carver, stage, 1, kernels_.operand_bytes);
    const Requantisation& layer = state_.layers[s];
    const std::size_t padded = stage.weights.padded_outputs();
    std::copy_n(layer.initial.data(), padded, frame.initial);
    const std::int8_t* in = state_.activation(s);
    std::int8_t* out = state_.activation(s + 1);
    for (std::size_t b = 0; b < batch_; ++b) {
      convolution_sums(kernels_, stage, state_.storage.values(stage.weights),
                       in + b * example_pitch(stage.inputs()), frame, nullptr, frame.sums);
      std::int8_t* image = out + b * example_pitch(stage.values());
      for (std::size_t p = 0; p < stage.pooled_positions(); ++p) {
        requantise(layer, frame.sums + p * padded, stage.filters(), stage.relu,
                   image + p * stage.filters());
      }
      std::memset(image + stage.values(), 0, example_pitch(stage.values()) - stage.values());
    }
  }

  const QuantisedState& state_;
  const Int8Kernels& kernels_;
  std::size_t batch_;
};

/// Quantises up to kInferenceBatch examples and runs them. False if one is not finite.
bool scores_of(const QuantisedState& state, const float* inputs, std::size_t batch, float* logits) {
  const std::size_t size = state.plan.inputs;
  const Int8Kernels& kernels = *state.plan.kernels;
  if (!std::isfinite(kernels.largest_float(inputs, batch * size))) return false;
  const float factor = 1.0f / activation_scale(state.ranges.front());
  std::int8_t* out = state.activation(0);
  for (std::size_t b = 0; b < batch; ++b, out += example_pitch(size)) {
    kernels.quantise_floats(inputs + b * size, size, factor, out);
    std::memset(out + size, 0, example_pitch(size) - size);
  }
  Inference(state, batch).run(logits);
  return true;
}

}  // namespace

FixedPoint fixed_point(double real) {
  if (!(real > 0x1p-33)) return {};
  if (!(real < 0x1p30)) return {std::numeric_limits<std::int32_t>::max(), 1};
  int exponent = 0;
  const double fraction = std::frexp(real, &exponent);  // [0.5, 1)
  auto multiplier = static_cast<std::int64_t>(std::nearbyint(fraction * 0x1p31));
  if (multiplier == std::int64_t{1} << 31) {
    multiplier /= 2;
    ++exponent;
  }
  return {static_cast<std::int32_t>(multiplier), std::min(31 - exponent, 62)};
}

QuantisedState::QuantisedState(Int8Plan made, std::span<const std::byte> blob,
                               std::span<const float> activation_ranges)
    : plan(std::move(made)),
      ranges(activation_ranges.begin(), activation_ranges.end()),
      storage(plan.storage_bytes),
      layers(plan.stages.size()) {
  load_int8(plan, storage, blob);
  plan_layers();
  plan_buffers();
}

void QuantisedState::plan_layers() {
  std::size_t range = 0;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const Int8Weights* weights = stage_weights(plan.stages[s]);
    if (weights == nullptr) continue;  // its values keep the scale they have
    layers[s] = requantisation(*weights, storage, activation_scale(ranges[range]),
                               activation_scale(ranges[range + 1]));
    ++range;
    prepare_initial(*plan.kernels, *weights, storage.values(*weights), layers[s].initial.data());
  }
}

void QuantisedState::plan_buffers() {
  std::size_t widest[2] = {example_pitch(plan.inputs), 0};
  std::size_t most = 0;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    widest[(s + 1) % 2] =
        std::max(widest[(s + 1) % 2], example_pitch(stage_values(plan.stages[s])));
    const bool dense = std::holds_alternative<Int8DenseStage>(plan.stages[s]);
    most = std::max(most, stage_scratch(plan, s, dense ? kInferenceBatch : 1, false));
  }
  Carver carver;
  const auto place = [&carver](std::size_t size) {
    const std::size_t offset = carver.used();
    carver.take<std::byte>(size);
    return offset;
  };
  for (std::size_t i = 0; i < 2; ++i)
    activations[i] = place(kInferenceBatch * widest[i] + kInt8Slack);
  logits = place(kInferenceBatch * plan.classes * sizeof(float));
  scratch = place(most + kInt8Slack);
  buffers = AlignedBytes(carver.used());
}

QuantisedModel::QuantisedModel(std::unique_ptr<State> state) : state_(std::move(state)) {}
QuantisedModel::QuantisedModel(QuantisedModel&&) noexcept = default;
QuantisedModel& QuantisedModel::operator=(QuantisedModel&&) noexcept = default;
QuantisedModel::~QuantisedModel() = default;

Result<QuantisedModel> QuantisedModel::assemble(const ModelSpec& spec,
                                                std::span<const std::byte> blob,
                                                std::span<const float> activation_ranges) {
  COVEY_ASSIGN(Int8Plan plan, Int8Plan::make(spec, "run", "fp32"));
  COVEY_TRY(check_int8(blob, plan.layout));
  const auto weighted = static_cast<std::size_t>(std::count_if(
      plan.stages.begin(), plan.stages.end(), [](const Int8Stage& s) { return stage_weights(s); }));
  if (activation_ranges.size() != weighted + 1) {
    return invalid_argument(
        fmt::format("{} activation ranges where the network has {}: its input and {} layers with "
                    "weights",
                    activation_ranges.size(), weighted + 1, weighted));
  }
  for (std::size_t i = 0; i < activation_ranges.size(); ++i) {
    const float range = activation_ranges[i];
    if (!std::isfinite(range) || range < 0) {
      return invalid_argument(
          fmt::format("activation range {} of {} is {}; it must be a finite "
                      "largest magnitude",
                      i + 1, activation_ranges.size(), range));
    }
  }
  return QuantisedModel(std::make_unique<State>(std::move(plan), blob, activation_ranges));
}

Result<QuantisedModel> QuantisedModel::make(const ModelSpec& spec,
                                            std::span<const float> parameters,
                                            std::span<const float> activation_ranges) {
  COVEY_ASSIGN(const Int8Plan plan, Int8Plan::make(spec, "run", "fp32"));
  if (parameters.size() != plan.layout.size()) {
    return invalid_argument(fmt::format("{} parameters where the network has {}", parameters.size(),
                                        plan.layout.size()));
  }
  const SharedBytes blob = encode_int8(parameters, plan.layout, Int8Encoding{.headroom = 1});
  return assemble(spec, blob.span(), activation_ranges);
}

const ModelSpec& QuantisedModel::spec() const { return state_->plan.spec; }
std::size_t QuantisedModel::inputs() const { return state_->plan.inputs; }
std::size_t QuantisedModel::classes() const { return state_->plan.classes; }
std::size_t QuantisedModel::num_parameters() const { return state_->plan.layout.size(); }

std::size_t QuantisedModel::bytes() const {
  std::size_t total = state_->storage.bytes.size() + state_->buffers.size();
  for (const Requantisation& layer : state_->layers) {
    total += 3 * layer.initial.size() * sizeof(std::int32_t);
  }
  return total;
}

void QuantisedModel::predict(std::span<const float> inputs, std::span<float> logits) {
  const std::size_t examples = logits.size() / classes();
  COVEY_ASSERT(logits.size() == examples * classes());
  COVEY_ASSERT(inputs.size() == examples * this->inputs());
  for (std::size_t first = 0; first < examples; first += kInferenceBatch) {
    const std::size_t batch = std::min(kInferenceBatch, examples - first);
    const auto out = logits.subspan(first * classes(), batch * classes());
    if (!scores_of(*state_, inputs.data() + first * this->inputs(), batch, out.data())) {
      std::fill(out.begin(), out.end(), std::numeric_limits<float>::quiet_NaN());
    }
  }
}

Evaluation QuantisedModel::evaluate(std::span<const float> inputs,
                                    std::span<const std::int32_t> labels) {
  COVEY_ASSERT(inputs.size() == labels.size() * this->inputs());
  Evaluation total;
  total.examples = labels.size();
  for (std::size_t first = 0; first < labels.size(); first += kInferenceBatch) {
    const std::size_t batch = std::min(kInferenceBatch, labels.size() - first);
    float* logits = state_->scores();
    if (!scores_of(*state_, inputs.data() + first * this->inputs(), batch, logits)) {
      total.loss_sum = std::numeric_limits<double>::quiet_NaN();
      continue;
    }
    const SoftmaxLoss loss =
        softmax_cross_entropy(logits, labels.data() + first, batch, classes(), false);
    total.loss_sum += loss.loss_sum;
    total.correct += loss.correct;
  }
  return total;
}

}  // namespace covey::models
