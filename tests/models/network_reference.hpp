#pragma once

#include <algorithm>
#include <cmath>
#include <covey/model_spec.hpp>
#include <covey/random.hpp>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "network_reference_layers.hpp"
#include "network_reference_norms.hpp"

/// The networks of network.hpp once more, in double precision and as plainly as the definitions
/// read: what the engine's results are compared with. A whole batch at a time, no dropout.
namespace covey::models::reference {

struct LossAndGradient {
  double loss = 0;  ///< mean over the predictions that have a target
  std::size_t correct = 0;
  std::size_t targets = 0;
  std::vector<double> gradient;  ///< of the mean loss
};

/// Outputs of every layer: [0] the inputs, [l + 1] layer l's.
inline std::vector<Batch> run(const std::vector<Layer>& layers, const std::vector<double>& w,
                              const Batch& inputs, bool training) {
  std::vector<Batch> values{inputs};
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Layer& layer = layers[l];
    Batch y = values[l];
    if (layer.normalises()) {
      y = normalise(layer, w, values[l], training);
    } else if (layer.is(LayerKind::kAdd)) {
      const Batch& other = values[l + 1 - layer.spec.back];
      for (std::size_t b = 0; b < y.size(); ++b) {
        for (std::size_t i = 0; i < y[b].size(); ++i) y[b][i] += other[b][i];
      }
    } else {
      for (std::size_t b = 0; b < y.size(); ++b) y[b] = forward(layer, w, values[l][b]);
    }
    values.push_back(std::move(y));
  }
  return values;
}

/// Adds the parameters' gradient to `gradient`, given that of the last layer's outputs.
inline void run_backward(const std::vector<Layer>& layers, const std::vector<double>& w,
                         const std::vector<Batch>& values, const Batch& last,
                         std::vector<double>& gradient) {
  std::vector<Batch> d = values;
  for (Batch& batch : d) {
    for (auto& example : batch) std::ranges::fill(example, 0.0);
  }
  d.back() = last;
  const auto add = [](Batch& to, std::size_t b, const std::vector<double>& from) {
    for (std::size_t i = 0; i < from.size(); ++i) to[b][i] += from[i];
  };
  for (std::size_t l = layers.size(); l-- > 0;) {
    const Layer& layer = layers[l];
    const Batch dy = d[l + 1];
    Batch normalised;
    if (layer.normalises()) normalised = normalise_backward(layer, w, values[l], dy, gradient);
    for (std::size_t b = 0; b < dy.size(); ++b) {
      if (layer.normalises()) {
        add(d[l], b, normalised[b]);
      } else if (layer.is(LayerKind::kAdd)) {
        add(d[l], b, dy[b]);
        add(d[l + 1 - layer.spec.back], b, dy[b]);
      } else {
        add(d[l], b, backward(layer, w, values[l][b], dy[b], gradient));
      }
    }
  }
}

/// One prediction's loss, its gradient and whether it is right.
struct Prediction {
  double loss = 0;
  bool correct = false;
  std::vector<double> gradient;
};

inline Prediction cross_entropy(std::span<const double> z, std::int32_t label) {
  Prediction result;
  const auto best = static_cast<std::size_t>(std::ranges::max_element(z) - z.begin());
  double sum = 0;
  for (const double v : z) sum += std::exp(v - z[best]);
  const auto target = static_cast<std::size_t>(label);
  result.loss = std::log(sum) + z[best] - z[target];
  result.correct = best == target;
  for (std::size_t c = 0; c < z.size(); ++c) {
    result.gradient.push_back(std::exp(z[c] - z[best]) / sum - (c == target ? 1 : 0));
  }
  return result;
}

/// Mean squared error, or binary cross-entropy of logits.
inline Prediction mean_over_outputs(const ModelSpec& spec, std::span<const double> y,
                                    std::span<const double> inputs, std::int32_t label) {
  Prediction result;
  const auto count = static_cast<double>(y.size());
  const bool squared = spec.loss == Loss::kMeanSquaredError;
  for (std::size_t o = 0; o < y.size(); ++o) {
    const double one_hot = static_cast<std::size_t>(label) == o ? 1 : 0;
    const double t = spec.target == Target::kInput ? inputs[o]
                     : y.size() == 1               ? static_cast<double>(label)
                                                   : one_hot;
    const double p = 1 / (1 + std::exp(-y[o]));
    result.loss +=
        (squared ? (y[o] - t) * (y[o] - t) : -t * std::log(p) - (1 - t) * std::log(1 - p)) / count;
    result.gradient.push_back((squared ? 2 * (y[o] - t) : p - t) / count);
  }
  if (spec.target == Target::kInput) return result;
  if (y.size() > 1) {
    result.correct = std::ranges::max_element(y) - y.begin() == label;
  } else {
    result.correct =
        squared ? std::abs(y[0] - static_cast<double>(label)) < 0.5 : (y[0] > 0) == (label == 1);
  }
  return result;
}

/// inputs [batch x input size], labels [batch x predictions]. Outside of training: by running
/// statistics (and the gradient is none).
inline LossAndGradient loss_and_gradient(const ModelSpec& spec, const std::vector<double>& w,
                                         std::span<const float> inputs,
                                         std::span<const std::int32_t> labels,
                                         bool training = true) {
  const std::vector<Layer> layers = plan(spec);
  const std::size_t size = layers.front().in.size();
  Batch batch(inputs.size() / size);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    batch[i / size].push_back(static_cast<double>(inputs[i]));
  }
  const std::vector<Batch> values = run(layers, w, batch, training);
  const Shape out = layers.back().out;
  const std::size_t predictions = labels.size() / batch.size();
  const std::size_t classes = out.size() / predictions;
  LossAndGradient result;
  Batch d = values.back();
  for (std::size_t row = 0; row < labels.size(); ++row) {
    const std::size_t b = row / predictions, first = row % predictions * classes;
    const std::span<const double> y = std::span(values.back()[b]).subspan(first, classes);
    const bool counts = labels[row] >= 0 || spec.target == Target::kInput;
    Prediction prediction{.gradient = std::vector<double>(classes, 0.0)};
    if (counts) {
      prediction = spec.loss == Loss::kCrossEntropy
                       ? cross_entropy(y, labels[row])
                       : mean_over_outputs(spec, y, batch[b], labels[row]);
    }
    result.targets += counts ? 1 : 0;
    result.loss += prediction.loss;
    result.correct += prediction.correct ? 1 : 0;
    std::ranges::copy(prediction.gradient, d[b].begin() + static_cast<std::ptrdiff_t>(first));
  }
  const auto count = static_cast<double>(std::max<std::size_t>(result.targets, 1));
  result.loss /= count;
  for (auto& example : d) {
    for (double& v : example) v /= count;
  }
  result.gradient.assign(w.size(), 0.0);
  if (training) run_backward(layers, w, values, d, result.gradient);
  return result;
}

/// A batch and parameters, uniform in [-1, 1] and scaled so that activations stay of order one.
struct Problem {
  std::vector<float> inputs;
  std::vector<std::int32_t> labels;
  std::vector<float> parameters;

  std::vector<double> exact() const { return {parameters.begin(), parameters.end()}; }
};

/// Labels of a batch: classes, or 0 and 1, or small numbers, as the loss takes them. Every fifth
/// prediction of a sequence has none.
inline std::vector<std::int32_t> random_labels(const ModelSpec& spec, const Shape& out,
                                               std::size_t batch, RandomStream& random) {
  const bool sequence = out.width > 1 && spec.target == Target::kLabel;
  const std::size_t classes = sequence ? out.channels : out.size();
  const bool number = classes == 1 && spec.loss == Loss::kMeanSquaredError;
  std::vector<std::int32_t> labels;
  for (std::size_t row = 0; row < batch * (sequence ? out.width : 1); ++row) {
    const std::size_t limit = number ? 4 : std::max<std::size_t>(classes, 2);
    const auto label = static_cast<std::int32_t>(random.below(limit));
    labels.push_back(sequence && row % 5 == 3 ? -1 : label);
  }
  return labels;
}

inline Problem random_problem(const ModelSpec& spec, std::size_t batch, std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTraining);
  const std::vector<Layer> layers = plan(spec);
  Problem problem;
  for (std::size_t i = 0; i < batch * layers.front().in.size(); ++i) {
    problem.inputs.push_back(static_cast<float>(random.uniform(-1, 1)));
  }
  problem.labels = random_labels(spec, layers.back().out, batch, random);
  const auto draw = [&](std::size_t n, double low, double high) {
    for (std::size_t i = 0; i < n; ++i) {
      problem.parameters.push_back(static_cast<float>(random.uniform(low, high)));
    }
  };
  for (const Layer& layer : layers) {
    const std::size_t channels = layer.out.channels;
    if (layer.has_products()) {
      const double bound = 1.5 / std::sqrt(static_cast<double>(layer.fan_in));
      draw(layer.bias - layer.weight + channels, -bound, bound);
    } else if (layer.normalises()) {
      draw(channels, 0.5, 1.5);
      draw(channels, -0.5, 0.5);
    }
    if (layer.is(LayerKind::kBatchNorm)) {
      draw(channels, -0.3, 0.3);
      draw(channels, 0.5, 1.5);
    }
  }
  return problem;
}

/// Sets COVEY_ISA for the networks made in its life time.
class InstructionSet {
 public:
  explicit InstructionSet(const std::string& name) {
    if (const char* before = std::getenv("COVEY_ISA")) before_ = before;
    ::setenv("COVEY_ISA", name.c_str(), 1);
  }
  ~InstructionSet() {
    before_ ? ::setenv("COVEY_ISA", before_->c_str(), 1) : ::unsetenv("COVEY_ISA");
  }
  InstructionSet(const InstructionSet&) = delete;
  InstructionSet& operator=(const InstructionSet&) = delete;

 private:
  std::optional<std::string> before_;
};

}  // namespace covey::models::reference
