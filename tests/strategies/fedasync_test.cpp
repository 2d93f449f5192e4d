#include <catch2/catch.hpp>
#include <covey/strategies/registry.hpp>
#include <vector>

using namespace covey;
using namespace covey::strategies;
using Catch::Matchers::Contains;

TEST_CASE("FedAsync asks for the base and weighs every device alike") {
  auto made = Registry::with_built_ins().make("fedasync", {{"proximal-mu", 0.25}});
  REQUIRE(made.ok());
  const auto& strategy = dynamic_cast<const SumStrategy&>(**made);
  CHECK(strategy.needs_base());
  LocalOutcome outcome;
  outcome.num_examples = 600;
  CHECK(strategy.weigh(outcome).value().weight == 1);
  CHECK(strategy.local_rule().proximal_mu == 0.25f);
}

TEST_CASE("FedAsync goes alpha of the way that is left by staleness") {
  auto made = Registry::with_built_ins().make("fedasync", {});
  REQUIRE(made.ok());
  auto& strategy = dynamic_cast<SumStrategy&>(**made);
  // Xie et al. 2019, Algorithm 1, alpha = 0.6, s = 1/2, model 10, x_new = 20: 0.7 * 10 + 0.3 * 20.
  const std::vector<double> sum{0.5 * (20 - 10)};
  std::vector<float> w{10};
  REQUIRE(strategy.apply({.vector = sum, .weight = 1, .scalars = {}, .count = 1}, {w, {}}).ok());
  CHECK(w[0] == 13.0f);
  CHECK_FALSE(
      strategy.apply({.vector = sum, .weight = 2, .scalars = {}, .count = 2}, {w, {}}).ok());
  CHECK_FALSE(
      strategy.apply({.vector = sum, .weight = 0, .scalars = {}, .count = 1}, {w, {}}).ok());
  CHECK(w[0] == 13.0f);
}

TEST_CASE("a FedAsync parameter that makes no sense is refused by name") {
  const Registry registry = Registry::with_built_ins();
  CHECK_THAT(registry.make("fedasync", {{"alpha", 0}}).error().message, Contains("alpha = 0"));
  CHECK_THAT(registry.make("fedasync", {{"alpha", 1.5}}).error().message, Contains("alpha = 1.5"));
}
