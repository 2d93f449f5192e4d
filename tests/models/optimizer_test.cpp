#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <covey/models/optimizer.hpp>
#include <functional>
#include <string>
#include <vector>

#include "network_reference.hpp"
#include "network_specs.hpp"

namespace {

using namespace covey;
using namespace covey::models;

constexpr std::size_t kSize = 37;  // whole vectors and a rest on every instruction set
constexpr int kSteps = 20;

/// The optimisers once more, in double precision, as their papers write them.
struct ExactOptimizer {
  OptimizerSpec spec;
  std::vector<double> m = std::vector<double>(kSize, 0.0), v = m;
  int t = 0;

  void step(std::vector<double> g, std::vector<double>& w, double lr) {
    ++t;
    const double decay = static_cast<double>(spec.weight_decay);
    const double momentum = static_cast<double>(spec.momentum);
    const double beta1 = static_cast<double>(spec.beta1), beta2 = static_cast<double>(spec.beta2);
    for (std::size_t i = 0; i < kSize; ++i) {
      if (spec.kind != OptimizerKind::kAdamW) g[i] += decay * w[i];
      switch (spec.kind) {
        case OptimizerKind::kSgd:
          w[i] -= lr * g[i];
          break;
        case OptimizerKind::kMomentum:
          m[i] = momentum * m[i] + g[i];
          w[i] -= lr * m[i];
          break;
        case OptimizerKind::kNesterov:
          m[i] = momentum * m[i] + g[i];
          w[i] -= lr * (g[i] + momentum * m[i]);
          break;
        case OptimizerKind::kAdamW:
          w[i] -= lr * decay * w[i];
          [[fallthrough]];
        case OptimizerKind::kAdam: {
          m[i] = beta1 * m[i] + (1 - beta1) * g[i];
          v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
          const double m_hat = m[i] / (1 - std::pow(beta1, t));
          const double v_hat = v[i] / (1 - std::pow(beta2, t));
          w[i] -= lr * m_hat / (std::sqrt(v_hat) + static_cast<double>(spec.epsilon));
          break;
        }
      }
    }
  }
};

std::vector<float> random_values(RandomStream& random, std::size_t n) {
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(random.uniform(-1, 1));
  return values;
}

}  // namespace

TEST_CASE("twenty steps of every optimiser agree with double precision", "[optimizer]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const auto kind = GENERATE(OptimizerKind::kSgd, OptimizerKind::kMomentum,
                             OptimizerKind::kNesterov, OptimizerKind::kAdam, OptimizerKind::kAdamW);
  const float weight_decay = GENERATE(0.0f, 0.05f);
  constexpr std::uint64_t kSeed = 51;
  constexpr float kLearningRate = 0.03f;
  const reference::InstructionSet scope(isa);
  const OptimizerSpec spec{.kind = kind, .momentum = 0.8f, .weight_decay = weight_decay};
  Optimizer optimizer(spec, kSize);
  ExactOptimizer exact{spec};
  RandomStream random(kSeed, RandomPurpose::kTraining);
  std::vector<float> w = random_values(random, kSize);
  std::vector<double> w_exact(w.begin(), w.end());
  for (int step = 0; step < kSteps; ++step) {
    std::vector<float> gradient = random_values(random, kSize);
    exact.step({gradient.begin(), gradient.end()}, w_exact, static_cast<double>(kLearningRate));
    optimizer.begin_step();
    // in two parts, as around tensors that are not trained
    optimizer.update(0, std::span(gradient).first(21), std::span(w).first(21), kLearningRate);
    optimizer.update(21, std::span(gradient).subspan(21), std::span(w).subspan(21), kLearningRate);
  }
  double worst = 0;
  for (std::size_t i = 0; i < kSize; ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(w[i]) - w_exact[i]));
  }
  CAPTURE(isa, to_string(kind), weight_decay, kSeed);
  CHECK(worst < 3e-6);  // twenty roundings of numbers of order one
}

TEST_CASE("reset makes the next step the first", "[optimizer]") {
  const auto kind = GENERATE(OptimizerKind::kMomentum, OptimizerKind::kAdam);
  Optimizer optimizer({.kind = kind}, 3);
  const auto step = [&](std::vector<float> gradient) {
    std::vector<float> w{1, 2, 3};
    optimizer.begin_step();
    optimizer.update(0, gradient, w, 0.1f);
    return w;
  };
  const auto first = step({0.5f, -1, 2});
  step({1, 1, 1});
  CHECK(step({0.5f, -1, 2}) != first);
  optimizer.reset();
  CHECK(step({0.5f, -1, 2}) == first);
}

TEST_CASE("an optimiser holds no more state than its formula", "[optimizer]") {
  CHECK(Optimizer({.kind = OptimizerKind::kSgd}, 1000).bytes() == 0);
  CHECK(Optimizer({.kind = OptimizerKind::kMomentum}, 1000).bytes() == 4000);
  CHECK(Optimizer({.kind = OptimizerKind::kAdamW}, 1000).bytes() == 8000);
}

TEST_CASE("a gradient is clipped to its norm, and left alone below it", "[optimizer]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const reference::InstructionSet scope(isa);
  std::vector<float> g(1001, 0.0f);
  g[0] = 3;
  g[1000] = 4;
  CHECK(clip_gradient(g, 5.0f) == 1.0f);
  CHECK(g[1000] == 4.0f);
  CHECK(clip_gradient(g, 2.5f) == 0.5f);
  CHECK(g[0] == 1.5f);
  CHECK(g[1000] == 2.0f);
  // squares beyond single precision
  std::vector<float> large(1000, 1e25f);
  const double norm = 1e25 * std::sqrt(1000.0);
  CHECK(clip_gradient(large, 1.0f) == Approx(1 / norm));
  std::vector<float> bad{1, std::nanf(""), 2};
  CHECK(clip_gradient(bad, 0.1f) == 1.0f);
  CHECK(std::isnan(bad[1]));
}

TEST_CASE("sgd through an optimiser and sgd on the way take the same steps", "[optimizer]") {
  constexpr std::uint64_t kSeed = 53;
  constexpr std::size_t kBatch = 9;
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const reference::InstructionSet scope(isa);
  for (const auto& [name, spec] : reference::all_specs()) {
    const Network network = Network::make(spec).value();
    const auto problem = reference::random_problem(spec, kBatch, kSeed);
    RandomStream random(kSeed, RandomPurpose::kSelection);
    const auto anchor = random_values(random, network.num_parameters());
    const auto correction = random_values(random, network.num_parameters());
    Workspace workspace(network, {.max_batch = kBatch, .keeps_gradient = true});
    // a limit that is never reached takes the long way
    Optimizer fused({.weight_decay = 0.03f}, network.num_parameters());
    Optimizer apart({.weight_decay = 0.03f, .clip_norm = 1e6f}, network.num_parameters());
    REQUIRE(Optimizer::is_fused(fused.spec()));
    REQUIRE_FALSE(Optimizer::is_fused(apart.spec()));
    const auto step = [&](Optimizer& optimizer) {
      std::vector<float> w = problem.parameters;
      network.train_step(workspace, problem.inputs, problem.labels, w,
                         {.learning_rate = 0.2f,
                          .proximal_mu = 0.3f,
                          .anchor = anchor,
                          .correction = correction,
                          .optimizer = &optimizer});
      return w;
    };
    const auto one = step(fused), other = step(apart);
    double worst = 0;
    for (std::size_t i = 0; i < one.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(one[i] - other[i])));
    }
    CAPTURE(isa, name, kSeed);
    CHECK(worst < 5e-6);
  }
}

TEST_CASE("clipping bounds the whole step, proximal term and correction apart", "[optimizer]") {
  constexpr std::uint64_t kSeed = 54;
  const ModelSpec spec{{20}, {reference::dense(30), {LayerKind::kRelu}, reference::dense(5)}};
  const Network network = Network::make(spec).value();
  const auto problem = reference::random_problem(spec, 8, kSeed);
  Workspace workspace(network, {.max_batch = 8, .keeps_gradient = true});
  Optimizer optimizer({.clip_norm = 0.01f}, network.num_parameters());
  std::vector<float> w = problem.parameters;
  network.train_step(workspace, problem.inputs, problem.labels, w,
                     {.learning_rate = 1.0f, .optimizer = &optimizer});
  double squares = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double moved = static_cast<double>(w[i] - problem.parameters[i]);
    squares += moved * moved;
  }
  CHECK(std::sqrt(squares) == Approx(0.01).epsilon(1e-3));
}
