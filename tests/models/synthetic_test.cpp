#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/data_set.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace covey::models {
namespace {

constexpr std::uint64_t kSeed = 11;
constexpr std::size_t kFeatures = 60;

struct Examples {
  std::vector<float> features;
  std::vector<std::int32_t> labels;
  std::span<const float> at(std::size_t i) const {
    return std::span(features).subspan(i * kFeatures, kFeatures);
  }
};

Examples examples_of(const DataSet& set, const std::vector<std::uint32_t>& indices) {
  Examples examples{std::vector<float>(indices.size() * kFeatures),
                    std::vector<std::int32_t>(indices.size())};
  set.gather(indices, examples.features, examples.labels);
  return examples;
}

FederatedData make(const DataConfig& config, std::uint32_t devices, std::uint64_t seed = kSeed) {
  auto data = make_synthetic(config, devices, seed);
  if (!data.ok()) FAIL(data.error().message);
  return std::move(data).value();
}

/// A config whose devices hold exactly floor(e^size_mean) + 50 examples.
DataConfig same_sizes(double size_mean) {
  DataConfig config;
  config.size_mean = size_mean;
  config.size_spread = 0;
  return config;
}

/// A linear classifier [10 x 61], trained by the multi-class perceptron rule.
using Classifier = std::array<std::array<double, kFeatures + 1>, 10>;

std::int32_t predict(const Classifier& classifier, std::span<const float> x) {
  std::array<double, 10> scores{};
  for (std::size_t c = 0; c < 10; ++c) {
    scores[c] = classifier[c][kFeatures];
    for (std::size_t j = 0; j < kFeatures; ++j) scores[c] += classifier[c][j] * x[j];
  }
  return static_cast<std::int32_t>(std::ranges::max_element(scores) - scores.begin());
}

Classifier train_perceptron(const Examples& examples) {
  Classifier classifier{};
  for (int epoch = 0; epoch < 30; ++epoch) {
    for (std::size_t i = 0; i < examples.labels.size(); ++i) {
      const auto x = examples.at(i);
      const auto predicted = static_cast<std::size_t>(predict(classifier, x));
      const auto label = static_cast<std::size_t>(examples.labels[i]);
      if (predicted == label) continue;
      for (std::size_t j = 0; j < kFeatures; ++j) {
        classifier[label][j] += x[j];
        classifier[predicted][j] -= x[j];
      }
      classifier[label][kFeatures] += 1;
      classifier[predicted][kFeatures] -= 1;
    }
  }
  return classifier;
}

double accuracy(const Classifier& classifier, const Examples& examples) {
  std::size_t correct = 0;
  for (std::size_t i = 0; i < examples.labels.size(); ++i) {
    correct += predict(classifier, examples.at(i)) == examples.labels[i] ? 1 : 0;
  }
  return static_cast<double>(correct) / static_cast<double>(examples.labels.size());
}

}  // namespace

TEST_CASE("synthetic data have 60 features, 10 classes and an owner for every example") {
  const FederatedData data = make(DataConfig{}, 20);
  CHECK(data.train.shape() == std::vector<std::uint32_t>{60});
  CHECK(data.train.classes() == 10);
  REQUIRE(data.owners.size() == 20);
  REQUIRE(data.owner_names.size() == 20);
  std::vector<int> train(data.train.size()), test(data.test.size());
  for (const Shard& shard : data.owners) {
    for (const std::uint32_t i : shard.train) ++train.at(i);
    for (const std::uint32_t i : shard.test) ++test.at(i);
  }
  CHECK(std::ranges::all_of(train, [](int n) { return n == 1; }));
  CHECK(std::ranges::all_of(test, [](int n) { return n == 1; }));
}

TEST_CASE("equal seeds give equal synthetic data, other seeds others") {
  const FederatedData a = make(DataConfig{}, 5);
  const FederatedData b = make(DataConfig{}, 5);
  const FederatedData c = make(DataConfig{}, 5, kSeed + 1);
  CHECK(examples_of(a.train, a.owners[3].train).features ==
        examples_of(b.train, b.owners[3].train).features);
  CHECK(examples_of(a.train, a.owners[3].train).features !=
        examples_of(c.train, c.owners[3].train).features);
}

TEST_CASE("a device's synthetic data do not depend on how many devices there are") {
  for (const bool iid : {false, true}) {
    DataConfig config;
    config.iid = iid;
    const FederatedData few = make(config, 4);
    const FederatedData many = make(config, 9);
    for (std::size_t k = 0; k < 4; ++k) {
      const Examples a = examples_of(few.train, few.owners[k].train);
      const Examples b = examples_of(many.train, many.owners[k].train);
      CHECK(a.features == b.features);
      CHECK(a.labels == b.labels);
      CHECK(examples_of(few.test, few.owners[k].test).features ==
            examples_of(many.test, many.owners[k].test).features);
    }
  }
}

TEST_CASE("sizes are floor(LogNormal(mean, spread)) + 50") {
  INFO("seed " << kSeed);
  DataConfig config;
  config.size_mean = 4;
  config.size_spread = 1;
  config.test_fraction = 0.25;
  const FederatedData data = make(config, 1000);
  std::size_t below_median = 0, below_upper = 0;
  for (const Shard& shard : data.owners) {
    const std::size_t size = shard.train.size() + shard.test.size();
    REQUIRE(size >= 50);
    below_median += static_cast<double>(size - 50) + 1 <= std::exp(4.0) ? 1 : 0;
    below_upper += static_cast<double>(size - 50) + 1 <= std::exp(5.0) ? 1 : 0;
  }
  // Phi(0) = .5, Phi(1) = .841; deviations of the counts 15.8 and 11.6 of 1000, times 4; rounding
  // to whole numbers moves the first by up to 1/54 of the density, 7.
  CHECK(std::abs(static_cast<double>(below_median) - 500) < 70);
  CHECK(std::abs(static_cast<double>(below_upper) - 841) < 50);
}

TEST_CASE("max-examples caps a device and test-fraction is held out of each device") {
  DataConfig config = same_sizes(6);  // floor(403.4) + 50 = 453
  config.test_fraction = 0.2;
  const FederatedData whole = make(config, 3);
  CHECK(whole.owners[1].train.size() == 362);  // 453 - round(90.6)
  CHECK(whole.owners[1].test.size() == 91);
  config.max_examples = 100;
  const FederatedData capped = make(config, 3);
  CHECK(capped.owners[1].train.size() == 80);
  CHECK(capped.owners[1].test.size() == 20);
  config.test_fraction = 0;
  CHECK(make(config, 3).test.empty());
}

TEST_CASE("feature j of a device has variance j^-1.2 around the device's own mean") {
  INFO("seed " << kSeed);
  const FederatedData data = make(same_sizes(9), 1);  // 8153 examples, 6522 to train
  const Examples examples = examples_of(data.train, data.owners[0].train);
  const double n = static_cast<double>(examples.labels.size());
  for (std::size_t j = 0; j < kFeatures; ++j) {
    double sum = 0, squares = 0;
    for (std::size_t i = 0; i < examples.labels.size(); ++i) {
      sum += examples.at(i)[j];
      squares += static_cast<double>(examples.at(i)[j]) * examples.at(i)[j];
    }
    const double variance = squares / n - (sum / n) * (sum / n);
    // A sample variance of normals has relative deviation sqrt(2/n) = 1.75%.
    CHECK(variance == Approx(std::pow(static_cast<double>(j + 1), -1.2)).epsilon(5 * 0.0175));
  }
}

TEST_CASE("beta is the standard deviation of the devices' mean features") {
  INFO("seed " << kSeed);
  DataConfig config = same_sizes(0);  // 51 examples a device
  config.beta = 3;
  config.test_fraction = 0;
  const FederatedData data = make(config, 1000);
  double sum = 0, squares = 0;
  for (const Shard& shard : data.owners) {
    const Examples examples = examples_of(data.train, shard.train);
    double mean = 0;
    for (const float x : examples.features) mean += x;
    mean /= static_cast<double>(examples.features.size());
    sum += mean;
    squares += mean * mean;
  }
  const double variance = squares / 1000 - (sum / 1000) * (sum / 1000);
  // beta^2 + 1/60; a sample variance of 1000 normals has relative deviation sqrt(2/1000) = 4.5%.
  CHECK(variance == Approx(9.02).epsilon(5 * 0.045));
}

TEST_CASE("a device's labels are a linear function of its features") {
  INFO("seed " << kSeed);
  DataConfig config = same_sizes(7.6);  // 2048 examples
  const FederatedData data = make(config, 3);
  for (const Shard& shard : data.owners) {
    const Classifier classifier = train_perceptron(examples_of(data.train, shard.train));
    CHECK(accuracy(classifier, examples_of(data.test, shard.test)) > 0.9);
  }
}

TEST_CASE("iid devices share one model, the others do not") {
  INFO("seed " << kSeed);
  DataConfig config = same_sizes(8);  // 3030 examples
  // Mean accuracy on devices 1 to 5 of a classifier trained on device 0.
  const auto foreign_accuracy = [&](bool iid) {
    config.iid = iid;
    const FederatedData data = make(config, 6);
    const Classifier classifier = train_perceptron(examples_of(data.train, data.owners[0].train));
    double sum = 0;
    for (std::size_t k = 1; k < 6; ++k) {
      sum += accuracy(classifier, examples_of(data.train, data.owners[k].train));
    }
    return sum / 5;
  };
  CHECK(foreign_accuracy(true) > 0.8);
  CHECK(foreign_accuracy(false) < 0.5);
}

TEST_CASE("synthetic data that no machine could hold are refused with the keys to change") {
  DataConfig config = same_sizes(20);  // 485 million examples
  const auto data = make_synthetic(config, 10, kSeed);
  REQUIRE_FALSE(data.ok());
  CHECK_THAT(data.error().message,
             Catch::Contains("data.size-mean") && Catch::Contains("data.max-examples"));
  config.max_examples = 60;
  CHECK(make_synthetic(config, 10, kSeed).ok());
  CHECK_FALSE(make_synthetic(config, 0, kSeed).ok());
}

}  // namespace covey::models
