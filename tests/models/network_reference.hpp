#pragma once

#include <cmath>
#include <covey/model_spec.hpp>
#include <covey/random.hpp>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// The networks of network.hpp once more, in double precision and as plainly as the definitions
/// read: what the engine's results are compared with. One example at a time.
namespace covey::models::reference {

struct Shape {
  std::size_t height = 1, width = 1, channels = 1;
  std::size_t size() const { return height * width * channels; }
};

struct Layer {
  LayerSpec spec;
  Shape in, out;
  std::size_t weight = 0, bias = 0;  ///< offsets in the parameter vector
};

/// Shapes and parameter offsets, layer by layer; parameters lie as weight, bias, weight, bias, ...
inline std::vector<Layer> plan(const ModelSpec& spec) {
  const auto& s = spec.input_shape;
  Shape shape = s.size() == 3 ? Shape{s[0], s[1], s[2]} : Shape{1, 1, s[0]};
  std::size_t offset = 0;
  std::vector<Layer> layers;
  for (const LayerSpec& layer : spec.layers) {
    Layer next{layer, shape, shape};
    std::size_t weights = 0;
    const std::size_t k = layer.kernel;
    switch (layer.kind) {
      case LayerKind::kDense:
        next.out = {1, 1, layer.units};
        weights = shape.size() * layer.units;
        break;
      case LayerKind::kConv2d:
        next.out.channels = layer.units;
        weights = k * k * shape.channels * layer.units;
        break;
      case LayerKind::kMaxPool2d:
        next.out = {shape.height / k, shape.width / k, shape.channels};
        break;
      case LayerKind::kFlatten:
        next.out = {1, 1, shape.size()};
        break;
      case LayerKind::kRelu:
        break;
    }
    next.weight = offset;
    next.bias = offset + weights;
    if (weights > 0) offset += weights + layer.units;
    shape = next.out;
    layers.push_back(next);
  }
  return layers;
}

/// Calls f(input index, weight index, output index) for every multiplication of a layer.
template <typename F>
void for_each_product(const Layer& layer, F f) {
  const Shape& in = layer.in;
  const std::size_t units = layer.spec.units;
  if (layer.spec.kind == LayerKind::kDense) {
    for (std::size_t i = 0; i < in.size(); ++i) {
      for (std::size_t o = 0; o < units; ++o) f(i, layer.weight + i * units + o, o);
    }
    return;
  }
  const std::size_t k = layer.spec.kernel, before = (k - 1) / 2;
  for (std::size_t y = 0; y < in.height; ++y) {
    for (std::size_t x = 0; x < in.width; ++x) {
      for (std::size_t ky = 0; ky < k; ++ky) {
        for (std::size_t kx = 0; kx < k; ++kx) {
          // same padding: (k - 1) / 2 zeros before, the rest behind
          if (y + ky < before || y + ky - before >= in.height) continue;
          if (x + kx < before || x + kx - before >= in.width) continue;
          for (std::size_t c = 0; c < in.channels; ++c) {
            const std::size_t i =
                ((y + ky - before) * in.width + x + kx - before) * in.channels + c;
            for (std::size_t o = 0; o < units; ++o) {
              f(i, layer.weight + ((ky * k + kx) * in.channels + c) * units + o,
                (y * in.width + x) * units + o);
            }
          }
        }
      }
    }
  }
}

/// The first largest element of each pooling window: calls f(its input index, output index).
template <typename F>
void for_each_maximum(const Layer& layer, const std::vector<double>& x, F f) {
  const std::size_t k = layer.spec.kernel;
  for (std::size_t oy = 0; oy < layer.out.height; ++oy) {
    for (std::size_t ox = 0; ox < layer.out.width; ++ox) {
      for (std::size_t c = 0; c < layer.out.channels; ++c) {
        std::optional<std::size_t> best;
        for (std::size_t j = 0; j < k * k; ++j) {
          const std::size_t i =
              ((oy * k + j / k) * layer.in.width + ox * k + j % k) * layer.in.channels + c;
          if (!best || x[i] > x[*best]) best = i;
        }
        f(*best, (oy * layer.out.width + ox) * layer.out.channels + c);
      }
    }
  }
}

inline bool has_weights(const Layer& layer) {
  return layer.spec.kind == LayerKind::kDense || layer.spec.kind == LayerKind::kConv2d;
}

inline std::vector<double> forward(const Layer& layer, const std::vector<double>& w,
                                   const std::vector<double>& x) {
  std::vector<double> y(layer.out.size(), 0.0);
  if (has_weights(layer)) {
    for (std::size_t o = 0; o < y.size(); ++o) y[o] = w[layer.bias + o % layer.spec.units];
    for_each_product(layer, [&](auto i, auto p, auto o) { y[o] += x[i] * w[p]; });
  } else if (layer.spec.kind == LayerKind::kMaxPool2d) {
    for_each_maximum(layer, x, [&](auto i, auto o) { y[o] = x[i]; });
  } else {
    const bool relu = layer.spec.kind == LayerKind::kRelu;
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = relu && x[i] < 0 ? 0 : x[i];
  }
  return y;
}

/// Adds the parameters' gradient to `gradient`; returns the input's.
inline std::vector<double> backward(const Layer& layer, const std::vector<double>& w,
                                    const std::vector<double>& x, const std::vector<double>& dy,
                                    std::vector<double>& gradient) {
  std::vector<double> dx(layer.in.size(), 0.0);
  if (has_weights(layer)) {
    for (std::size_t o = 0; o < dy.size(); ++o)
      gradient[layer.bias + o % layer.spec.units] += dy[o];
    for_each_product(layer, [&](auto i, auto p, auto o) {
      gradient[p] += x[i] * dy[o];
      dx[i] += w[p] * dy[o];
    });
  } else if (layer.spec.kind == LayerKind::kMaxPool2d) {
    for_each_maximum(layer, x, [&](auto i, auto o) { dx[i] += dy[o]; });
  } else {
    const bool relu = layer.spec.kind == LayerKind::kRelu;
    for (std::size_t i = 0; i < dx.size(); ++i) dx[i] = relu && x[i] <= 0 ? 0 : dy[i];
  }
  return dx;
}

struct LossAndGradient {
  double loss = 0;  ///< mean over the batch
  std::size_t correct = 0;
  std::vector<double> gradient;  ///< of the mean loss
};

/// inputs [labels.size() x input size].
inline LossAndGradient loss_and_gradient(const ModelSpec& spec, const std::vector<double>& w,
                                         std::span<const float> inputs,
                                         std::span<const std::int32_t> labels) {
  const std::vector<Layer> layers = plan(spec);
  const std::size_t size = layers.front().in.size();
  const auto count = static_cast<double>(labels.size());
  LossAndGradient result;
  result.gradient.assign(w.size(), 0.0);
  for (std::size_t b = 0; b < labels.size(); ++b) {
    std::vector<std::vector<double>> values(1);
    for (std::size_t i = 0; i < size; ++i)
      values[0].push_back(static_cast<double>(inputs[b * size + i]));
    for (const Layer& layer : layers) values.push_back(forward(layer, w, values.back()));
    const std::vector<double>& logits = values.back();
    const auto label = static_cast<std::size_t>(labels[b]);
    std::size_t best = 0;
    double sum = 0;
    for (std::size_t c = 0; c < logits.size(); ++c) {
      if (logits[c] > logits[best]) best = c;
    }
    for (const double z : logits) sum += std::exp(z - logits[best]);
    result.correct += best == label ? 1 : 0;
    result.loss += (std::log(sum) + logits[best] - logits[label]) / count;
    std::vector<double> d(logits.size());
    for (std::size_t c = 0; c < d.size(); ++c) {
      d[c] = (std::exp(logits[c] - logits[best]) / sum - (c == label ? 1 : 0)) / count;
    }
    for (std::size_t l = layers.size(); l-- > 0;) {
      d = backward(layers[l], w, values[l], d, result.gradient);
    }
  }
  return result;
}

/// A batch and parameters, uniform in [-1, 1] and scaled so that activations stay of order one.
struct Problem {
  std::vector<float> inputs;
  std::vector<std::int32_t> labels;
  std::vector<float> parameters;

  std::vector<double> exact() const { return {parameters.begin(), parameters.end()}; }
};

inline Problem random_problem(const ModelSpec& spec, std::size_t batch, std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTraining);
  const std::vector<Layer> layers = plan(spec);
  Problem problem;
  for (std::size_t i = 0; i < batch * layers.front().in.size(); ++i) {
    problem.inputs.push_back(static_cast<float>(random.uniform(-1, 1)));
  }
  for (std::size_t b = 0; b < batch; ++b) {
    problem.labels.push_back(static_cast<std::int32_t>(random.below(layers.back().out.size())));
  }
  for (const Layer& layer : layers) {
    if (!has_weights(layer)) continue;
    const std::size_t weights = layer.bias - layer.weight;
    const double bound = 1.5 / std::sqrt(static_cast<double>(weights / layer.spec.units));
    for (std::size_t i = 0; i < weights + layer.spec.units; ++i) {
      problem.parameters.push_back(static_cast<float>(random.uniform(-bound, bound)));
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
