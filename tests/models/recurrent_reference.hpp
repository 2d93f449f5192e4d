#pragma once

#include <cmath>
#include <covey/model_spec.hpp>
#include <covey/random.hpp>
#include <cstdint>
#include <span>
#include <vector>

/// Networks over sequences once more, in double precision and step by step as the definitions read:
/// embedding, lstm, gru, and dense at every step, with softmax cross-entropy of each prediction.
/// One example at a time.
namespace covey::models::sequence_reference {

using Values = std::vector<double>;

struct Layer {
  LayerSpec spec;
  std::size_t steps = 1;    ///< of the input
  std::size_t inputs = 0;   ///< of one step
  std::size_t outputs = 0;  ///< of one step
  std::size_t offset = 0;   ///< of the first tensor
  std::size_t parameters = 0;

  std::size_t units() const { return spec.units; }
  std::size_t gates() const { return (spec.kind == LayerKind::kGru ? 3 : 4) * units(); }
  std::size_t steps_out() const { return spec.last_only ? 1 : steps; }
  // Tensors of lstm and gru: weight, recurrent, then bias and peephole, or the two biases.
  std::size_t recurrent() const { return offset + inputs * gates(); }
  std::size_t bias() const { return recurrent() + units() * gates(); }
  std::size_t second() const { return bias() + gates(); }
};

inline std::vector<Layer> plan(const ModelSpec& spec) {
  std::vector<Layer> layers;
  std::size_t steps = spec.input_shape[0], inputs = 1, offset = 0;
  if (spec.input_shape.size() == 2) inputs = spec.input_shape[1];
  for (const LayerSpec& kind : spec.layers) {
    Layer layer{kind, steps, inputs, kind.units, offset, 0};
    switch (kind.kind) {
      case LayerKind::kEmbedding:
        layer.parameters = std::size_t{kind.vocabulary} * kind.units;
        break;
      case LayerKind::kLstm:
        layer.parameters = layer.second() - offset + (kind.peephole ? 3 * layer.units() : 0);
        break;
      case LayerKind::kGru:
        layer.parameters = layer.second() - offset + layer.gates();
        break;
      default:  // dense
        layer.parameters = (inputs + 1) * kind.units;
    }
    offset += layer.parameters;
    steps = layer.steps_out();
    inputs = layer.outputs;
    layers.push_back(layer);
  }
  return layers;
}

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Everything a recurrent layer computes, [steps x units] each.
struct Trace {
  Values i, f, g, o, c, h;  ///< lstm; gru: i = r, f = z, g = n, o = q
};

/// Element `column` of x_t W + h_{t-1} U, the two parts apart.
struct Parts {
  double input = 0, state = 0;
};
inline Parts parts_at(const Layer& layer, const Values& w, const Values& x, const Values& h,
                      std::size_t t, std::size_t column) {
  Parts parts;
  for (std::size_t k = 0; k < layer.inputs; ++k) {
    parts.input += x[t * layer.inputs + k] * w[layer.offset + k * layer.gates() + column];
  }
  for (std::size_t k = 0; t > 0 && k < layer.units(); ++k) {
    parts.state +=
        h[(t - 1) * layer.units() + k] * w[layer.recurrent() + k * layer.gates() + column];
  }
  return parts;
}

inline Trace trace_lstm(const Layer& layer, const Values& w, const Values& x) {
  const std::size_t units = layer.units();
  const Values zeros(layer.steps * units, 0.0);
  Trace trace{zeros, zeros, zeros, zeros, zeros, zeros};
  for (std::size_t t = 0; t < layer.steps; ++t) {
    for (std::size_t u = 0; u < units; ++u) {
      const auto gate = [&](std::size_t index) {
        const std::size_t column = index * units + u;
        const Parts parts = parts_at(layer, w, x, trace.h, t, column);
        return parts.input + parts.state + w[layer.bias() + column];
      };
      const auto peephole = [&](std::size_t index, double c) {
        return layer.spec.peephole ? w[layer.second() + index * units + u] * c : 0.0;
      };
      const std::size_t at = t * units + u;
      const double before = t == 0 ? 0 : trace.c[at - units];
      trace.i[at] = sigmoid(gate(0) + peephole(0, before));
      trace.f[at] = sigmoid(gate(1) + peephole(1, before));
      trace.g[at] = std::tanh(gate(2));
      trace.c[at] = trace.f[at] * before + trace.i[at] * trace.g[at];
      trace.o[at] = sigmoid(gate(3) + peephole(2, trace.c[at]));
      trace.h[at] = trace.o[at] * std::tanh(trace.c[at]);
    }
  }
  return trace;
}

inline Trace trace_gru(const Layer& layer, const Values& w, const Values& x) {
  const std::size_t units = layer.units();
  const Values zeros(layer.steps * units, 0.0);
  Trace trace{zeros, zeros, zeros, zeros, zeros, zeros};
  for (std::size_t t = 0; t < layer.steps; ++t) {
    for (std::size_t u = 0; u < units; ++u) {
      const auto gate = [&](std::size_t index) {
        const std::size_t column = index * units + u;
        Parts parts = parts_at(layer, w, x, trace.h, t, column);
        parts.input += w[layer.bias() + column];
        parts.state += w[layer.second() + column];
        return parts;
      };
      const std::size_t at = t * units + u;
      const double before = t == 0 ? 0 : trace.h[at - units];
      const double r = sigmoid(gate(0).input + gate(0).state);
      const double z = sigmoid(gate(1).input + gate(1).state);
      const double n = std::tanh(gate(2).input + r * gate(2).state);
      trace.i[at] = r;
      trace.f[at] = z;
      trace.g[at] = n;
      trace.o[at] = gate(2).state;
      trace.h[at] = (1 - z) * n + z * before;
    }
  }
  return trace;
}

inline Values forward(const Layer& layer, const Values& w, const Values& x) {
  const std::size_t units = layer.units();
  if (layer.spec.kind == LayerKind::kLstm || layer.spec.kind == LayerKind::kGru) {
    Values h = (layer.spec.kind == LayerKind::kLstm ? trace_lstm : trace_gru)(layer, w, x).h;
    if (layer.spec.last_only) h.erase(h.begin(), h.end() - static_cast<std::ptrdiff_t>(units));
    return h;
  }
  Values y(layer.steps * units);
  for (std::size_t t = 0; t < layer.steps; ++t) {
    for (std::size_t u = 0; u < units; ++u) {
      double& out = y[t * units + u];
      if (layer.spec.kind == LayerKind::kEmbedding) {
        out = w[layer.offset + static_cast<std::size_t>(x[t]) * units + u];
        continue;
      }
      out = w[layer.offset + layer.inputs * units + u];
      for (std::size_t k = 0; k < layer.inputs; ++k) {
        out += x[t * layer.inputs + k] * w[layer.offset + k * units + u];
      }
    }
  }
  return y;
}

/// What d(gate column) of step t gives: to W, U, x_t and h_{t-1}. `input`: of x W; `state`: of h U.
struct Backward {
  const Layer& layer;
  const Values& w;
  const Values& x;
  const Values& h;
  Values& gradient;
  Values dx, dh;

  void gate(std::size_t t, std::size_t column, double input, double state) {
    for (std::size_t k = 0; k < layer.inputs; ++k) {
      const std::size_t weight = layer.offset + k * layer.gates() + column;
      gradient[weight] += x[t * layer.inputs + k] * input;
      dx[t * layer.inputs + k] += w[weight] * input;
    }
    for (std::size_t k = 0; t > 0 && k < layer.units(); ++k) {
      const std::size_t weight = layer.recurrent() + k * layer.gates() + column;
      gradient[weight] += h[(t - 1) * layer.units() + k] * state;
      dh[(t - 1) * layer.units() + k] += w[weight] * state;
    }
    gradient[layer.bias() + column] += input;
    if (layer.spec.kind == LayerKind::kGru) gradient[layer.second() + column] += state;
  }
};

inline void backward_lstm(const Layer& layer, const Trace& trace, Backward& back) {
  const std::size_t units = layer.units();
  Values dc(units, 0.0);
  for (std::size_t t = layer.steps; t-- > 0;) {
    for (std::size_t u = 0; u < units; ++u) {
      const std::size_t at = t * units + u;
      const double before = t == 0 ? 0 : trace.c[at - units];
      const double squashed = std::tanh(trace.c[at]);
      const double i = trace.i[at], f = trace.f[at], g = trace.g[at], o = trace.o[at];
      const double d_o = back.dh[at] * squashed * o * (1 - o);
      const auto p = [&](std::size_t index) { return layer.second() + index * units + u; };
      double d = dc[u] + back.dh[at] * o * (1 - squashed * squashed);
      if (layer.spec.peephole) d += d_o * back.w[p(2)];
      const double d_i = d * g * i * (1 - i);
      const double d_f = d * before * f * (1 - f);
      const double d_g = d * i * (1 - g * g);
      dc[u] = d * f;
      if (layer.spec.peephole) {
        dc[u] += d_i * back.w[p(0)] + d_f * back.w[p(1)];
        back.gradient[p(0)] += d_i * before;
        back.gradient[p(1)] += d_f * before;
        back.gradient[p(2)] += d_o * trace.c[at];
      }
      back.gate(t, u, d_i, d_i);
      back.gate(t, units + u, d_f, d_f);
      back.gate(t, 2 * units + u, d_g, d_g);
      back.gate(t, 3 * units + u, d_o, d_o);
    }
  }
}

inline void backward_gru(const Layer& layer, const Trace& trace, Backward& back) {
  const std::size_t units = layer.units();
  for (std::size_t t = layer.steps; t-- > 0;) {
    for (std::size_t u = 0; u < units; ++u) {
      const std::size_t at = t * units + u;
      const double before = t == 0 ? 0 : trace.h[at - units];
      const double r = trace.i[at], z = trace.f[at], n = trace.g[at], q = trace.o[at];
      const double dh = back.dh[at];
      const double d_n = dh * (1 - z) * (1 - n * n);
      const double d_z = dh * (before - n) * z * (1 - z);
      const double d_r = d_n * q * r * (1 - r);
      if (t > 0) back.dh[at - units] += dh * z;
      back.gate(t, u, d_r, d_r);
      back.gate(t, units + u, d_z, d_z);
      back.gate(t, 2 * units + u, d_n, d_n * r);
    }
  }
}

/// Adds the parameters' gradient to `gradient`; returns the input's.
inline Values backward(const Layer& layer, const Values& w, const Values& x, const Values& dy,
                       Values& gradient) {
  const std::size_t units = layer.units();
  if (layer.spec.kind == LayerKind::kLstm || layer.spec.kind == LayerKind::kGru) {
    const bool lstm = layer.spec.kind == LayerKind::kLstm;
    const Trace trace = (lstm ? trace_lstm : trace_gru)(layer, w, x);
    Values dh(layer.steps * units - dy.size(), 0.0);  // zero but for the last step, where it is one
    dh.insert(dh.end(), dy.begin(), dy.end());
    Backward back{layer, w, x, trace.h, gradient, Values(x.size(), 0.0), dh};
    (lstm ? backward_lstm : backward_gru)(layer, trace, back);
    return back.dx;
  }
  Values dx(x.size(), 0.0);
  for (std::size_t t = 0; t < layer.steps; ++t) {
    for (std::size_t u = 0; u < units; ++u) {
      const double d = dy[t * units + u];
      if (layer.spec.kind == LayerKind::kEmbedding) {
        gradient[layer.offset + static_cast<std::size_t>(x[t]) * units + u] += d;
        continue;
      }
      gradient[layer.offset + layer.inputs * units + u] += d;
      for (std::size_t k = 0; k < layer.inputs; ++k) {
        gradient[layer.offset + k * units + u] += x[t * layer.inputs + k] * d;
        dx[t * layer.inputs + k] += w[layer.offset + k * units + u] * d;
      }
    }
  }
  return dx;
}

struct LossAndGradient {
  double loss = 0;  ///< mean over the targets
  std::size_t correct = 0;
  std::size_t targets = 0;  ///< labels that are not negative
  Values gradient;          ///< of the mean loss
};

/// Softmax cross-entropy of logits [predictions x classes]; replaces them with its gradient.
inline void softmax(Values& logits, std::span<const std::int32_t> labels, LossAndGradient& result) {
  const std::size_t classes = logits.size() / labels.size();
  const auto targets = static_cast<double>(result.targets);
  for (std::size_t p = 0; p < labels.size(); ++p) {
    const std::span<double> z(logits.data() + p * classes, classes);
    if (labels[p] < 0) {
      for (double& d : z) d = 0;
      continue;
    }
    const auto label = static_cast<std::size_t>(labels[p]);
    std::size_t best = 0;
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) {
      if (z[c] > z[best]) best = c;
    }
    const double top = z[best];
    for (const double score : z) sum += std::exp(score - top);
    result.correct += best == label ? 1 : 0;
    result.loss += (std::log(sum) + top - z[label]) / targets;
    for (std::size_t c = 0; c < classes; ++c) {
      z[c] = (std::exp(z[c] - top) / sum - (c == label ? 1 : 0)) / targets;
    }
  }
}

inline LossAndGradient loss_and_gradient(const ModelSpec& spec, const Values& w,
                                         std::span<const float> inputs,
                                         std::span<const std::int32_t> labels) {
  const std::vector<Layer> layers = plan(spec);
  const std::size_t size = layers.front().steps * layers.front().inputs;
  const std::size_t predictions = layers.back().steps_out();
  LossAndGradient result;
  for (const std::int32_t label : labels) result.targets += label >= 0 ? 1 : 0;
  result.gradient.assign(w.size(), 0.0);
  for (std::size_t b = 0; b < inputs.size() / size; ++b) {
    const auto example = inputs.subspan(b * size, size);
    std::vector<Values> values{Values(example.begin(), example.end())};
    for (const Layer& layer : layers) values.push_back(forward(layer, w, values.back()));
    Values d = values.back();
    softmax(d, labels.subspan(b * predictions, predictions), result);
    for (std::size_t l = layers.size(); l-- > 0;) {
      d = backward(layers[l], w, values[l], d, result.gradient);
    }
  }
  return result;
}

/// A batch and parameters; tokens where the first layer is an embedding. About a fifth of the
/// labels of sequences are missing, the first one never.
struct Problem {
  std::vector<float> inputs;
  std::vector<std::int32_t> labels;
  std::vector<float> parameters;

  Values exact() const { return {parameters.begin(), parameters.end()}; }
};

inline Problem random_problem(const ModelSpec& spec, std::size_t batch, std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTraining);
  const std::vector<Layer> layers = plan(spec);
  const Layer& first = layers.front();
  Problem problem;
  for (std::size_t i = 0; i < batch * first.steps * first.inputs; ++i) {
    const bool token = first.spec.kind == LayerKind::kEmbedding;
    problem.inputs.push_back(token ? static_cast<float>(random.below(first.spec.vocabulary))
                                   : static_cast<float>(random.uniform(-1, 1)));
  }
  for (std::size_t p = 0; p < batch * layers.back().steps_out(); ++p) {
    const auto label = static_cast<std::int32_t>(random.below(layers.back().outputs));
    const bool missing = p > 0 && layers.back().steps_out() > 1 && random.uniform() < 0.2;
    problem.labels.push_back(missing ? -1 : label);
  }
  for (const Layer& layer : layers) {
    const bool table = layer.spec.kind == LayerKind::kEmbedding;
    const double bound = table ? 1 : 1.5 / std::sqrt(static_cast<double>(layer.inputs));
    for (std::size_t i = 0; i < layer.parameters; ++i) {
      problem.parameters.push_back(static_cast<float>(random.uniform(-bound, bound)));
    }
  }
  return problem;
}

}  // namespace covey::models::sequence_reference
