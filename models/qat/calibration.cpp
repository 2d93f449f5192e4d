#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/models/calibration.hpp>
#include <cstdint>
#include <numeric>

namespace covey::models {

namespace {

/// Examples that go through the network together.
constexpr std::size_t kBatch = 50;
/// A histogram's resolution: finer than the 127 steps that the range is divided into.
constexpr std::size_t kBins = 4096;
constexpr std::size_t kNoRange = SIZE_MAX;

bool has_range(const LayerSpec& layer) {
  return layer.kind == LayerKind::kDense || layer.kind == LayerKind::kConv2d;
}

/// Which range a layer's outputs have; the input's is 0.
std::vector<std::size_t> ranges_by_layer(const ModelSpec& spec) {
  std::vector<std::size_t> result;
  std::size_t next = 1;
  for (const LayerSpec& layer : spec.layers) {
    result.push_back(has_range(layer) ? next++ : kNoRange);
  }
  return result;
}

float largest(std::span<const float> values, float least) {
  for (const float value : values) {
    const float magnitude = std::abs(value);
    if (!(magnitude <= least)) least = magnitude;  // a NaN stays
  }
  return least;
}

/// f(range, values) for the input and every output of one batch that has a range.
template <typename F>
void for_each_range(const Network& network, Workspace& workspace, std::span<const float> parameters,
                    std::span<const float> inputs, F f) {
  const std::vector<std::size_t> ranges = ranges_by_layer(network.spec());
  f(std::size_t{0}, inputs);
  network.observe(workspace, inputs, parameters,
                  [&](std::size_t layer, std::span<const float> outputs) {
                    if (ranges[layer] != kNoRange) f(ranges[layer], outputs);
                  });
}

/// The examples drawn for calibration, batch by batch.
class Sample {
 public:
  Sample(const DataSet& data, const CalibrationOptions& options) : data_(data) {
    indices_.resize(data.size());
    std::iota(indices_.begin(), indices_.end(), 0u);
    RandomStream random(options.seed, RandomPurpose::kCalibration);
    random.shuffle(std::span(indices_));
    indices_.resize(std::min(indices_.size(), options.examples));
    features_.resize(kBatch * data.example_size());
    labels_.resize(kBatch * data.labels_per_example());
  }

  template <typename F>
  void for_each_batch(F f) {
    for (std::size_t first = 0; first < indices_.size(); first += kBatch) {
      const auto some = std::span<const std::uint32_t>(indices_).subspan(
          first, std::min(kBatch, indices_.size() - first));
      const std::span features(features_.data(), some.size() * data_.example_size());
      data_.gather(some, features,
                   std::span(labels_).first(some.size() * data_.labels_per_example()));
      f(std::span<const float>(features));
    }
  }

 private:
  const DataSet& data_;
  std::vector<std::uint32_t> indices_;
  std::vector<float> features_;
  std::vector<std::int32_t> labels_;
};

/// How many of a tensor's magnitudes lie where in (0, range]. Zeros do not count: relu and sparse
/// inputs have so many that no share of all values would say where the others end.
struct Histogram {
  std::vector<std::uint64_t> bins = std::vector<std::uint64_t>(kBins);
  std::uint64_t total = 0;

  void add(std::span<const float> values, float range) {
    const float per_value = range > 0 ? static_cast<float>(kBins) / range : 0.0f;
    for (const float value : values) {
      if (value == 0) continue;
      ++total;
      const auto bin = static_cast<std::size_t>(std::abs(value) * per_value);
      ++bins[std::min(bin, kBins - 1)];
    }
  }

  /// The smallest bound that this share of the values does not exceed.
  float bound(double coverage, float range) const {
    const double wanted = coverage * static_cast<double>(total);
    std::uint64_t within = 0;
    for (std::size_t bin = 0; bin < kBins; ++bin) {
      within += bins[bin];
      if (static_cast<double>(within) >= wanted) {
        return range * static_cast<float>(bin + 1) / static_cast<float>(kBins);
      }
    }
    return range;
  }
};

Result<void> check(const Network& network, const DataSet& data, const CalibrationOptions& options) {
  if (data.empty() || options.examples == 0) {
    return invalid_argument("calibration needs examples to see how large activations become");
  }
  if (!(options.coverage > 0 && options.coverage <= 1)) {
    return invalid_argument(fmt::format(
        "calibration cannot cover {} of the values; above 0, up to 1 works", options.coverage));
  }
  if (data.example_size() != network.inputs() || data.vocabulary() != network.vocabulary()) {
    return invalid_argument(
        fmt::format("the examples to calibrate with have {} {}, the network takes {} {}",
                    data.example_size(), data.vocabulary() > 0 ? "tokens" : "numbers",
                    network.inputs(), network.vocabulary() > 0 ? "tokens" : "numbers"));
  }
  return {};
}

Result<void> check_finite(const ModelSpec& spec, std::span<const float> ranges) {
  if (!std::isfinite(ranges[0])) return failed("an example to calibrate with is not finite");
  const std::vector<std::size_t> by_layer = ranges_by_layer(spec);
  for (std::size_t layer = 0; layer < by_layer.size(); ++layer) {
    if (by_layer[layer] != kNoRange && !std::isfinite(ranges[by_layer[layer]])) {
      return failed(
          fmt::format("layer {} ({}) gives values that are not finite; has the model diverged?",
                      layer + 1, to_string(spec.layers[layer].kind)));
    }
  }
  return {};
}

}  // namespace

std::size_t count_ranges(const ModelSpec& spec) {
  return 1 + static_cast<std::size_t>(std::ranges::count_if(spec.layers, has_range));
}

void widen_ranges(const Network& network, Workspace& workspace, std::span<const float> parameters,
                  std::span<const float> inputs, std::span<float> ranges) {
  for_each_range(network, workspace, parameters, inputs,
                 [&](std::size_t range, std::span<const float> values) {
                   ranges[range] = largest(values, ranges[range]);
                 });
}

Result<std::vector<float>> calibrate(const Network& network, std::span<const float> parameters,
                                     const DataSet& data, const CalibrationOptions& options) {
  COVEY_TRY(check(network, data, options));
  Sample sample(data, options);
  Workspace workspace(network, {.max_batch = kBatch, .training = false});
  std::vector<float> ranges(count_ranges(network.spec()));
  sample.for_each_batch([&](std::span<const float> inputs) {
    widen_ranges(network, workspace, parameters, inputs, ranges);
  });
  COVEY_TRY(check_finite(network.spec(), ranges));
  if (options.coverage == 1) return ranges;
  std::vector<Histogram> histograms(ranges.size());
  sample.for_each_batch([&](std::span<const float> inputs) {
    for_each_range(network, workspace, parameters, inputs,
                   [&](std::size_t range, std::span<const float> values) {
                     histograms[range].add(values, ranges[range]);
                   });
  });
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    ranges[i] = histograms[i].bound(options.coverage, ranges[i]);
  }
  return ranges;
}

}  // namespace covey::models
