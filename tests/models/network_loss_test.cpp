#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <string>
#include <vector>

#include "network_reference.hpp"
#include "network_specs.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::reference;

/// Outputs are the inputs: W = I, bias = 0.
struct Identity {
  Network network;
  Workspace workspace{network, 8};
  std::vector<float> parameters = std::vector<float>(network.num_parameters(), 0.0f);

  Identity(std::uint32_t outputs, Loss loss, Target target = Target::kLabel)
      : network(Network::make({{outputs}, {dense(outputs)}, loss, target}).value()) {
    for (std::size_t o = 0; o < outputs; ++o) parameters[o * outputs + o] = 1;
  }
  Evaluation evaluate(const std::vector<float>& outputs, const std::vector<std::int32_t>& labels) {
    return network.evaluate(workspace, outputs, labels, parameters);
  }
};

}  // namespace

TEST_CASE("squared errors are means over outputs, one number is right when nearest", "[network]") {
  Identity number(1, Loss::kMeanSquaredError);
  const Evaluation one = number.evaluate({2.4f, 2.6f, -1}, {2, 2, 0});
  CHECK(one.loss_sum == Approx(0.16 + 0.36 + 1));
  CHECK(one.correct == 1);
  Identity classes(2, Loss::kMeanSquaredError);
  const Evaluation two = classes.evaluate({0.5f, 0.25f, 0, 1}, {0, 1});
  CHECK(two.loss_sum == Approx((0.25 + 0.0625) / 2));
  CHECK(two.correct == 2);
}

TEST_CASE("logistic losses are finite for extreme logits", "[network]") {
  Identity model(1, Loss::kBinaryCrossEntropy);
  const Evaluation result = model.evaluate({100, -100, 100, 0}, {1, 0, 0, 1});
  CHECK(result.loss_sum == Approx(100 + std::log(2.0)));
  CHECK(result.correct == 2);  // a logit of 0 counts as class 0
}

TEST_CASE("an autoencoder needs no labels and has no right or wrong", "[network]") {
  Identity model(3, Loss::kMeanSquaredError, Target::kInput);
  model.parameters[0] = 2;  // the first output is twice its input
  const Evaluation result = model.evaluate({3, 1, 1, 0, 5, 6}, {-1, -1});
  CHECK(result.loss_sum == Approx(3.0));  // 3^2 / 3
  CHECK(result.examples == 2);
  CHECK(result.correct == 0);
}

TEST_CASE("predictions without a target teach nothing and are not counted", "[network]") {
  constexpr std::uint64_t kSeed = 71;
  struct Case {
    ModelSpec spec;
    std::size_t predictions;
  };
  const std::vector<Case> cases{
      {{{6}, {dense(5), {kTanh}, dense(4)}}, 1},
      {{{6}, {dense(5), {kTanh}, dense(4)}, Loss::kMeanSquaredError}, 1},
      {{{6}, {dense(5), {kTanh}, dense(1)}, Loss::kBinaryCrossEntropy}, 1},
      {{{4, 6}, {dense(5), {kTanh}, dense(4)}}, 4}};
  for (const auto& [spec, predictions] : cases) {
    const Network network = Network::make(spec).value();
    CHECK(network.predictions() == predictions);
    Problem problem = random_problem(spec, 6, kSeed);
    Workspace workspace(network, 6);
    std::vector<float> all(network.num_parameters()), none(network.num_parameters());
    // the second half has no targets: as if it were not there
    const std::size_t half = problem.labels.size() / 2;
    for (std::size_t i = half; i < problem.labels.size(); ++i) problem.labels[i] = -1;
    const double loss =
        network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, all);
    const double expected =
        network.gradient(workspace, std::span(problem.inputs).first(problem.inputs.size() / 2),
                         std::span(problem.labels).first(half), problem.parameters, none);
    CAPTURE(kSeed, to_string(spec.loss), predictions);
    CHECK(loss == expected);
    double worst = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(all[i] - none[i])));
    }
    CHECK(worst < 1e-7);

    std::ranges::fill(problem.labels, -1);
    std::vector<float> w = problem.parameters;
    CHECK(network.train_step(workspace, problem.inputs, problem.labels, w, {}) == 0);
    CHECK(w == problem.parameters);
    CHECK(network.evaluate(workspace, problem.inputs, problem.labels, w).examples == 0);
  }
}
