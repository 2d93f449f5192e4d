#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <limits>
#include <vector>

#include "network_reference.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using enum LayerKind;

/// Scores are the inputs: W = I, bias = 0.
struct Identity {
  Network network = Network::make({{3}, {{kDense, 3, 0}}}).value();
  Workspace workspace{network, 8};
  std::vector<float> parameters{1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0};

  Evaluation evaluate(const std::vector<float>& scores, const std::vector<std::int32_t>& labels) {
    return network.evaluate(workspace, scores, labels, parameters);
  }
};

}  // namespace

TEST_CASE("evaluation counts predictions and sums cross-entropies", "[network]") {
  Identity model;
  // predictions 1, 0, 2, and in a tie the first: 0
  const Evaluation evaluation =
      model.evaluate({0, 1, 0, 2, 1, 0, -1, -2, 0, 5, 5, 0}, {1, 2, 2, 0});
  CHECK(evaluation.examples == 4);
  CHECK(evaluation.correct == 3);
  CHECK(evaluation.accuracy() == 0.75);
  const double expected =
      (std::log(2 + std::exp(1.0)) - 1) + std::log(std::exp(2.0) + std::exp(1.0) + 1) +
      std::log(std::exp(-1.0) + std::exp(-2.0) + 1) + (std::log(2 * std::exp(5.0) + 1) - 5);
  CHECK(evaluation.loss_sum == Approx(expected).epsilon(1e-6));
}

TEST_CASE("evaluating no examples gives zero and not a division by it", "[network]") {
  Identity model;
  const Evaluation evaluation = model.evaluate({}, {});
  CHECK(evaluation.examples == 0);
  CHECK(evaluation.loss() == 0);
  CHECK(evaluation.accuracy() == 0);
}

TEST_CASE("extreme scores keep the loss finite and exact", "[network]") {
  Identity model;
  const Evaluation evaluation = model.evaluate({1e4f, 0, -1e4f, 1e4f, 0, -1e4f}, {0, 1});
  // ln(1 + e^-10000 + ...) = 0 for the first, 10000 for the second
  CHECK(evaluation.loss_sum == Approx(1e4));
  CHECK(evaluation.correct == 1);
}

TEST_CASE("a diverged model shows in the loss", "[network]") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {kNan, kInfinity}) {
    Identity model;
    model.parameters[0] = bad;
    CHECK(std::isnan(model.evaluate({1, 2, 3}, {1}).loss_sum));

    // through relu and pooling
    const ModelSpec spec{
        {4, 4, 1}, {{kConv2d, 3, 3}, {kRelu}, {kMaxPool2d, 0, 2}, {kFlatten}, {kDense, 3, 0}}};
    const auto network = Network::make(spec).value();
    auto problem = reference::random_problem(spec, 2, 1);
    problem.parameters[4] = bad;
    problem.parameters[27] = bad;  // conv1.bias[0]
    Workspace workspace(network, 2);
    CHECK_FALSE(std::isfinite(
        network.evaluate(workspace, problem.inputs, problem.labels, problem.parameters).loss_sum));
  }
}

TEST_CASE("an example's evaluation does not depend on its batch", "[network]") {
  const ModelSpec spec{{12, 12, 1},
                       {{kConv2d, 8, 5}, {kRelu}, {kMaxPool2d, 0, 2}, {kFlatten}, {kDense, 10, 0}}};
  constexpr std::uint64_t kSeed = 4;
  constexpr std::size_t kBatch = 60;
  const auto network = Network::make(spec).value();
  const auto problem = reference::random_problem(spec, kBatch, kSeed);
  Workspace workspace(network, kBatch);
  const Evaluation whole =
      network.evaluate(workspace, problem.inputs, problem.labels, problem.parameters);
  Evaluation sum;
  for (std::size_t b = 0; b < kBatch; ++b) {
    const Evaluation one = network.evaluate(
        workspace, std::span(problem.inputs).subspan(b * network.inputs(), network.inputs()),
        std::span(problem.labels).subspan(b, 1), problem.parameters);
    sum.loss_sum += one.loss_sum;
    sum.correct += one.correct;
  }
  CHECK(whole.loss_sum == sum.loss_sum);
  CHECK(whole.correct == sum.correct);
}
