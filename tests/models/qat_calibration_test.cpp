// Ranges of activations from examples, and the integer model they make of a network trained in
// fp32.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/calibration.hpp>
#include <covey/models/quantised_model.hpp>
#include <limits>

#include "qat_problem.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::qat_problem;
using enum LayerKind;

constexpr std::uint64_t kSeed = 52;

bool says(const Error& error, const std::string& what) {
  return error.message.find(what) != std::string::npos;
}

}  // namespace

TEST_CASE("calibration gives the largest magnitudes of input and layers", "[qat]") {
  // y = relu(x [2, -1] + [0, 0.5]), scores = y [[1, 0], [-3, 1]]
  const ModelSpec spec{{1}, {{kDense, 2}, {kRelu}, {kDense, 2}}};
  const Network network = *Network::make(spec);
  const std::vector<float> w{2, -1, 0, 0.5f, 1, 0, -3, 1, 0, 0};
  const DataSet data = *DataSet::from_floats({1}, {1, -2, 3}, {0, 1, 0}, 2);
  const auto ranges = calibrate(network, w, data, {.coverage = 1});
  REQUIRE(ranges.ok());
  // hidden: (2, 0), (0, 2.5), (6, 0); scores: (2, 0), (-7.5, 2.5), (6, 0)
  CHECK(*ranges == std::vector<float>{3, 6, 7.5f});
}

TEST_CASE("calibration may leave out a share of the values that are not zero", "[qat]") {
  const ModelSpec spec{{1000}, {{kDense, 2}}};
  const Network network = *Network::make(spec);
  const std::vector<float> w(network.num_parameters(), 0.0f);
  std::vector<float> features(1000);  // half zeros, then 1/500 to 1
  for (std::size_t i = 0; i < 500; ++i) features[i] = static_cast<float>(i + 1) / -500.0f;
  const DataSet data = *DataSet::from_floats({1000}, features, {0}, 2);
  const auto range = [&](double coverage) {
    return calibrate(network, w, data, {.coverage = coverage}).value()[0];
  };
  CHECK(range(1) == 1);
  CHECK(range(0.9) == Approx(0.9).margin(1.0 / 1024));
  CHECK(range(0.5) == Approx(0.5).margin(1.0 / 1024));
}

TEST_CASE("calibration draws as many examples as asked, by the seed", "[qat]") {
  const ModelSpec spec{{1}, {{kDense, 2}}};
  const Network network = *Network::make(spec);
  const std::vector<float> w{1, 1, 0, 0};
  std::vector<float> features(300);
  for (std::size_t i = 0; i < 300; ++i) features[i] = static_cast<float>(i + 1);
  const DataSet data = *DataSet::from_floats({1}, features, std::vector<std::int32_t>(300, 0), 2);
  const auto range = [&](std::size_t examples, std::uint64_t seed) {
    return calibrate(network, w, data, {.examples = examples, .seed = seed, .coverage = 1})
        .value()[0];
  };
  CHECK(range(1, 1) == range(1, 1));
  CHECK(range(1, 1) != range(1, 2));
  CHECK(range(300, 1) == 300);
  CHECK(range(1000, 2) == 300);
}

TEST_CASE("what cannot be calibrated with is refused", "[qat]") {
  const ModelSpec spec{{2}, {{kDense, 3}, {kRelu}, {kDense, 2}}};
  const Network network = *Network::make(spec);
  std::vector<float> w(network.num_parameters(), 0.5f);
  const DataSet data = *DataSet::from_floats({2}, {1, 2, 3, 4}, {0, 1}, 2);
  CHECK(says(calibrate(network, w, DataSet(), {}).error(), "calibration needs examples"));
  CHECK(says(calibrate(network, w, data, {.examples = 0}).error(), "calibration needs examples"));
  CHECK(says(calibrate(network, w, data, {.coverage = 0}).error(), "cannot cover 0"));
  CHECK(says(calibrate(network, w, *DataSet::from_floats({1}, {1}, {0}, 2), {}).error(),
             "have 1 numbers, the network takes 2"));
  w[w.size() - 1] = std::numeric_limits<float>::infinity();
  CHECK(says(calibrate(network, w, data, {}).error(), "layer 3 (dense) gives values that are not"));
}

TEST_CASE("a calibrated integer model keeps the accuracy of training in fp32", "[qat]") {
  CAPTURE(kSeed);
  const DataSet train_data = images(2000, kSeed);
  const Examples test = gather(images(1000, kSeed + 1), 0, 1000);
  for (const ModelSpec& spec : {dense_model(), convolutional_model()}) {
    const auto engine = engine_for(spec, "fp32", kSeed, 1000);
    train(*engine, train_data, 0.1f);
    const Evaluation floats = engine->evaluate(test.features, test.labels);
    const auto ranges = calibrate(*Network::make(spec), engine->trained(), train_data,
                                  {.examples = 200, .seed = kSeed});
    REQUIRE(ranges.ok());
    auto integer = QuantisedModel::make(spec, engine->trained(), *ranges).value();
    const Evaluation integers = integer.evaluate(test.features, test.labels);
    CAPTURE(floats.accuracy(), integers.accuracy(), floats.loss(), integers.loss());
    CHECK(floats.accuracy() > 0.9);
    CHECK(std::abs(integers.accuracy() - floats.accuracy()) < 0.01);
    CHECK(integers.loss() == Approx(floats.loss()).margin(0.02));
  }
}
