#include <algorithm>
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
double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

}  // namespace

TEST_CASE("the reference gradient agrees with central differences", "[network]") {
  constexpr double kStep = 1e-6;
  constexpr std::size_t kProbes = 40;
  const std::uint64_t seed = GENERATE(1, 2);
  for (const auto& [name, spec] : reference::all_specs()) {
    CAPTURE(seed, name);
    const auto problem = reference::random_problem(spec, 3, seed);
    std::vector<double> w = problem.exact();
    const auto exact = reference::loss_and_gradient(spec, w, problem.inputs, problem.labels);
    RandomStream random(seed, RandomPurpose::kSelection);
    for (std::size_t probe = 0; probe < kProbes; ++probe) {
      const auto i = static_cast<std::size_t>(random.below(w.size()));
      const double before = w[i];
      w[i] = before + kStep;
      const double above =
          reference::loss_and_gradient(spec, w, problem.inputs, problem.labels).loss;
      w[i] = before - kStep;
      const double below =
          reference::loss_and_gradient(spec, w, problem.inputs, problem.labels).loss;
      w[i] = before;
      CAPTURE(i);
      // Truncation is of order kStep^2, rounding of order 1e-16 / kStep.
      CHECK((above - below) / (2 * kStep) == Approx(exact.gradient[i]).epsilon(1e-6).margin(2e-9));
    }
  }
}

TEST_CASE("the engine's loss and gradient agree with the reference", "[network]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const std::size_t batch = GENERATE(1u, 3u, 10u, 17u, 37u);
  constexpr std::uint64_t kSeed = 7;
  const reference::InstructionSet scope(isa);
  for (const auto& [name, spec] : reference::all_specs()) {
    CAPTURE(isa, batch, name, kSeed);
    const auto network = Network::make(spec);
    REQUIRE(network.ok());
    const auto problem = reference::random_problem(spec, batch, kSeed);
    REQUIRE(problem.parameters.size() == network->num_parameters());
    Workspace workspace(*network, batch);
    std::vector<float> gradient(network->num_parameters(), 1e9f);
    const double loss =
        network->gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
    const auto exact =
        reference::loss_and_gradient(spec, problem.exact(), problem.inputs, problem.labels);
    CHECK(loss == Approx(exact.loss).epsilon(1e-6));
    const double scale = largest(exact.gradient);
    double worst = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(gradient[i]) - exact.gradient[i]));
    }
    CHECK(worst <= 1e-5 * scale);

    const Evaluation evaluation =
        network->evaluate(workspace, problem.inputs, problem.labels, problem.parameters);
    const auto evaluated =
        reference::loss_and_gradient(spec, problem.exact(), problem.inputs, problem.labels, false);
    CHECK(evaluation.correct == evaluated.correct);
    CHECK(evaluation.examples == evaluated.targets);
    CHECK(evaluation.loss() == Approx(evaluated.loss).epsilon(1e-6));
  }
}

TEST_CASE("a workspace used for one batch leaves nothing behind for the next", "[network]") {
  constexpr std::uint64_t kSeed = 11;
  for (const auto& [name, spec] : reference::all_specs()) {
    CAPTURE(name, kSeed);
    const auto network = Network::make(spec);
    REQUIRE(network.ok());
    const auto first = reference::random_problem(spec, 20, kSeed);
    const auto second = reference::random_problem(spec, 3, kSeed + 1);
    Workspace used(*network, 20);
    Workspace fresh(*network, 20);
    std::vector<float> gradient(network->num_parameters());
    std::vector<float> expected(network->num_parameters());
    network->gradient(used, first.inputs, first.labels, first.parameters, gradient);
    network->gradient(used, second.inputs, second.labels, second.parameters, gradient);
    network->gradient(fresh, second.inputs, second.labels, second.parameters, expected);
    CHECK(gradient == expected);
  }
}
