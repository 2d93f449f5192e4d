#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <covey/models/data_set.hpp>
#include <covey/random.hpp>
#include <string>

#include "data/data_builder.hpp"

namespace covey::models {
namespace {

constexpr std::uint32_t kFeatures = 60;
constexpr std::uint32_t kClasses = 10;
constexpr double kMinExamples = 50;
// 64 Mi examples are 15 GiB of features: more is a slip in size-mean or size-spread.
constexpr double kMaxExamplesInAll = 64.0 * (1 << 20);

// Sub-streams of one device, told apart by the stream's round.
constexpr RoundNumber kModelDraws{1};
constexpr RoundNumber kSizeDraws{2};
constexpr RoundNumber kExampleDraws{3};
constexpr RoundNumber kSharedModelDraws{4};

/// y = argmax(W^T x + b): W [60 x 10], b [10]; x ~ N(center, diag(j^-1.2)).
struct DeviceModel {
  std::array<std::array<double, kClasses>, kFeatures> weight;
  std::array<double, kClasses> bias;
  std::array<double, kFeatures> center;
};

void draw_weights(double mean, RandomStream& random, DeviceModel& model) {
  for (auto& row : model.weight) {
    for (double& w : row) w = random.normal(mean, 1);
  }
  for (double& b : model.bias) b = random.normal(mean, 1);
}

DeviceModel draw_model(const DataConfig& config, std::uint64_t seed, ClientId device) {
  DeviceModel model{};
  if (config.iid) {  // one W, b ~ N(0, 1) for all devices, v = 0
    RandomStream shared(seed, RandomPurpose::kDataGeneration, kSharedModelDraws);
    draw_weights(0, shared, model);
    return model;
  }
  RandomStream random(seed, RandomPurpose::kDataGeneration, kModelDraws, device);
  draw_weights(random.normal(0, config.alpha), random, model);  // u_k ~ N(0, alpha)
  const double center_mean = random.normal(0, config.beta);     // B_k ~ N(0, beta)
  for (double& v : model.center) v = random.normal(center_mean, 1);
  return model;
}

/// n_k = floor(LogNormal(mean, spread)) + 50, capped.
double draw_size(const DataConfig& config, std::uint64_t seed, ClientId device) {
  RandomStream random(seed, RandomPurpose::kDataGeneration, kSizeDraws, device);
  const double size =
      std::floor(random.log_normal(config.size_mean, config.size_spread)) + kMinExamples;
  return config.max_examples > 0 ? std::min<double>(size, config.max_examples) : size;
}

/// Standard deviation of feature j, from 0: the covariance's diagonal is (j+1)^-1.2.
std::array<double, kFeatures> feature_deviations() {
  std::array<double, kFeatures> deviations{};
  for (std::size_t j = 0; j < kFeatures; ++j) {
    deviations[j] = std::pow(static_cast<double>(j + 1), -0.6);
  }
  return deviations;
}

std::int32_t draw_example(const DeviceModel& model, const std::array<double, kFeatures>& deviations,
                          RandomStream& random, std::span<float> features) {
  std::array<double, kClasses> scores = model.bias;
  for (std::size_t j = 0; j < kFeatures; ++j) {
    const double x = random.normal(model.center[j], deviations[j]);
    features[j] = static_cast<float>(x);
    for (std::size_t c = 0; c < kClasses; ++c) scores[c] += model.weight[j][c] * x;
  }
  return static_cast<std::int32_t>(std::ranges::max_element(scores) - scores.begin());
}

}  // namespace

Result<FederatedData> make_synthetic(const DataConfig& config, std::uint32_t devices,
                                     std::uint64_t seed) {
  if (devices == 0) {
    return invalid_argument("partition.clients: the synthetic data set needs a number of devices");
  }
  std::vector<std::size_t> sizes;
  double total = 0;
  for (std::uint32_t k = 0; k < devices; ++k) {
    const double size = draw_size(config, seed, ClientId{k});
    total += size;
    if (total > kMaxExamplesInAll) {
      return invalid_argument(fmt::format(
          "data.size-mean = {} and data.size-spread = {} give more than {} examples on {} devices; "
          "lower them or set data.max-examples",
          config.size_mean, config.size_spread, kMaxExamplesInAll, devices));
    }
    sizes.push_back(static_cast<std::size_t>(size));
  }
  FederatedBuilder builder(kFeatures);
  const auto in_all = static_cast<std::size_t>(total);
  const auto held_out = static_cast<std::size_t>(total * config.test_fraction) + devices;
  builder.reserve(in_all - std::min(in_all, held_out) + 2 * devices, held_out);

  const auto deviations = feature_deviations();
  std::vector<float> features;
  std::vector<std::int32_t> labels;
  for (std::uint32_t k = 0; k < devices; ++k) {
    const ClientId device{k};
    const DeviceModel model = draw_model(config, seed, device);
    RandomStream random(seed, RandomPurpose::kDataGeneration, kExampleDraws, device);
    features.resize(sizes[k] * kFeatures);
    labels.resize(sizes[k]);
    const auto example = [&](std::size_t i) {
      return std::span(features).subspan(i * kFeatures, kFeatures);
    };
    for (std::size_t i = 0; i < sizes[k]; ++i) {
      labels[i] = draw_example(model, deviations, random, example(i));
    }
    const std::size_t owner = builder.add_owner("device " + std::to_string(k));
    const Split split =
        split_examples(sizes[k], config.test_fraction,
                       RandomStream(seed, RandomPurpose::kTrainTestSplit, {}, device));
    for (const std::uint32_t i : split.train) builder.add_train(owner, example(i), labels[i]);
    for (const std::uint32_t i : split.test) builder.add_test(owner, example(i), labels[i]);
  }
  return std::move(builder).finish({kFeatures}, kClasses);
}

}  // namespace covey::models
