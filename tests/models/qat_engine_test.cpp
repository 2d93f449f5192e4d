// Quantisation-aware training as trainers and servers see it: what is evaluated, what is federated.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/int8_encoding.hpp>
#include <covey/models/calibration.hpp>
#include <covey/models/quantised_model.hpp>
#include <limits>
#include <thread>

#include "qat_problem.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::qat_problem;

constexpr std::uint64_t kSeed = 31;

struct Model {
  std::span<const float> weights;
  std::span<const float> ranges;
};

Model parts_of(const Engine& engine, const ModelSpec& spec) {
  const std::size_t ranges = count_ranges(spec);
  const std::size_t d = engine.trained().size() - ranges;
  return {engine.trained().first(d), engine.trained().last(ranges)};
}

std::vector<float> integer_logits(const Engine& engine, const ModelSpec& spec,
                                  const Examples& examples) {
  const Model model = parts_of(engine, spec);
  auto integer = QuantisedModel::make(spec, model.weights, model.ranges).value();
  std::vector<float> logits(examples.labels.size() * kClasses);
  integer.predict(examples.features, logits);
  return logits;
}

/// Of the network that training sees: rounded weights and activations, in floats.
std::vector<float> training_logits(const Engine& engine, const ModelSpec& spec,
                                   const Examples& examples) {
  const Network network = Network::make_quantisation_aware(spec).value();
  std::vector<float> at(engine.trained().size());
  const SharedBytes blob = encode_int8(engine.trained(), network.layout(), {.headroom = 1});
  REQUIRE(decode_int8(blob.span(), network.layout(), at).ok());
  Workspace workspace(network, {.max_batch = examples.labels.size(), .training = false});
  std::vector<float> logits;
  network.observe(workspace, examples.features, at,
                  [&](std::size_t layer, std::span<const float> outputs) {
                    if (layer + 1 != spec.layers.size()) return;
                    logits.insert(logits.end(), outputs.begin(), outputs.end());
                  });
  return logits;
}

std::size_t best(const float* logits) {
  return static_cast<std::size_t>(std::max_element(logits, logits + kClasses) - logits);
}

}  // namespace

TEST_CASE("what training computes is what the integer model computes", "[qat]") {
  CAPTURE(kSeed);
  const DataSet train_data = images(1500, kSeed);
  const DataSet test_data = images(400, kSeed + 1);
  for (const ModelSpec& spec : {dense_model(), convolutional_model()}) {
    const auto engine = engine_for(spec, "qat-int8", kSeed, 10);
    train(*engine, train_data, 0.1f);
    const Examples examples = gather(test_data, 0, test_data.size());
    const auto integers = integer_logits(*engine, spec, examples);
    const auto floats = training_logits(*engine, spec, examples);
    REQUIRE(integers.size() == floats.size());
    double sum = 0;
    double most = 0;
    double largest = 0;
    std::size_t disagreements = 0;
    for (std::size_t i = 0; i < floats.size(); ++i) {
      const double difference = std::abs(static_cast<double>(integers[i] - floats[i]));
      sum += difference;
      most = std::max(most, difference);
      largest = std::max(largest, std::abs(static_cast<double>(floats[i])));
      if (i % kClasses == 0 && best(&integers[i]) != best(&floats[i])) ++disagreements;
    }
    // They may round an activation to neighbouring steps where it lies next to a tie (sums of
    // floats are rounded, biases and multipliers of the integers too); a step is 1/127 of its
    // range. One such moves a score by a few thousandths of the largest score.
    CAPTURE(spec.layers.size(), most, largest, sum / static_cast<double>(floats.size()));
    CHECK(sum / static_cast<double>(floats.size()) < 0.001 * largest);
    CHECK(most < 0.02 * largest);
    CHECK(disagreements <= 1);
  }
}

TEST_CASE("evaluation is the exported model's, also after further steps", "[qat]") {
  CAPTURE(kSeed);
  const DataSet data = images(600, kSeed);
  const ModelSpec spec = dense_model();
  const auto engine = engine_for(spec, "qat-int8", kSeed, 100);
  const Examples examples = gather(images(100, kSeed + 1), 0, 100);
  double before = 0;
  for (int pass = 0; pass < 2; ++pass) {
    train(*engine, data, 0.1f);
    const Model model = parts_of(*engine, spec);
    auto integer = QuantisedModel::make(spec, model.weights, model.ranges).value();
    const Evaluation expected = integer.evaluate(examples.features, examples.labels);
    for (int again = 0; again < 2; ++again) {
      const Evaluation evaluation = engine->evaluate(examples.features, examples.labels);
      CHECK(evaluation.loss_sum == expected.loss_sum);
      CHECK(evaluation.correct == expected.correct);
      CHECK(evaluation.examples == 100);
    }
    CHECK(expected.loss_sum != before);  // the passes differ, so a stale model would show
    before = expected.loss_sum;
  }
}

TEST_CASE("the first round's model is calibrated on each batch by itself", "[qat]") {
  CAPTURE(kSeed);
  const ModelSpec spec = convolutional_model();
  const DataSet data = images(200, kSeed);
  const Examples first = gather(data, 0, 100);
  const Examples second = gather(data, 100, 100);
  const auto engine = engine_for(spec, "qat-int8", kSeed, 100);
  const auto other = engine_for(spec, "qat-int8", kSeed, 100);
  engine->evaluate(first.features, first.labels);
  const Evaluation later = engine->evaluate(second.features, second.labels);
  const Evaluation alone = other->evaluate(second.features, second.labels);
  CHECK(later.loss_sum == alone.loss_sum);
  // ... and close to the fp32 network it is: nothing but rounding lies between
  const auto floats = engine_for(spec, "fp32", kSeed, 100);
  const Evaluation exact = floats->evaluate(second.features, second.labels);
  CHECK(alone.loss() == Approx(exact.loss()).epsilon(0.01));
}

TEST_CASE("averaging two devices averages their ranges, and the average needs no data", "[qat]") {
  CAPTURE(kSeed);
  const ModelSpec spec = dense_model();
  const auto start = engine_for(spec, "qat-int8", kSeed, 10);
  ParameterVector average(start->trained().size());
  std::vector<std::vector<float>> ranges;
  for (std::uint64_t device = 0; device < 2; ++device) {
    const auto engine = engine_for(spec, "qat-int8", kSeed, 10);
    train(*engine, images(800, kSeed + 10 + device), 0.1f);
    const auto update = engine->encode_difference(
        Encoding::kFp32, RandomStream(kSeed, RandomPurpose::kUpdateRounding));
    REQUIRE(update.ok());
    ParameterVector difference(average.size());
    REQUIRE(decode_fp32(update->span(), difference.span()).ok());
    for (std::size_t i = 0; i < average.size(); ++i) average[i] += difference[i] / 2;
    const Model model = parts_of(*engine, spec);
    ranges.emplace_back(model.ranges.begin(), model.ranges.end());
  }
  for (std::size_t i = 0; i < average.size(); ++i) average[i] += start->initial()[i];
  const auto server = make_engine(spec, "qat-int8").value();
  server->reserve(200);
  REQUIRE(server->load(encode_fp32(average.span()).span()).ok());
  const Model model = parts_of(*server, spec);
  for (std::size_t i = 0; i < model.ranges.size(); ++i) {
    CHECK(ranges[0][i] > 0);
    CHECK(ranges[0][i] != ranges[1][i]);
    CHECK(model.ranges[i] == Approx((ranges[0][i] + ranges[1][i]) / 2).epsilon(1e-5));
  }
  const Examples examples = gather(images(200, kSeed + 1), 0, 200);
  const Evaluation evaluation = server->evaluate(examples.features, examples.labels);
  auto integer = QuantisedModel::make(spec, model.weights, model.ranges).value();
  CHECK(evaluation.loss_sum == integer.evaluate(examples.features, examples.labels).loss_sum);
  CHECK(evaluation.accuracy() > 0.8);
}

TEST_CASE("training twice gives the same bits, on whatever thread", "[qat]") {
  CAPTURE(kSeed);
  const DataSet data = images(300, kSeed);
  std::vector<std::vector<float>> results(3);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] {
      const auto engine = engine_for(convolutional_model(), "qat-int8", kSeed, 10);
      train(*engine, data, 0.1f);
      result.assign(engine->trained().begin(), engine->trained().end());
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

TEST_CASE("an optimiser with state does not move the ranges", "[qat]") {
  CAPTURE(kSeed);
  const ModelSpec spec = dense_model();
  const auto engine = engine_for(spec, "qat-int8", kSeed, 10);
  engine->begin_training({.kind = OptimizerKind::kAdam, .weight_decay = 0.1f},
                         RandomStream(kSeed, RandomPurpose::kTrainingStep));
  const Examples batch = gather(images(10, kSeed), 0, 10);
  float largest = 0;
  for (const float x : batch.features) largest = std::max(largest, std::abs(x));
  for (int step = 0; step < 3; ++step) {
    engine->train_step(batch.features, batch.labels, 0.01f, 0);
    CHECK(parts_of(*engine, spec).ranges[0] == Approx(largest).epsilon(1e-6));
  }
}

TEST_CASE("a model that diverged has a NaN loss and a reason", "[qat]") {
  const ModelSpec spec = dense_model();
  const auto engine = engine_for(spec, "qat-int8", kSeed, 10);
  const Examples batch = gather(images(10, kSeed), 0, 10);
  engine->train_step(batch.features, batch.labels, 0.1f, 0);
  std::vector<float> broken(engine->trained().begin(), engine->trained().end());
  broken[100] = std::numeric_limits<float>::quiet_NaN();
  REQUIRE(engine->load(encode_fp32(broken).span()).ok());
  CHECK(std::isnan(engine->evaluate(batch.features, batch.labels).loss()));
  CHECK_FALSE(engine->problem().empty());
  CHECK(std::isnan(engine->train_step(batch.features, batch.labels, 0.1f, 0)));
}
