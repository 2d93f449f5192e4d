#include <catch2/catch.hpp>
#include <covey/strategies/registry.hpp>
#include <covey/strategies/staleness.hpp>
#include <vector>

using namespace covey;
using namespace covey::strategies;
using Catch::Matchers::Contains;

namespace {

std::unique_ptr<Strategy> make(const Parameters& parameters = {}) {
  auto made = Registry::with_built_ins().make("fedbuff", parameters);
  REQUIRE(made.ok());
  return std::move(made).value();
}

}  // namespace

TEST_CASE("FedBuff weighs every device alike, or by examples when asked to") {
  LocalOutcome outcome;
  outcome.num_examples = 600;
  CHECK(make()->weigh(outcome).value().weight == 1);
  CHECK(make({{"by-examples", 0}})->weigh(outcome).value().weight == 1);
  CHECK(make({{"by-examples", 1}})->weigh(outcome).value().weight == 600);
}

TEST_CASE("FedBuff applies eta times the mean, divided by the weights without their staleness") {
  auto strategy = make({{"eta", 0.25}});
  const std::vector<double> sum{8, -16};
  std::vector<float> w{1, 2};
  auto& server = dynamic_cast<SumStrategy&>(*strategy);
  REQUIRE(server.apply({.vector = sum, .weight = 4, .scalars = {}, .count = 4}, {w, {}}).ok());
  CHECK(w == std::vector<float>{1.5f, 1.0f});  // 1 + 0.25 * 8/4, 2 - 0.25 * 16/4
  CHECK_FALSE(server.needs_base());
  const auto none = server.apply({.vector = sum, .weight = 0, .scalars = {}, .count = 4}, {w, {}});
  CHECK_FALSE(none.ok());
  CHECK(w == std::vector<float>{1.5f, 1.0f});
}

TEST_CASE("a FedBuff parameter that makes no sense is refused by name") {
  const Registry registry = Registry::with_built_ins();
  CHECK_THAT(registry.make("fedbuff", {{"by-examples", 0.5}}).error().message,
             Contains("by-examples = 0.5"));
  CHECK_THAT(registry.make("fedbuff", {{"eta", -1}}).error().message, Contains("eta = -1"));
}

TEST_CASE("the weight of staleness falls from 1 and stays above 0") {
  for (const char* course : {"constant", "polynomial", "hinge"}) {
    CAPTURE(course);
    AsynchronousConfig config;
    config.staleness = course;
    double last = staleness_weight(config, 0);
    CHECK(last == 1);
    for (std::uint32_t t = 1; t < 1000; ++t) {
      const double weight = staleness_weight(config, t);
      CHECK(weight <= last);
      CHECK(weight > 0);
      last = weight;
    }
  }
}

TEST_CASE("the weight of staleness is the papers'") {
  AsynchronousConfig config;
  CHECK(staleness_weight(config, 3) == 0.5);  // FedBuff: 1 / sqrt(1 + t)
  CHECK(staleness_weight(config, 15) == 0.25);
  config.exponent = 1;
  CHECK(staleness_weight(config, 3) == 0.25);  // FedAsync: (t + 1)^-a
  config.staleness = "hinge";                  // FedAsync: a = 10, b = 4
  CHECK(staleness_weight(config, 4) == 1);
  CHECK(staleness_weight(config, 5) == 1.0 / 11);
}
