#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <covey/strategies/plugin.hpp>
#include <string>

using namespace covey;
using namespace covey::strategies;
using Catch::Matchers::Contains;

namespace {

std::string plugin(const std::string& name) {
  return std::string(COVEY_TEST_PLUGINS) + "/" + name + ".so";
}

Error refusal(const std::string& path) {
  Registry registry = Registry::with_built_ins();
  const auto before = registry.names();
  const auto loaded = registry.load_plugin(path);
  REQUIRE_FALSE(loaded.ok());
  CHECK(registry.names() == before);
  return loaded.error();
}

}  // namespace

TEST_CASE("a plug-in's sum strategy runs in the host and keeps its state in the server's model") {
  Registry registry = Registry::with_built_ins();
  REQUIRE(registry.load_plugin(plugin("good")).ok());
  auto strategy = std::move(registry.make("half-step", {})).value();
  auto* sums = dynamic_cast<SumStrategy*>(strategy.get());
  REQUIRE(sums != nullptr);
  CHECK(dynamic_cast<IndividualStrategy*>(strategy.get()) == nullptr);
  CHECK(sums->state_size(2) == 2);
  std::array<float, 2> parameters{1, 2}, state{};
  const std::array<double, 2> vector{8, -4};
  // w + (1/2) * sum / weight = {1 + 8/4/2, 2 - 4/4/2}
  REQUIRE(
      sums->apply({.vector = vector, .weight = 4, .scalars = {}, .count = 1}, {parameters, state})
          .ok());
  CHECK(parameters == std::array<float, 2>{2, 1.5});
  CHECK(state == std::array<float, 2>{1, 1});
}

TEST_CASE("the host recognises a plug-in's individual strategy") {
  Registry registry = Registry::with_built_ins();
  REQUIRE(registry.load_plugin(plugin("good")).ok());
  auto strategy = std::move(registry.make("first-update", {})).value();
  CHECK(dynamic_cast<IndividualStrategy*>(strategy.get()) != nullptr);
  CHECK(dynamic_cast<SumStrategy*>(strategy.get()) == nullptr);
}

TEST_CASE("a plug-in's refusal of a parameter reaches the host as a sentence") {
  Registry registry;
  REQUIRE(registry.load_plugin(plugin("good")).ok());
  const auto made = registry.make("half-step", {{"beta", 1.0}});
  REQUIRE_FALSE(made.ok());
  CHECK_THAT(made.error().message, Contains("beta"));
}

TEST_CASE("loading a plug-in twice says that its strategy is there already") {
  Registry registry;
  REQUIRE(registry.load_plugin(plugin("good")).ok());
  const auto again = registry.load_plugin(plugin("good"));
  REQUIRE_FALSE(again.ok());
  CHECK_THAT(again.error().message, Contains("half-step"));
}

TEST_CASE("a plug-in that does not exist is refused by its path") {
  const Error error = refusal("no/such/plugin.so");
  CHECK(error.code == ErrorCode::kNotFound);
  CHECK_THAT(error.message, Contains("no/such/plugin.so"));
}

TEST_CASE("a file that is no shared library is refused with the loader's reason") {
  const Error error = refusal(__FILE__);
  CHECK(error.code == ErrorCode::kInvalidArgument);
  CHECK_THAT(error.message, Contains(__FILE__) && Contains("cannot be loaded"));
}

TEST_CASE("a shared library that is no plug-in is refused naming what it lacks") {
  CHECK_THAT(refusal(plugin("no_entry")).message, Contains("COVEY_STRATEGY_PLUGIN"));
}

TEST_CASE("a plug-in of another interface is refused naming both numbers") {
  CHECK_THAT(refusal(plugin("wrong_interface")).message,
             Contains("interface 999") && Contains("has " + std::to_string(kPluginInterface)));
}

TEST_CASE("a plug-in of another compiler is refused naming both builds") {
  CHECK_THAT(refusal(plugin("wrong_fingerprint")).message,
             Contains("quux 7") && Contains(kPluginFingerprint));
}

TEST_CASE("an exception during registration stays in the plug-in and becomes a sentence") {
  CHECK_THAT(refusal(plugin("throwing")).message, Contains("no licence for this strategy"));
}

TEST_CASE("a registration that fails half-way leaves no strategy behind") {
  CHECK_THAT(refusal(plugin("refusing")).message, Contains("fedavg"));
}

TEST_CASE("a long reason is cut, not overrun") {
  std::array<char, 8> problem{};
  problem.back() = 'x';
  Registry registry;
  const auto refuse = [](Registry&) -> Result<void> { return failed("0123456789"); };
  CHECK_FALSE(run_plugin_registration(+refuse, registry, problem.data(), problem.size() - 1));
  CHECK(std::string(problem.data()) == "012345");
  CHECK(problem.back() == 'x');
}
