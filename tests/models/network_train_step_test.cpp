#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <string>
#include <thread>
#include <vector>

#include "network_reference.hpp"
#include "network_specs.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using enum LayerKind;

ModelSpec small_cnn() {
  return {{12, 12, 1},
          {{kConv2d, 8, 5},
           {kRelu},
           {kMaxPool2d, 0, 2},
           {kConv2d, 16, 5},
           {kRelu},
           {kMaxPool2d, 0, 2},
           {kFlatten},
           {kDense, 24, 0},
           {kRelu},
           {kDense, 10, 0}}};
}

ModelSpec small_dense() {
  return {{65}, {{kDense, 130, 0}, {kRelu}, {kDense, 40, 0}, {kRelu}, {kDense, 10, 0}}};
}

/// Wide enough that a batch of 100 goes through the network in pieces: 70,000 activations an
/// example.
ModelSpec wide() {
  return {{64, 64, 1}, {{kConv2d, 16, 1}, {kRelu}, {kMaxPool2d, 0, 8}, {kFlatten}, {kDense, 3, 0}}};
}

Network make(const ModelSpec& spec) {
  auto network = Network::make(spec);
  REQUIRE(network.ok());
  return std::move(network).value();
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return most;
}

/// Five steps on one batch.
std::vector<float> trained(const Network& network, const reference::Problem& problem,
                           std::size_t max_batch) {
  Workspace workspace(network, max_batch);
  std::vector<float> w = problem.parameters;
  for (int i = 0; i < 5; ++i) {
    network.train_step(workspace, problem.inputs, problem.labels, w, {.learning_rate = 0.05f});
  }
  return w;
}

}  // namespace

TEST_CASE("a training step is the gradient followed by the optimiser's formula", "[network]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const float proximal_mu = GENERATE(0.0f, 0.7f);
  constexpr std::uint64_t kSeed = 3;
  constexpr float kLearningRate = 0.25f;
  const reference::InstructionSet scope(isa);
  const std::vector<std::pair<ModelSpec, std::size_t>> cases{
      {small_dense(), 10}, {small_cnn(), 10}, {wide(), 100}, {{{60}, {{kDense, 10, 0}}}, 13}};
  for (const auto& [spec, batch] : cases) {
    CAPTURE(isa, proximal_mu, batch, spec.layers.size(), kSeed);
    const Network network = make(spec);
    const auto problem = reference::random_problem(spec, batch, kSeed);
    const auto anchor = reference::random_problem(spec, 1, kSeed + 1).parameters;
    Workspace workspace(network, batch);
    std::vector<float> gradient(network.num_parameters());
    const double loss =
        network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
    std::vector<float> expected = problem.parameters;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      // w - lr * (g + mu * (w - anchor)), both terms at the parameters before the step
      expected[i] -= kLearningRate * (gradient[i] + proximal_mu * (expected[i] - anchor[i]));
    }
    std::vector<float> stepped = problem.parameters;
    const double step_loss = network.train_step(
        workspace, problem.inputs, problem.labels, stepped,
        {.learning_rate = kLearningRate, .proximal_mu = proximal_mu, .anchor = anchor});
    CHECK(step_loss == loss);
    CHECK(largest_difference(stepped, expected) < 2e-6);
    CHECK(largest_difference(stepped, problem.parameters) > 1e-3);
  }
}

TEST_CASE("a batch that goes through in pieces has the gradient of the whole", "[network]") {
  constexpr std::uint64_t kSeed = 5;
  constexpr std::size_t kBatch = 100;
  const Network network = make(wide());
  const auto problem = reference::random_problem(wide(), kBatch, kSeed);
  Workspace workspace(network, kBatch);
  // all examples at once would need 70,000 activations each and two gradients of the widest stage
  REQUIRE(workspace.bytes() < kBatch * (70'000 + 2 * 65'536) * sizeof(float));
  std::vector<float> gradient(network.num_parameters());
  const double loss =
      network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
  const auto exact =
      reference::loss_and_gradient(wide(), problem.exact(), problem.inputs, problem.labels);
  CHECK(loss == Approx(exact.loss).epsilon(1e-6));
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    CAPTURE(i);
    CHECK(static_cast<double>(gradient[i]) == Approx(exact.gradient[i]).margin(2e-6));
  }
}

TEST_CASE("a batch in pieces has the mean gradient of its parts, whatever the layers",
          "[network]") {
  constexpr std::uint64_t kSeed = 6;
  constexpr std::size_t kBatch = 80, kPart = 16;
  using namespace reference;
  // 100,000 values and more an example
  const std::vector<ModelSpec> specs{
      {{64, 64, 1},
       {convolution(16, 3, 1, Padding::kValid),
        group_norm(4),
        {kRelu},
        depthwise(3, 2),
        {kGlobalAveragePool},
        dense(3)}},
      {{64, 64, 1},
       {convolution(16, 3), {kTanh}, add(2), average_pool(3, 2), {kFlatten}, dense(3)}},
      {{200, 30}, {dense(300), {kLayerNorm}, {kGelu}, {kGlobalAveragePool}, dense(4)}}};
  for (const ModelSpec& spec : specs) {
    CAPTURE(kSeed, spec.layers.size());
    const Network network = make(spec);
    const auto problem = random_problem(spec, kBatch, kSeed);
    Workspace pieces(network, kBatch);
    Workspace whole(network, kPart);
    REQUIRE(pieces.bytes() < 4 * whole.bytes());  // no room for five parts at once
    std::vector<float> gradient(network.num_parameters()), part(network.num_parameters());
    std::vector<float> expected(network.num_parameters(), 0.0f);
    const double loss =
        network.gradient(pieces, problem.inputs, problem.labels, problem.parameters, gradient);
    double sum = 0;
    for (std::size_t first = 0; first < kBatch; first += kPart) {
      sum += network.gradient(
          whole,
          std::span(problem.inputs).subspan(first * network.inputs(), kPart * network.inputs()),
          std::span(problem.labels).subspan(first, kPart), problem.parameters, part);
      for (std::size_t i = 0; i < part.size(); ++i) expected[i] += part[i] * kPart / kBatch;
    }
    CHECK(loss == Approx(sum * kPart / kBatch).epsilon(1e-7));
    const std::vector<float> zero(expected.size(), 0.0f);
    CHECK(largest_difference(gradient, expected) < 1e-5 * largest_difference(expected, zero));
  }
}

TEST_CASE("training gives the same bits in every run, thread and workspace", "[network]") {
  constexpr std::uint64_t kSeed = 9;
  for (const ModelSpec& spec : {small_dense(), small_cnn()}) {
    const Network network = make(spec);
    const auto problem = reference::random_problem(spec, 10, kSeed);
    const std::vector<float> expected = trained(network, problem, 10);
    CHECK(trained(network, problem, 10) == expected);
    CHECK(trained(network, problem, 37) == expected);
    std::vector<std::vector<float>> results(4);
    std::vector<std::thread> threads;
    for (auto& result : results) {
      threads.emplace_back([&] { result = trained(network, problem, 10); });
    }
    for (auto& thread : threads) thread.join();
    for (const auto& result : results) CHECK(result == expected);
  }
}

TEST_CASE("instruction sets agree to single precision", "[network]") {
  constexpr std::uint64_t kSeed = 13;
  for (const ModelSpec& spec : {small_dense(), small_cnn()}) {
    const auto problem = reference::random_problem(spec, 10, kSeed);
    std::vector<std::vector<float>> results;
    for (const char* isa : {"sse2", "avx2", "avx512"}) {
      const reference::InstructionSet scope(isa);
      results.push_back(trained(make(spec), problem, 10));
    }
    CHECK(largest_difference(results[0], results[1]) < 1e-5);
    CHECK(largest_difference(results[0], results[2]) < 1e-5);
  }
}

TEST_CASE("COVEY_ISA lowers the instruction set and a misspelt one is refused", "[network]") {
#if defined(__x86_64__)
  {
    const reference::InstructionSet scope("sse2");
    CHECK(std::string(kernel_instruction_set()) == "sse2");
  }
#endif
  const reference::InstructionSet scope("avx1024");
  const auto network = Network::make(small_dense());
  REQUIRE_FALSE(network.ok());
  CHECK(network.error().message ==
        "the environment variable COVEY_ISA is \"avx1024\"; there are sse2, avx2 and avx512");
}

TEST_CASE("the loss falls until a tiny problem is learnt", "[network]") {
  constexpr std::uint64_t kSeed = 17;
  constexpr std::size_t kBatch = 20;
  for (const ModelSpec& spec : {small_dense(), small_cnn()}) {
    CAPTURE(kSeed, spec.layers.size());
    const Network network = make(spec);
    auto problem = reference::random_problem(spec, kBatch, kSeed);
    network.initialise(problem.parameters,
                       RandomStream(kSeed, RandomPurpose::kModelInitialisation));
    Workspace workspace(network, kBatch);
    const double first =
        network.evaluate(workspace, problem.inputs, problem.labels, problem.parameters).loss();
    for (int i = 0; i < 600; ++i) {
      network.train_step(workspace, problem.inputs, problem.labels, problem.parameters,
                         {.learning_rate = 0.1f});
    }
    const Evaluation last =
        network.evaluate(workspace, problem.inputs, problem.labels, problem.parameters);
    CHECK(first > 2.0);  // near ln 10 for ten classes
    CHECK(last.loss() < 0.1 * first);
    CHECK(last.accuracy() == 1.0);
  }
}
