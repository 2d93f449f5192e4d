#include "layers/norm.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "layers/windows.hpp"
#include "planner.hpp"

namespace covey::models {

namespace {

/// PyTorch's defaults.
constexpr float kEpsilon = 1e-5f;
constexpr float kMomentum = 0.1f;  // of running statistics: the new batch's share

float inverse_deviation(float variance) { return 1.0f / std::sqrt(variance + kEpsilon); }

/// Arrays of R^n one after the other.
class Arrays {
 public:
  Arrays(float* from, std::size_t n) : next_(from), pitch_(round_to_vectors(n)) {}
  float* take() { return std::exchange(next_, next_ + pitch_); }

 private:
  float* next_;
  std::size_t pitch_;
};

std::pair<std::size_t, std::size_t> add_weight_and_bias(Planner& planner, const std::string& name) {
  const std::uint32_t channels = planner.shape().back();
  const std::size_t weight =
      planner.add_tensor(name + ".weight", {channels}, {.kind = TensorInit::Kind::kOnes});
  const std::size_t bias =
      planner.add_tensor(name + ".bias", {channels}, {.kind = TensorInit::Kind::kZeros});
  return {weight, bias};
}

/// values[offset, offset + n) descends along `gradient`.
void descend(const Kernels& kernels, const Descent& descent, std::size_t offset, std::size_t n,
             const float* gradient) {
  descent.pull(kernels, offset, n);
  kernels.add_scaled(gradient, n, descent.factor(), descent.values + offset);
}

}  // namespace

Result<void> plan_batch_norm(Planner& planner) {
  const std::uint32_t channels = planner.shape().back();
  COVEY_TRY(planner.check_sizes(std::uint64_t{channels} * 4, planner.shape_size()));
  BatchNormStage stage{.positions = planner.shape_size() / channels, .channels = channels};
  const std::string name = planner.number("batch_norm");
  std::tie(stage.weight, stage.bias) = add_weight_and_bias(planner, name);
  stage.running_mean = planner.add_tensor(name + ".running_mean", {channels},
                                          {.kind = TensorInit::Kind::kZeros, .trained = false});
  stage.running_variance = planner.add_tensor(name + ".running_var", {channels},
                                              {.kind = TensorInit::Kind::kOnes, .trained = false});
  planner.add_stage(stage, planner.shape());
  return {};
}

Result<void> plan_group_norm(Planner& planner) {
  const std::uint32_t channels = planner.shape().back();
  const std::uint32_t groups = planner.layer().groups;
  if (groups == 0 || channels % groups != 0) {
    return planner.refuse(fmt::format("has {} groups, which do not divide the {} channels of {}",
                                      groups, channels, Planner::text(planner.shape())));
  }
  GroupNormStage stage{
      .positions = planner.shape_size() / channels, .channels = channels, .groups = groups};
  if (stage.positions * channels == groups) {
    return planner.refuse(fmt::format("has {} groups for {}: one value each, which leaves nothing",
                                      groups, Planner::text(planner.shape())));
  }
  COVEY_TRY(planner.check_sizes(std::uint64_t{channels} * 2, planner.shape_size()));
  std::tie(stage.weight, stage.bias) = add_weight_and_bias(planner, planner.number("group_norm"));
  planner.add_stage(stage, planner.shape());
  return {};
}

Result<void> plan_layer_norm(Planner& planner) {
  const std::uint32_t channels = planner.shape().back();
  if (channels == 1) {
    return planner.refuse("normalises the last dimension of " + Planner::text(planner.shape()) +
                          ": one value, which leaves nothing");
  }
  COVEY_TRY(planner.check_sizes(std::uint64_t{channels} * 2, planner.shape_size()));
  GroupNormStage stage{
      .rows = planner.shape_size() / channels, .positions = 1, .channels = channels};
  std::tie(stage.weight, stage.bias) = add_weight_and_bias(planner, planner.number("layer_norm"));
  planner.add_stage(stage, planner.shape());
  return {};
}

// ---- batch norm. saved: mean and 1 / deviation of each channel.

StageMemory memory_of(const BatchNormStage& stage, std::size_t) {
  const std::size_t pitch = round_to_vectors(stage.channels);
  return {.saved = 2 * pitch, .forward_scratch = 2 * pitch, .backward_scratch = 5 * pitch};
}

void forward(const BatchNormStage& stage, const ForwardPass& pass) {
  const std::size_t channels = stage.channels;
  const std::size_t rows = pass.batch * stage.positions;
  Arrays saved(pass.saved, channels);
  float* mean = saved.take();
  float* inverse = saved.take();
  Arrays scratch(pass.scratch, channels);
  float* variance = scratch.take();
  float* scale = scratch.take();
  const bool by_batch = pass.training && rows > 1;
  if (by_batch) {
    pass.kernels.column_moments(pass.inputs, rows, channels, mean, variance);
  } else {
    std::copy_n(pass.parameters + stage.running_mean, channels, mean);
    std::copy_n(pass.parameters + stage.running_variance, channels, variance);
    // Noise or a server's momentum may leave it below zero.
    for (std::size_t c = 0; c < channels; ++c) variance[c] = variance[c] < 0 ? 0 : variance[c];
  }
  for (std::size_t c = 0; c < channels; ++c) {
    inverse[c] = inverse_deviation(variance[c]);
    scale[c] = pass.parameters[stage.weight + c] * inverse[c];
  }
  pass.kernels.map_columns({mean, scale, pass.parameters + stage.bias, stage.relu}, pass.inputs,
                           rows, channels, pass.outputs);
  if (!by_batch || pass.running == nullptr) return;
  const auto n = static_cast<float>(rows);
  const float unbias = n / (n - 1);
  float* running_mean = pass.running + stage.running_mean;
  float* running_variance = pass.running + stage.running_variance;
  for (std::size_t c = 0; c < channels; ++c) {
    running_mean[c] += kMomentum * (mean[c] - running_mean[c]);
    running_variance[c] += kMomentum * (unbias * variance[c] - running_variance[c]);
  }
}

void backward(const BatchNormStage& stage, const BackwardPass& pass, const Descent& descent) {
  const Kernels& kernels = pass.kernels;
  const std::size_t channels = stage.channels;
  const std::size_t rows = pass.batch * stage.positions;
  if (stage.relu) kernels.relu_backward(pass.outputs, rows * channels, pass.gradient_outputs);
  Arrays saved(pass.saved, channels);
  const float* mean = saved.take();
  const float* inverse = saved.take();
  Arrays scratch(pass.scratch, channels);
  float* sums = scratch.take();
  float* products = scratch.take();
  float* scale = scratch.take();
  float* slope = scratch.take();
  float* shift = scratch.take();
  kernels.column_products(pass.gradient_outputs, pass.inputs, mean, rows, channels, sums, products);
  // dx = scale * (g - mean(g) - x^ * mean(g x^)), x^ = (x - mean) / deviation; running statistics
  // are constants: dx = scale * g.
  const float share = rows > 1 ? 1.0f / static_cast<float>(rows) : 0.0f;
  for (std::size_t c = 0; c < channels; ++c) {
    products[c] *= inverse[c];  // the weight's gradient
    scale[c] = pass.parameters[stage.weight + c] * inverse[c];
    slope[c] = -scale[c] * inverse[c] * products[c] * share;
    shift[c] = -scale[c] * sums[c] * share;
  }
  if (pass.gradient_inputs != nullptr) {
    kernels.normalise_backward({mean, slope, shift, false}, scale, pass.gradient_outputs,
                               pass.inputs, rows, channels, pass.gradient_inputs);
  }
  descend(kernels, descent, stage.weight, channels, products);
  descend(kernels, descent, stage.bias, channels, sums);
}

// ---- group norm. saved: of each row, mean and 1 / deviation of each group.

StageMemory memory_of(const GroupNormStage& stage, std::size_t batch) {
  const std::size_t pitch = round_to_vectors(stage.channels);
  return {.saved = batch * stage.rows * 2 * stage.groups,
          .forward_scratch = 4 * pitch,
          .backward_scratch = 10 * pitch};
}

namespace {

/// The moments of each group from those of its channels, which all have as many values: the mean of
/// means, and the mean of (variance + squared distance of the channel's mean from the group's).
void group_moments(const GroupNormStage& stage, const Kernels& kernels, const float* mean,
                   float* variance, float* group_mean, float* group_inverse) {
  const std::size_t size = stage.channels / stage.groups;
  const float share = 1.0f / static_cast<float>(size);
  kernels.part_sums(mean, stage.channels, stage.groups, group_mean);
  for (std::size_t g = 0; g < stage.groups; ++g) {
    group_mean[g] *= share;
    for (std::size_t c = g * size; c < (g + 1) * size; ++c) {
      const float away = mean[c] - group_mean[g];
      variance[c] += away * away;
    }
  }
  kernels.part_sums(variance, stage.channels, stage.groups, group_inverse);
  for (std::size_t g = 0; g < stage.groups; ++g) {
    group_inverse[g] = inverse_deviation(group_inverse[g] * share);
  }
}

/// What the backward pass of each row works with.
struct GroupNormScratch {
  GroupNormScratch(const GroupNormStage& stage, float* from) {
    Arrays arrays(from, stage.channels);
    for (float** array : {&center, &scale, &slope, &shift, &sums, &products, &group_sums,
                          &group_products, &weight_gradient, &bias_gradient}) {
      *array = arrays.take();
    }
    std::fill_n(weight_gradient, stage.channels, 0.0f);
    std::fill_n(bias_gradient, stage.channels, 0.0f);
  }

  float *center, *scale, *slope, *shift;
  float *sums, *products, *group_sums, *group_products;
  float *weight_gradient, *bias_gradient;
};

/// dx = (w g - mean(w g) - x^ * mean(w g x^)) / deviation, means over the group; given the sums
/// over positions of g and of g * (x - center).
void row_coefficients(const GroupNormStage& stage, const BackwardPass& pass,
                      const float* group_inverse, GroupNormScratch& s) {
  const std::size_t size = stage.channels / stage.groups;
  const float share = 1.0f / static_cast<float>(size * stage.positions);
  const float* weight = pass.parameters + stage.weight;
  for (std::size_t c = 0; c < stage.channels; ++c) {
    s.slope[c] = weight[c] * s.products[c];
    s.shift[c] = weight[c] * s.sums[c];
  }
  pass.kernels.part_sums(s.slope, stage.channels, stage.groups, s.group_products);
  pass.kernels.part_sums(s.shift, stage.channels, stage.groups, s.group_sums);
  for (std::size_t g = 0; g < stage.groups; ++g) {
    const float inverse = group_inverse[g];
    const float slope = -inverse * inverse * inverse * s.group_products[g] * share;
    const float shift = -inverse * s.group_sums[g] * share;
    for (std::size_t c = g * size; c < (g + 1) * size; ++c) {
      s.scale[c] = inverse * weight[c];
      s.slope[c] = slope;
      s.shift[c] = shift;
      s.weight_gradient[c] += inverse * s.products[c];
      s.bias_gradient[c] += s.sums[c];
    }
  }
}

}  // namespace

void forward(const GroupNormStage& stage, const ForwardPass& pass) {
  const Kernels& kernels = pass.kernels;
  const std::size_t size = stage.channels / stage.groups;
  const std::size_t floats = stage.positions * stage.channels;
  const float* weight = pass.parameters + stage.weight;
  Arrays scratch(pass.scratch, stage.channels);
  float* mean = scratch.take();
  float* variance = scratch.take();
  float* center = scratch.take();
  float* scale = scratch.take();
  for (std::size_t row = 0; row < pass.batch * stage.rows; ++row) {
    const float* x = pass.inputs + row * floats;
    float* group_mean = pass.saved + row * 2 * stage.groups;
    float* group_inverse = group_mean + stage.groups;
    kernels.column_moments(x, stage.positions, stage.channels, mean, variance);
    group_moments(stage, kernels, mean, variance, group_mean, group_inverse);
    for (std::size_t g = 0; g < stage.groups; ++g) {
      std::fill_n(center + g * size, size, group_mean[g]);
      for (std::size_t c = g * size; c < (g + 1) * size; ++c) {
        scale[c] = weight[c] * group_inverse[g];
      }
    }
    kernels.map_columns({center, scale, pass.parameters + stage.bias, stage.relu}, x,
                        stage.positions, stage.channels, pass.outputs + row * floats);
  }
}

void backward(const GroupNormStage& stage, const BackwardPass& pass, const Descent& descent) {
  const Kernels& kernels = pass.kernels;
  const std::size_t channels = stage.channels;
  const std::size_t floats = stage.positions * channels;
  const std::size_t rows = pass.batch * stage.rows;
  const std::size_t size = channels / stage.groups;
  if (stage.relu) kernels.relu_backward(pass.outputs, rows * floats, pass.gradient_outputs);
  GroupNormScratch s(stage, pass.scratch);
  for (std::size_t row = 0; row < rows; ++row) {
    const float* x = pass.inputs + row * floats;
    const float* g = pass.gradient_outputs + row * floats;
    const float* group_mean = pass.saved + row * 2 * stage.groups;
    for (std::size_t group = 0; group < stage.groups; ++group) {
      std::fill_n(s.center + group * size, size, group_mean[group]);
    }
    kernels.column_products(g, x, s.center, stage.positions, channels, s.sums, s.products);
    row_coefficients(stage, pass, group_mean + stage.groups, s);
    if (pass.gradient_inputs != nullptr) {
      kernels.normalise_backward({s.center, s.slope, s.shift, false}, s.scale, g, x,
                                 stage.positions, channels, pass.gradient_inputs + row * floats);
    }
  }
  descend(kernels, descent, stage.weight, channels, s.weight_gradient);
  descend(kernels, descent, stage.bias, channels, s.bias_gradient);
}

}  // namespace covey::models
