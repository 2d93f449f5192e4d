#pragma once

#include <cmath>
#include <vector>

#include "network_reference_layers.hpp"

/// Normalisations in double precision. Each value belongs to one group, which has one mean and one
/// variance.
namespace covey::models::reference {

using Batch = std::vector<std::vector<double>>;  ///< by example

/// PyTorch's default.
inline constexpr double kEpsilon = 1e-5;

/// Which group value i of example b belongs to.
inline std::size_t group_of(const Layer& layer, std::size_t b, std::size_t i) {
  const std::size_t channel = i % layer.in.channels;
  if (layer.is(LayerKind::kBatchNorm)) return channel;
  if (layer.is(LayerKind::kLayerNorm)) return b * layer.in.positions() + i / layer.in.channels;
  const std::size_t groups = layer.spec.groups;
  return b * groups + channel / (layer.in.channels / groups);
}

struct Moments {
  double mean = 0, variance = 0, count = 0;
  bool constant = false;  ///< running statistics: no gradient goes through them
};

/// By group. Batch norm takes running statistics outside of training, and where a channel has one
/// value.
inline std::vector<Moments> moments_of(const Layer& layer, const std::vector<double>& w,
                                       const Batch& x, bool training) {
  const std::size_t last = group_of(layer, x.size() - 1, layer.in.size() - 1);
  std::vector<Moments> moments(last + 1);
  for (std::size_t b = 0; b < x.size(); ++b) {
    for (std::size_t i = 0; i < x[b].size(); ++i) {
      Moments& m = moments[group_of(layer, b, i)];
      m.mean += x[b][i];
      m.count += 1;
    }
  }
  for (Moments& m : moments) m.mean /= m.count;
  for (std::size_t b = 0; b < x.size(); ++b) {
    for (std::size_t i = 0; i < x[b].size(); ++i) {
      Moments& m = moments[group_of(layer, b, i)];
      m.variance += (x[b][i] - m.mean) * (x[b][i] - m.mean) / m.count;
    }
  }
  if (layer.is(LayerKind::kBatchNorm) && (!training || moments[0].count == 1)) {
    for (std::size_t c = 0; c < moments.size(); ++c) {
      moments[c] = {w[layer.mean + c], w[layer.variance + c], moments[c].count, true};
    }
  }
  return moments;
}

inline Batch normalise(const Layer& layer, const std::vector<double>& w, const Batch& x,
                       bool training) {
  const auto moments = moments_of(layer, w, x, training);
  Batch y = x;
  for (std::size_t b = 0; b < x.size(); ++b) {
    for (std::size_t i = 0; i < x[b].size(); ++i) {
      const Moments& m = moments[group_of(layer, b, i)];
      const std::size_t channel = i % layer.in.channels;
      y[b][i] = w[layer.weight + channel] * (x[b][i] - m.mean) / std::sqrt(m.variance + kEpsilon) +
                w[layer.bias + channel];
    }
  }
  return y;
}

/// Through the definition's three paths: the value, its group's mean, its group's variance.
inline Batch normalise_backward(const Layer& layer, const std::vector<double>& w, const Batch& x,
                                const Batch& dy, std::vector<double>& gradient) {
  const auto moments = moments_of(layer, w, x, true);
  std::vector<double> dmean(moments.size(), 0.0), dvariance(moments.size(), 0.0);
  Batch dx = x;
  for (std::size_t b = 0; b < x.size(); ++b) {
    for (std::size_t i = 0; i < x[b].size(); ++i) {
      const std::size_t g = group_of(layer, b, i);
      const Moments& m = moments[g];
      const double away = x[b][i] - m.mean, deviation = std::sqrt(m.variance + kEpsilon);
      const std::size_t channel = i % layer.in.channels;
      gradient[layer.weight + channel] += dy[b][i] * away / deviation;
      gradient[layer.bias + channel] += dy[b][i];
      const double scaled = dy[b][i] * w[layer.weight + channel];
      dx[b][i] = scaled / deviation;
      if (m.constant) continue;
      dmean[g] -= scaled / deviation;
      dvariance[g] -= 0.5 * scaled * away / (deviation * deviation * deviation);
    }
  }
  for (std::size_t b = 0; b < x.size(); ++b) {
    for (std::size_t i = 0; i < x[b].size(); ++i) {
      const std::size_t g = group_of(layer, b, i);
      const Moments& m = moments[g];
      dx[b][i] += dmean[g] / m.count + dvariance[g] * 2 * (x[b][i] - m.mean) / m.count;
    }
  }
  return dx;
}

}  // namespace covey::models::reference
