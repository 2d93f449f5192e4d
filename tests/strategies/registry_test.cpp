#include <catch2/catch.hpp>
#include <covey/strategies/registry.hpp>
#include <limits>
#include <stdexcept>

using namespace covey;
using namespace covey::strategies;
using Catch::Matchers::Contains;

TEST_CASE("the built-in strategies are made by name and know their names") {
  const Registry registry = Registry::with_built_ins();
  CHECK(registry.names() == std::vector<std::string>{"fedasync", "fedavg", "fedbuff", "fedmedian",
                                                     "fedprox", "qfedavg"});
  for (const auto& name : registry.names()) {
    INFO(name);
    const auto made = registry.make(name, {});
    REQUIRE(made.ok());
    CHECK((*made)->name() == name);
  }
}

TEST_CASE("an unknown strategy is refused with the names there are") {
  const auto made = Registry::with_built_ins().make("fedsgd", {});
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().code == ErrorCode::kInvalidArgument);
  CHECK_THAT(
      made.error().message,
      Contains("\"fedsgd\"") && Contains("fedasync, fedavg, fedbuff, fedmedian, fedprox, qfedavg"));
}

TEST_CASE("an unknown parameter is refused with the ones there are") {
  const auto made = Registry::with_built_ins().make("fedprox", {{"mu", 1.0}});
  REQUIRE_FALSE(made.ok());
  CHECK_THAT(made.error().message,
             Contains("fedprox") && Contains("\"mu\"") && Contains("proximal-mu"));
  const auto plain = Registry::with_built_ins().make("fedavg", {{"q", 1.0}});
  REQUIRE_FALSE(plain.ok());
  CHECK_THAT(plain.error().message, Contains("it takes none"));
}

TEST_CASE("a parameter out of range, not a number, or given twice is refused") {
  const Registry registry = Registry::with_built_ins();
  CHECK_FALSE(registry.make("fedprox", {{"proximal-mu", -0.5}}).ok());
  CHECK_FALSE(registry.make("qfedavg", {{"q", std::numeric_limits<double>::quiet_NaN()}}).ok());
  CHECK_FALSE(registry.make("qfedavg", {{"q", 1.0}, {"q", 2.0}}).ok());
  const auto made = registry.make("qfedavg", {{"q", 101.0}});
  REQUIRE_FALSE(made.ok());
  CHECK_THAT(made.error().message, Contains("q = 101") && Contains("between 0 and 100"));
}

TEST_CASE("both ends of a parameter's range are allowed") {
  CHECK(Registry::with_built_ins().make("qfedavg", {{"q", 0.0}}).ok());
  CHECK(Registry::with_built_ins().make("qfedavg", {{"q", 100.0}}).ok());
}

TEST_CASE("a name is taken once and the first factory stays") {
  Registry registry = Registry::with_built_ins();
  const auto other = [](const Parameters&) -> Result<std::unique_ptr<Strategy>> {
    return failed("the other one");
  };
  const auto added = registry.add("fedavg", other);
  REQUIRE_FALSE(added.ok());
  CHECK_THAT(added.error().message, Contains("fedavg"));
  CHECK(registry.make("fedavg", {}).ok());
  CHECK_FALSE(registry.add("", other).ok());
  CHECK_FALSE(registry.add("nothing", nullptr).ok());
}

TEST_CASE("a factory that throws or makes nothing becomes an error") {
  Registry registry;
  REQUIRE(registry
              .add("throws",
                   [](const Parameters&) -> Result<std::unique_ptr<Strategy>> {
                     throw std::runtime_error("out of luck");
                   })
              .ok());
  REQUIRE(registry
              .add("nothing",
                   [](const Parameters&) -> Result<std::unique_ptr<Strategy>> {
                     return std::unique_ptr<Strategy>();
                   })
              .ok());
  const auto thrown = registry.make("throws", {});
  REQUIRE_FALSE(thrown.ok());
  CHECK_THAT(thrown.error().message, Contains("throws") && Contains("out of luck"));
  CHECK_FALSE(registry.make("nothing", {}).ok());
}
