#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/models/data_set.hpp>
#include <covey/random.hpp>
#include <numeric>
#include <string>

#include "data/data_builder.hpp"
#include "data/synthetic_kernels.hpp"

namespace covey::models {
namespace {

constexpr auto kFeatures = static_cast<std::uint32_t>(kSyntheticFeatures);
constexpr auto kClasses = static_cast<std::uint32_t>(kSyntheticClasses);
constexpr std::array kShape{kFeatures};
constexpr double kMinExamples = 50;
// 64 Mi examples are 15 GiB of features: more, of all devices or of one, is a slip in size-mean or
// size-spread.
constexpr double kMostExamples = 64.0 * (1 << 20);
// A draw further from its mean than this is seen once in 10^12.
constexpr double kFarthest = 7;
// Products of larger ones may not be finite floats.
constexpr double kLargestDeviation = 1e30;

// Sub-streams of one device, told apart by the stream's round.
constexpr RoundNumber kModelDraws{1};
constexpr RoundNumber kSizeDraws{2};
constexpr RoundNumber kExampleDraws{3};
constexpr RoundNumber kSharedModelDraws{4};

/// Row by row, then the biases: W, b ~ N(mean, 1).
void set_weights(double mean, std::span<const double> normals, SyntheticModel& model) {
  auto next = normals.begin();
  for (auto& row : model.weight) {
    for (std::size_t c = 0; c < kClasses; ++c) row[c] = mean + *next++;
  }
  for (std::size_t c = 0; c < kClasses; ++c) model.bias[c] = mean + *next++;
}

SyntheticModel draw_model(const DataConfig& config, std::uint64_t seed, ClientId device) {
  constexpr std::size_t kWeights = (kFeatures + 1) * kClasses;
  // Standard deviation of feature j, from 0: the covariance's diagonal is (j+1)^-1.2.
  static const auto deviations = [] {
    std::array<double, kFeatures> all{};
    for (std::size_t j = 0; j < all.size(); ++j) {
      all[j] = std::pow(static_cast<double>(j + 1), -0.6);
    }
    return all;
  }();
  SyntheticModel model{};
  model.deviation = deviations;
  std::array<double, 1 + kWeights + 1 + kFeatures> normals;
  if (config.iid) {  // one W, b ~ N(0, 1) for all devices, v = 0
    const auto some = std::span(normals).first<kWeights>();
    draw_normals(RandomStream(seed, RandomPurpose::kDataGeneration, kSharedModelDraws).blocks(),
                 some);
    set_weights(0, some, model);
    return model;
  }
  draw_normals(RandomStream(seed, RandomPurpose::kDataGeneration, kModelDraws, device).blocks(),
               normals);
  const std::span<const double> all(normals);
  set_weights(config.alpha * all[0], all.subspan(1), model);   // u_k ~ N(0, alpha)
  const double center_mean = config.beta * all[1 + kWeights];  // B_k ~ N(0, beta)
  for (std::size_t j = 0; j < kFeatures; ++j) {
    model.center[j] = center_mean + all[2 + kWeights + j];
  }
  return model;
}

/// n_k = floor(LogNormal(mean, spread)) + 50, capped.
double draw_size(const DataConfig& config, std::uint64_t seed, ClientId device) {
  RandomStream random(seed, RandomPurpose::kDataGeneration, kSizeDraws, device);
  const double size =
      std::floor(random.log_normal(config.size_mean, config.size_spread)) + kMinExamples;
  return config.max_examples > 0 ? std::min<double>(size, config.max_examples) : size;
}

Error no_devices() {
  return invalid_argument("partition.clients: the synthetic data set needs a number of devices");
}

/// Of one device, all its examples.
struct Device {
  DataSet train, test;
  std::vector<std::uint32_t> indices;
};

void add_to(FederatedBuilder& builder, std::size_t owner, const DataSet& set, bool test) {
  std::array<float, kFeatures> features;
  std::int32_t label = 0;
  for (std::uint32_t i = 0; i < set.size(); ++i) {
    set.gather(std::span(&i, 1), features, std::span(&label, 1));
    if (test) {
      builder.add_test(owner, features, label);
    } else {
      builder.add_train(owner, features, label);
    }
  }
}

}  // namespace

Result<SyntheticSource> SyntheticSource::make(const DataConfig& config, std::uint32_t devices,
                                              std::uint64_t seed) {
  if (devices == 0) return no_devices();
  if (std::max(config.alpha, config.beta) > kLargestDeviation) {
    return invalid_argument(
        fmt::format("data.alpha = {} and data.beta = {}: the features would "
                    "not be finite; at most {} works",
                    config.alpha, config.beta, kLargestDeviation));
  }
  const double largest = config.size_mean + kFarthest * config.size_spread;
  if (config.max_examples == 0 && largest > std::log(kMostExamples)) {
    return invalid_argument(fmt::format(
        "data.size-mean = {} and data.size-spread = {} may give one device more than {} examples; "
        "lower them or set data.max-examples",
        config.size_mean, config.size_spread, kMostExamples));
  }
  if (config.max_examples > kMostExamples) {
    return invalid_argument(fmt::format("data.max-examples = {}: a device holds at most {}",
                                        config.max_examples, kMostExamples));
  }
  SyntheticSource source;
  source.config_ = config;
  source.devices_ = devices;
  source.seed_ = seed;
  return source;
}

std::uint64_t SyntheticSource::num_examples(ClientId device) const {
  return static_cast<std::uint64_t>(std::min(draw_size(config_, seed_, device), kMostExamples));
}

std::uint64_t SyntheticSource::num_train(ClientId device) const {
  const auto size = static_cast<std::size_t>(num_examples(device));
  return size - held_out_of(size, config_.test_fraction);
}

void SyntheticSource::fill(ClientId device, bool test, DataSet& out,
                           std::vector<std::uint32_t>& indices) const {
  COVEY_ASSERT(value_of(device) < devices_);
  const std::size_t held_out =
      split_in_place(indices, static_cast<std::size_t>(num_examples(device)), config_.test_fraction,
                     RandomStream(seed_, RandomPurpose::kTrainTestSplit, {}, device));
  const auto rows =
      test ? std::span(indices).first(held_out) : std::span(indices).subspan(held_out);
  const DataSet::Rows to = out.refill(kShape, kClasses, rows.size());
  draw_examples(draw_model(config_, seed_, device),
                RandomStream(seed_, RandomPurpose::kDataGeneration, kExampleDraws, device).blocks(),
                rows, to.features, to.labels);
  indices.resize(rows.size());
  std::iota(indices.begin(), indices.end(), 0u);
}

void SyntheticSource::train(ClientId device, DataSet& out,
                            std::vector<std::uint32_t>& indices) const {
  fill(device, false, out, indices);
}

void SyntheticSource::test(ClientId device, DataSet& out,
                           std::vector<std::uint32_t>& indices) const {
  fill(device, true, out, indices);
}

Result<FederatedData> SyntheticSource::test_of_first(std::uint32_t devices,
                                                     std::uint64_t examples) const {
  FederatedBuilder builder(kFeatures);
  Device device;
  std::uint64_t total = 0;
  for (std::uint32_t k = 0; k < std::min(devices, devices_); ++k) {
    total += num_examples(ClientId{k}) - num_train(ClientId{k});
    if (k > 0 && total > examples) break;
    const std::size_t owner = builder.add_owner("device " + std::to_string(k));
    test(ClientId{k}, device.test, device.indices);
    add_to(builder, owner, device.test, true);
  }
  return std::move(builder).finish({kFeatures}, kClasses);
}

Result<FederatedData> make_synthetic(const DataConfig& config, std::uint32_t devices,
                                     std::uint64_t seed) {
  if (devices == 0) return no_devices();
  double total = 0;
  for (std::uint32_t k = 0; k < devices; ++k) {
    total += draw_size(config, seed, ClientId{k});
    if (total > kMostExamples) {
      return invalid_argument(fmt::format(
          "data.size-mean = {} and data.size-spread = {} give more than {} examples on {} devices; "
          "lower them or set data.max-examples",
          config.size_mean, config.size_spread, kMostExamples, devices));
    }
  }
  DataConfig checked = config;  // no device has more than all of them together
  if (checked.max_examples == 0) checked.max_examples = static_cast<std::uint32_t>(kMostExamples);
  COVEY_ASSIGN(const auto source, SyntheticSource::make(checked, devices, seed));
  FederatedBuilder builder(kFeatures);
  const auto in_all = static_cast<std::size_t>(total);
  const auto held_out = static_cast<std::size_t>(total * config.test_fraction) + devices;
  builder.reserve(in_all - std::min(in_all, held_out) + 2 * devices, held_out);

  Device device;
  for (std::uint32_t k = 0; k < devices; ++k) {
    const std::size_t owner = builder.add_owner("device " + std::to_string(k));
    source.train(ClientId{k}, device.train, device.indices);
    add_to(builder, owner, device.train, false);
    source.test(ClientId{k}, device.test, device.indices);
    add_to(builder, owner, device.test, true);
  }
  return std::move(builder).finish({kFeatures}, kClasses);
}

}  // namespace covey::models
