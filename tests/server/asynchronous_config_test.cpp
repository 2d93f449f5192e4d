#include <catch2/catch.hpp>
#include <covey/run_config.hpp>
#include <covey/server/asynchronous.hpp>
#include <covey/strategies/registry.hpp>
#include <string>
#include <vector>

using namespace covey;
using Catch::Matchers::Contains;

namespace {

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const auto config = parse_run_text(text, "run.toml", overrides);
  return config.ok() ? "(no error)" : config.error().message;
}

std::string error_with(RunConfig config, std::string_view strategy,
                       std::uint32_t population = 100) {
  auto made = strategies::Registry::with_built_ins().make(strategy, {});
  REQUIRE(made.ok());
  const auto checked = server::check_asynchronous(config, **made, population);
  return checked.ok() ? "(no error)" : checked.error().message;
}

}  // namespace

TEST_CASE("what needs a cohort is refused with asynchronous aggregation, naming the key") {
  const std::string asynchronous = "[asynchronous]\nbuffer = 4\n";
  CHECK(error_of(asynchronous) == "(no error)");
  CHECK_THAT(error_of(asynchronous + "[secure-aggregation]\nmode = \"honest-but-curious\"\n"
                                     "max-weight = 600\n"),
             Contains("run.toml:4: secure-aggregation.mode") && Contains("asynchronous.buffer"));
  CHECK_THAT(error_of(asynchronous + "[privacy]\nmechanism = \"central-gaussian\"\n"
                                     "noise-multiplier = 1\n"),
             Contains("privacy.mechanism") && Contains("local-gaussian"));
  CHECK(error_of(asynchronous + "[privacy]\nmechanism = \"local-gaussian\"\n"
                                "noise-multiplier = 1\n") == "(no error)");
  for (const std::string policy : {"poisson", "by-examples"}) {
    CHECK_THAT(error_of(asynchronous + "[selection]\npolicy = \"" + policy + "\"\n"),
               Contains("run.toml:4: selection.policy") && Contains(policy));
  }
}

TEST_CASE("keys of cohorts say nothing in asynchronous aggregation, and are refused") {
  const std::string asynchronous = "[asynchronous]\nbuffer = 4\n";
  CHECK_THAT(error_of(asynchronous + "[selection]\nquorum = 0.5\n"),
             Contains("selection.quorum") && Contains("asynchronous.buffer = 0"));
  CHECK_THAT(error_of(asynchronous + "[selection]\nover-selection = 1.3\n"),
             Contains("selection.over-selection") && Contains("asynchronous.buffer = 0"));
  CHECK(error_of(asynchronous + "[selection]\nfraction-fit = 0.5\n") == "(no error)");
  CHECK_THAT(error_of(asynchronous + "concurrency = 8\n[selection]\nfraction-fit = 0.5\n"),
             Contains("selection.fraction-fit") && Contains("asynchronous.concurrency = 0"));
  CHECK_THAT(error_of("[selection]\nquorum = 0.5\n", {"asynchronous.buffer=2"}),
             Contains("selection.quorum"));
}

TEST_CASE("keys of asynchronous aggregation say nothing without it, or in another course") {
  CHECK_THAT(error_of("[asynchronous]\nmax-staleness = 3\n"),
             Contains("run.toml:2: asynchronous.max-staleness") &&
                 Contains("asynchronous.buffer above 0"));
  CHECK_THAT(error_of("[asynchronous]\nbuffer = 2\nhinge-from = 3\n"),
             Contains("asynchronous.hinge-from") && Contains("\"hinge\""));
  CHECK_THAT(error_of("[asynchronous]\nbuffer = 2\nstaleness = \"hinge\"\nexponent = 1\n"),
             Contains("asynchronous.exponent") && Contains("\"polynomial\""));
  CHECK(error_of("[asynchronous]\nbuffer = 2\nstaleness = \"hinge\"\nhinge-slope = 1\n") ==
        "(no error)");
}

TEST_CASE("a strategy that cannot run asynchronously is refused at start") {
  RunConfig config;
  config.asynchronous.buffer = 4;
  for (const char* name : {"fedavg", "fedprox", "qfedavg", "fedbuff"}) {
    CHECK(error_with(config, name) == "(no error)");
  }
  CHECK_THAT(error_with(config, "fedmedian"),
             Contains("fedmedian") && Contains("asynchronous.buffer = 0"));
  CHECK_THAT(error_with(config, "fedasync"), Contains("asynchronous.buffer = 1, not 4"));
  config.asynchronous.buffer = 1;
  CHECK(error_with(config, "fedasync") == "(no error)");
  config.client.classes.emplace_back().width = 0.5;
  CHECK_THAT(error_with(config, "fedasync"), Contains("client.class.*.width"));
  config.client.classes.clear();
  config.asynchronous.buffer = 0;
  CHECK_THAT(error_with(config, "fedasync"), Contains("asynchronous.buffer = 1, not 0"));
  CHECK(error_with(config, "fedmedian") == "(no error)");
  CHECK(error_with(config, "fedbuff") == "(no error)");
}

TEST_CASE("a buffer or a concurrency of more devices than there are is refused at start") {
  RunConfig config;
  config.asynchronous.buffer = 8;
  CHECK(error_with(config, "fedbuff", 8) == "(no error)");
  CHECK_THAT(error_with(config, "fedbuff", 7), Contains("asynchronous.buffer = 8"));
  config.asynchronous.concurrency = 9;
  CHECK_THAT(error_with(config, "fedbuff", 8), Contains("asynchronous.concurrency = 9"));
}
