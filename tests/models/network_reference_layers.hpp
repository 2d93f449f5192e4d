#pragma once

#include <cmath>
#include <covey/model_spec.hpp>
#include <cstdint>
#include <optional>
#include <vector>

/// Layers without statistics in double precision, as plainly as the definitions read.
namespace covey::models::reference {

/// [height x width x channels]; a sequence is one row of steps, a vector one position.
struct Shape {
  std::size_t height = 1, width = 1, channels = 1;
  std::size_t positions() const { return height * width; }
  std::size_t size() const { return positions() * channels; }
};

struct Layer {
  LayerSpec spec;
  Shape in, out;
  std::size_t weight = 0, bias = 0;    ///< offsets in the parameter vector
  std::size_t mean = 0, variance = 0;  ///< running statistics
  std::size_t fan_in = 1;

  bool is(LayerKind kind) const { return spec.kind == kind; }
  bool has_products() const {
    return is(LayerKind::kDense) || is(LayerKind::kConv2d) || is(LayerKind::kDepthwiseConv2d);
  }
  bool normalises() const {
    return is(LayerKind::kBatchNorm) || is(LayerKind::kGroupNorm) || is(LayerKind::kLayerNorm);
  }
  bool pools() const { return is(LayerKind::kMaxPool2d) || is(LayerKind::kAveragePool2d); }
  std::size_t kernel() const { return spec.kernel; }
  std::size_t stride() const {
    if (spec.stride != 0) return spec.stride;
    return pools() ? spec.kernel : 1;
  }
};

/// Outputs along a side of `extent`.
inline std::size_t outputs_along(const Layer& layer, std::size_t extent) {
  const bool same = !layer.pools() && layer.spec.padding == Padding::kSame;
  if (same) return (extent + layer.stride() - 1) / layer.stride();
  return (extent - layer.kernel()) / layer.stride() + 1;
}

/// Zeros before a side: half of what the last window lacks, rounded down; pooling has none.
inline std::size_t zeros_before(const Layer& layer, std::size_t extent) {
  if (layer.pools() || layer.spec.padding == Padding::kValid) return 0;
  const std::size_t reach = (outputs_along(layer, extent) - 1) * layer.stride() + layer.kernel();
  return reach > extent ? (reach - extent) / 2 : 0;
}

/// Shapes and parameter offsets, layer by layer; parameters lie as weight, bias, weight, bias, ...
inline std::vector<Layer> plan(const ModelSpec& spec) {
  const auto& s = spec.input_shape;
  Shape shape = s.size() == 3   ? Shape{s[0], s[1], s[2]}
                : s.size() == 2 ? Shape{1, s[0], s[1]}
                                : Shape{1, 1, s[0]};
  std::size_t offset = 0;
  std::vector<Layer> layers;
  for (const LayerSpec& layer : spec.layers) {
    Layer next{.spec = layer, .in = shape, .out = shape};
    const std::size_t k = layer.kernel;
    std::size_t weights = next.normalises() ? shape.channels : 0;
    if (next.is(LayerKind::kDense)) {
      next.out.channels = layer.units;
      next.fan_in = shape.channels;
      weights = shape.channels * layer.units;
    } else if (next.is(LayerKind::kFlatten)) {
      next.out = {1, 1, shape.size()};
    } else if (next.is(LayerKind::kGlobalAveragePool)) {
      next.out = {1, 1, shape.channels};
    } else if (next.has_products() || next.pools()) {
      next.out.height = outputs_along(next, shape.height);
      next.out.width = outputs_along(next, shape.width);
      if (next.is(LayerKind::kConv2d)) next.out.channels = layer.units;
      const std::size_t channels = next.is(LayerKind::kConv2d) ? shape.channels : 1;
      next.fan_in = k * k * channels;
      weights = next.pools() ? 0 : k * k * channels * next.out.channels;
    }
    next.weight = offset;
    next.bias = offset + weights;
    if (weights > 0) offset = next.bias + next.out.channels;
    if (next.is(LayerKind::kBatchNorm)) {
      next.mean = offset;
      next.variance = offset + shape.channels;
      offset += 2 * shape.channels;
    }
    shape = next.out;
    layers.push_back(next);
  }
  return layers;
}

/// Calls f(input position, output position, kernel position) for every element of every window.
template <typename F>
void for_each_tap(const Layer& layer, F f) {
  const Shape& in = layer.in;
  const std::size_t k = layer.kernel(), stride = layer.stride();
  const std::size_t above = zeros_before(layer, in.height), left = zeros_before(layer, in.width);
  for (std::size_t y = 0; y < layer.out.height; ++y) {
    for (std::size_t x = 0; x < layer.out.width; ++x) {
      for (std::size_t tap = 0; tap < k * k; ++tap) {
        const std::size_t row = y * stride + tap / k, column = x * stride + tap % k;
        if (row < above || row - above >= in.height) continue;
        if (column < left || column - left >= in.width) continue;
        f((row - above) * in.width + column - left, y * layer.out.width + x, tap);
      }
    }
  }
}

/// Calls f(input index, weight index, output index) for every multiplication of a layer.
template <typename F>
void for_each_product(const Layer& layer, F f) {
  const std::size_t channels = layer.in.channels, units = layer.out.channels;
  if (layer.is(LayerKind::kDense)) {
    for (std::size_t p = 0; p < layer.in.positions(); ++p) {
      for (std::size_t i = 0; i < channels; ++i) {
        for (std::size_t o = 0; o < units; ++o) {
          f(p * channels + i, layer.weight + i * units + o, p * units + o);
        }
      }
    }
    return;
  }
  for_each_tap(layer, [&](std::size_t from, std::size_t to, std::size_t tap) {
    for (std::size_t c = 0; c < channels; ++c) {
      if (layer.is(LayerKind::kDepthwiseConv2d)) {
        f(from * channels + c, layer.weight + tap * channels + c, to * channels + c);
        continue;
      }
      for (std::size_t o = 0; o < units; ++o) {
        f(from * channels + c, layer.weight + (tap * channels + c) * units + o, to * units + o);
      }
    }
  });
}

/// The first largest element of each pooling window: calls f(its input index, output index).
template <typename F>
void for_each_maximum(const Layer& layer, const std::vector<double>& x, F f) {
  std::vector<std::optional<std::size_t>> best(layer.out.size());
  const std::size_t channels = layer.in.channels;
  for_each_tap(layer, [&](std::size_t from, std::size_t to, std::size_t) {
    for (std::size_t c = 0; c < channels; ++c) {
      auto& most = best[to * channels + c];
      if (!most || x[from * channels + c] > x[*most]) most = from * channels + c;
    }
  });
  for (std::size_t o = 0; o < best.size(); ++o) f(*best[o], o);
}

/// Calls f(input index, output index, share) for every term of a mean.
template <typename F>
void for_each_mean_term(const Layer& layer, F f) {
  const std::size_t channels = layer.in.channels;
  if (layer.is(LayerKind::kGlobalAveragePool)) {
    for (std::size_t i = 0; i < layer.in.size(); ++i) {
      f(i, i % channels, 1.0 / static_cast<double>(layer.in.positions()));
    }
    return;
  }
  for_each_tap(layer, [&](std::size_t from, std::size_t to, std::size_t) {
    for (std::size_t c = 0; c < channels; ++c) {
      f(from * channels + c, to * channels + c,
        1.0 / static_cast<double>(layer.kernel() * layer.kernel()));
    }
  });
}

inline double activation(LayerKind kind, double x) {
  if (kind == LayerKind::kRelu) return x < 0 ? 0 : x;
  if (kind == LayerKind::kGelu) return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
  if (kind == LayerKind::kTanh) return std::tanh(x);
  if (kind == LayerKind::kSigmoid) return 1 / (1 + std::exp(-x));
  return x;
}

inline double activation_slope(LayerKind kind, double x) {
  constexpr double kPi = 3.14159265358979323846;
  const double y = activation(kind, x);
  if (kind == LayerKind::kRelu) return x <= 0 ? 0 : 1;
  if (kind == LayerKind::kGelu) {
    return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * kPi);
  }
  if (kind == LayerKind::kTanh) return 1 - y * y;
  if (kind == LayerKind::kSigmoid) return y * (1 - y);
  return 1;
}

inline bool takes_mean(const Layer& layer) {
  return layer.is(LayerKind::kAveragePool2d) || layer.is(LayerKind::kGlobalAveragePool);
}

/// One example.
inline std::vector<double> forward(const Layer& layer, const std::vector<double>& w,
                                   const std::vector<double>& x) {
  std::vector<double> y(layer.out.size(), 0.0);
  if (layer.has_products()) {
    for (std::size_t o = 0; o < y.size(); ++o) y[o] = w[layer.bias + o % layer.out.channels];
    for_each_product(layer, [&](auto i, auto p, auto o) { y[o] += x[i] * w[p]; });
  } else if (layer.is(LayerKind::kMaxPool2d)) {
    for_each_maximum(layer, x, [&](auto i, auto o) { y[o] = x[i]; });
  } else if (takes_mean(layer)) {
    for_each_mean_term(layer, [&](auto i, auto o, double share) { y[o] += share * x[i]; });
  } else {
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = activation(layer.spec.kind, x[i]);
  }
  return y;
}

/// Adds the parameters' gradient to `gradient`; returns the input's.
inline std::vector<double> backward(const Layer& layer, const std::vector<double>& w,
                                    const std::vector<double>& x, const std::vector<double>& dy,
                                    std::vector<double>& gradient) {
  std::vector<double> dx(layer.in.size(), 0.0);
  if (layer.has_products()) {
    for (std::size_t o = 0; o < dy.size(); ++o) {
      gradient[layer.bias + o % layer.out.channels] += dy[o];
    }
    for_each_product(layer, [&](auto i, auto p, auto o) {
      gradient[p] += x[i] * dy[o];
      dx[i] += w[p] * dy[o];
    });
  } else if (layer.is(LayerKind::kMaxPool2d)) {
    for_each_maximum(layer, x, [&](auto i, auto o) { dx[i] += dy[o]; });
  } else if (takes_mean(layer)) {
    for_each_mean_term(layer, [&](auto i, auto o, double share) { dx[i] += share * dy[o]; });
  } else {
    for (std::size_t i = 0; i < dx.size(); ++i) {
      dx[i] = activation_slope(layer.spec.kind, x[i]) * dy[i];
    }
  }
  return dx;
}

}  // namespace covey::models::reference
