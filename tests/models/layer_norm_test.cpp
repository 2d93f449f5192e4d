#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <covey/models/optimizer.hpp>
#include <string>
#include <vector>

#include "network_reference.hpp"
#include "network_specs.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::reference;

/// Two channels, normalised, then scored: parameters are weight, bias, running mean, running
/// variance (two each), then the dense layer's.
ModelSpec normalised_scores() { return {{2}, {{kBatchNorm}, dense(2)}}; }
constexpr std::size_t kMean = 4;
constexpr std::size_t kVariance = 6;

std::vector<float> initial(const Network& network) {
  std::vector<float> w(network.num_parameters());
  network.initialise(w, RandomStream(1, RandomPurpose::kModelInitialisation));
  return w;
}

}  // namespace

TEST_CASE("batch norm names its tensors, and running statistics start at mean 0 and variance 1",
          "[layers]") {
  const Network network = Network::make(normalised_scores()).value();
  const auto& tensors = network.layout().tensors();
  REQUIRE(tensors.size() == 6);
  CHECK(tensors[0].name == "batch_norm1.weight");
  CHECK(tensors[1].name == "batch_norm1.bias");
  CHECK(tensors[2].name == "batch_norm1.running_mean");
  CHECK(tensors[3].name == "batch_norm1.running_var");
  const auto w = initial(network);
  CHECK(std::vector<float>(w.begin(), w.begin() + 8) == std::vector<float>{1, 1, 0, 0, 0, 0, 1, 1});
}

TEST_CASE("a training step moves running statistics a tenth of the way to the batch's",
          "[layers]") {
  const Network network = Network::make(normalised_scores()).value();
  Workspace workspace(network, 4);
  std::vector<float> w = initial(network);
  // channel 0: 1, 2, 3, 6: mean 3, unbiased variance (4 + 1 + 0 + 9) / 3 = 14/3;
  // channel 1: -1, 1, -1, 1: mean 0, unbiased variance 4/3
  const std::vector<float> x{1, -1, 2, 1, 3, -1, 6, 1};
  network.train_step(workspace, x, std::vector<std::int32_t>{0, 1, 0, 1}, w,
                     {.learning_rate = 0.1f});
  CHECK(w[kMean] == Approx(0.3f));
  CHECK(w[kMean + 1] == Approx(0.0f).margin(1e-7));
  CHECK(w[kVariance] == Approx(0.9 + 0.1 * 14 / 3));
  CHECK(w[kVariance + 1] == Approx(0.9 + 0.1 * 4 / 3));
}

TEST_CASE("running statistics have no gradient, and no term of a step moves them", "[layers]") {
  constexpr std::uint64_t kSeed = 8;
  const ModelSpec spec = normalised_scores();
  const Network network = Network::make(spec).value();
  const Problem problem = random_problem(spec, 6, kSeed);
  Workspace workspace(network, {.max_batch = 6, .keeps_gradient = true});
  std::vector<float> gradient(network.num_parameters(), 5.0f);
  const std::vector<float> before = problem.parameters;
  network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
  CHECK(problem.parameters == before);
  for (std::size_t i = kMean; i < kVariance + 2; ++i) CHECK(gradient[i] == 0.0f);

  std::vector<float> expected = problem.parameters;
  network.train_step(workspace, problem.inputs, problem.labels, expected, {});
  const std::vector<float> far(network.num_parameters(), 100.0f);
  for (const OptimizerKind kind : {OptimizerKind::kSgd, OptimizerKind::kAdamW}) {
    Optimizer optimizer({.kind = kind, .weight_decay = 0.1f, .clip_norm = 0.5f},
                        network.num_parameters());
    for (Optimizer* used : {static_cast<Optimizer*>(nullptr), &optimizer}) {
      std::vector<float> w = problem.parameters;
      network.train_step(
          workspace, problem.inputs, problem.labels, w,
          {.proximal_mu = 0.5f, .anchor = far, .correction = far, .optimizer = used});
      for (std::size_t i = kMean; i < kVariance + 2; ++i) {
        CAPTURE(kSeed, i);
        CHECK(w[i] == expected[i]);
      }
    }
  }
}

TEST_CASE("evaluation normalises by running statistics, whatever the batch", "[layers]") {
  constexpr std::uint64_t kSeed = 9;
  const ModelSpec spec{{4, 3, 2}, {convolution(5, 3), {kBatchNorm}, {kRelu}, {kFlatten}, dense(3)}};
  const Network network = Network::make(spec).value();
  const Problem problem = random_problem(spec, 10, kSeed);
  Workspace workspace(network, {.max_batch = 10, .training = false});
  const double whole =
      network.evaluate(workspace, problem.inputs, problem.labels, problem.parameters).loss_sum;
  double sum = 0;
  for (std::size_t b = 0; b < 10; ++b) {
    sum += network
               .evaluate(workspace, std::span(problem.inputs).subspan(b * 24, 24),
                         std::span(problem.labels).subspan(b, 1), problem.parameters)
               .loss_sum;
  }
  CHECK(whole == sum);
}

TEST_CASE("one value per channel trains by running statistics and leaves them", "[layers]") {
  const Network network = Network::make(normalised_scores()).value();
  Workspace workspace(network, 4);
  std::vector<float> w = initial(network);
  w[kMean] = 0.5f;
  w[kVariance] = 4.0f;
  const std::vector<float> before = w;
  const double loss = network.train_step(workspace, std::vector<float>{1, 2},
                                         std::vector<std::int32_t>{1}, w, {.learning_rate = 0.1f});
  CHECK(std::isfinite(loss));
  for (std::size_t i = kMean; i < kVariance + 2; ++i) CHECK(w[i] == before[i]);
  for (std::size_t i = 0; i < kMean; ++i) CHECK(w[i] != before[i]);  // weight and bias learn
}

TEST_CASE("a running variance below zero, as noise leaves it, counts as zero", "[layers]") {
  const Network network = Network::make(normalised_scores()).value();
  Workspace workspace(network, 1);
  std::vector<float> w = initial(network);
  const auto loss = [&] {
    return network.evaluate(workspace, std::vector<float>{1, 2}, std::vector<std::int32_t>{1}, w)
        .loss_sum;
  };
  w[kVariance] = 0;
  const double expected = loss();
  w[kVariance] = -0.3f;
  CHECK(loss() == expected);
  w[kVariance] = std::nanf("");
  CHECK(std::isnan(loss()));  // a diverged model still shows
}

TEST_CASE("normalised values have mean 0 and variance 1 for data far from zero", "[layers]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const InstructionSet scope(isa);
  // 1000 +- 1: single precision keeps 6e-5 of it, the mean of squares minus the squared mean
  // nothing
  constexpr std::uint64_t kSeed = 10;
  RandomStream random(kSeed, RandomPurpose::kTraining);
  const std::vector<LayerSpec> layers{{kBatchNorm}, group_norm(3), {kLayerNorm}};
  for (const LayerSpec& layer : layers) {
    ModelSpec spec{{5, 5, 12}, {layer, {kFlatten}, dense(4)}};
    const Network network = Network::make(spec).value();
    Problem problem = random_problem(spec, 6, kSeed);
    for (float& x : problem.inputs) x = static_cast<float>(1000 + random.uniform(-1, 1));
    Workspace workspace(network, 6);
    std::vector<float> gradient(network.num_parameters());
    const double loss =
        network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
    const auto exact = loss_and_gradient(spec, problem.exact(), problem.inputs, problem.labels);
    CAPTURE(isa, to_string(layer.kind), kSeed);
    CHECK(loss == Approx(exact.loss).epsilon(2e-3));
  }
}

TEST_CASE("a batch is normalised whole, however much memory that takes", "[layers]") {
  using namespace covey;
  using namespace covey::models;
  // 32 x 32 x 32 values in five places take more than 32 MiB for 100 examples: without batch
  // normalisation such a batch would go through in pieces.
  const ModelSpec spec{{32, 32, 1},
                       {{.kind = LayerKind::kConv2d, .units = 32, .kernel = 3},
                        {.kind = LayerKind::kBatchNorm},
                        {.kind = LayerKind::kConv2d, .units = 32, .kernel = 3},
                        {.kind = LayerKind::kRelu},
                        {.kind = LayerKind::kGlobalAveragePool},
                        {.kind = LayerKind::kDense, .units = 2}}};
  const auto network = Network::make(spec).value();
  constexpr std::size_t kBatch = 100;
  RandomStream random(5, RandomPurpose::kTraining);
  std::vector<float> inputs(kBatch * network.inputs());
  for (float& x : inputs) x = static_cast<float>(random.normal());
  const std::vector<std::int32_t> labels(kBatch, 1);
  ParameterVector parameters(network.num_parameters());
  network.initialise(parameters.span(), RandomStream(5, RandomPurpose::kModelInitialisation));
  Workspace workspace(network, kBatch);
  const auto loss = network.train_step(workspace, inputs, labels, parameters.span(),
                                       {.learning_rate = 0.0f});
  CHECK(std::isfinite(loss));
  // One step moves each running variance once: 0.9 * 1 + 0.1 * variance, never below 0.9.
  for (const TensorLayout& tensor : network.layout().tensors()) {
    if (!tensor.name.ends_with("running_var")) continue;
    for (const float variance : parameters.span().subspan(tensor.offset, tensor.size())) {
      CHECK(variance >= 0.9f);
    }
  }
}
