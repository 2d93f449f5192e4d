#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/random.hpp>
#include <covey/server/update_pipeline.hpp>
#include <covey/strategies/registry.hpp>

#include "pipeline_fixture.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using Catch::Matchers::Contains;

namespace {

UpdatePipeline pipeline_of(std::unique_ptr<strategies::Strategy> strategy, std::size_t size,
                           AsynchronousConfig asynchronous, std::vector<float> model = {}) {
  auto format = format_of(size);
  format.asynchronous = std::move(asynchronous);
  ParameterVector parameters(size);
  std::ranges::copy(model, parameters.span().begin());
  auto made = UpdatePipeline::make(std::move(strategy), std::move(parameters), {}, format);
  REQUIRE(made.ok());
  return std::move(made).value();
}

std::unique_ptr<strategies::Strategy> strategy(std::string_view name,
                                               const strategies::Parameters& parameters = {}) {
  auto made = strategies::Registry::with_built_ins().make(name, parameters);
  REQUIRE(made.ok());
  return std::move(made).value();
}

JudgeUpdate stale_update(std::uint64_t client, const SharedBytes& bytes, std::uint32_t staleness,
                         double weight = 1) {
  JudgeUpdate action;
  action.key.client = ClientId{client};
  action.report = report_for(bytes, weight);
  action.staleness = staleness;
  return action;
}

}  // namespace

TEST_CASE("a stale update enters the sum by its staleness, its weight enters as it is") {
  AsynchronousConfig config;  // polynomial, 1/2
  auto pipeline = pipeline_of(strategy("fedavg"), 2, config);
  const auto fresh = encoded({4.0f, 8.0f});
  const auto stale = encoded({16.0f, -8.0f});
  REQUIRE_FALSE(pipeline.judge(stale_update(1, fresh, 0, 2), fresh));
  REQUIRE_FALSE(pipeline.judge(stale_update(2, stale, 3, 6), stale));
  REQUIRE(pipeline.apply().ok());
  // s(3) = 1/2: (2*4 + 6*16/2) / 8 = 7; (2*8 - 6*8/2) / 8 = -1. Not divided by 2 + 6/2.
  CHECK(values_of(pipeline.model()) == std::vector<float>{7.0f, -1.0f});
}

TEST_CASE("each course of staleness counts as its formula says") {
  struct Case {
    const char* staleness;
    std::uint32_t t;
    float expected;  // of an update of 120
  };
  // exponent 2; hinge 1 / (3 (t - 2) + 1).
  const Case cases[] = {{"constant", 50, 120},   {"polynomial", 0, 120}, {"polynomial", 1, 30},
                        {"polynomial", 9, 1.2f}, {"hinge", 2, 120},      {"hinge", 3, 30},
                        {"hinge", 5, 12}};
  for (const Case& c : cases) {
    CAPTURE(c.staleness, c.t);
    AsynchronousConfig config;
    config.staleness = c.staleness;
    config.exponent = 2;
    config.hinge_slope = 3;
    config.hinge_from = 2;
    auto pipeline = pipeline_of(strategy("fedbuff"), 1, config);
    const auto bytes = encoded({120.0f});
    REQUIRE_FALSE(pipeline.judge(stale_update(1, bytes, c.t), bytes));
    REQUIRE(pipeline.apply().ok());
    CHECK(pipeline.model().span()[0] == c.expected);
  }
}

TEST_CASE("FedBuff moves the model by eta times the mean of the scaled updates") {
  auto pipeline = pipeline_of(strategy("fedbuff", {{"eta", 0.5}}), 2, {}, {1.0f, 1.0f});
  const auto a = encoded({4.0f, 0.0f});
  const auto b = encoded({8.0f, -16.0f});
  REQUIRE_FALSE(pipeline.judge(stale_update(1, a, 0), a));
  REQUIRE_FALSE(pipeline.judge(stale_update(2, b, 3), b));
  REQUIRE(pipeline.apply().ok());
  // 1 + 0.5 (4 + 8/2) / 2 = 3; 1 + 0.5 (0 - 16/2) / 2 = -1
  CHECK(values_of(pipeline.model()) == std::vector<float>{3.0f, -1.0f});
}

TEST_CASE("FedAsync mixes the device's model into the one that is there now") {
  auto pipeline = pipeline_of(strategy("fedasync", {{"alpha", 0.5}}), 2, {}, {8.0f, 2.0f});
  const auto update = encoded({2.0f, -1.0f});
  JudgeUpdate action = stale_update(1, update, 3);
  action.base = encoded({6.0f, 3.0f});  // three models ago
  REQUIRE_FALSE(pipeline.judge(action, update));
  REQUIRE(pipeline.apply().ok());
  // alpha_t = 0.5 / sqrt(4) = 0.25; x_new = base + update = (8, 2), which is where the model is.
  CHECK(values_of(pipeline.model()) == std::vector<float>{8.0f, 2.0f});

  action.base = encoded({2.0f, 11.0f});
  REQUIRE_FALSE(pipeline.judge(action, update));
  REQUIRE(pipeline.apply().ok());
  // x_new = (4, 10): 0.75 * 8 + 0.25 * 4 = 7; 0.75 * 2 + 0.25 * 10 = 4
  CHECK(values_of(pipeline.model()) == std::vector<float>{7.0f, 4.0f});
}

TEST_CASE("FedAsync without the model that an update began with counts nothing") {
  auto pipeline = pipeline_of(strategy("fedasync"), 2, {});
  const auto update = encoded({2.0f, -1.0f});
  const auto rejection = pipeline.judge(stale_update(1, update, 1), update);
  REQUIRE(rejection);
  CHECK(rejection->first == RejectReason::kServerFailed);
  CHECK(pipeline.counted().empty());
}

TEST_CASE("FedAsync moves by one update only") {
  auto pipeline = pipeline_of(strategy("fedasync"), 1, {});
  const auto update = encoded({2.0f});
  for (std::uint64_t client = 1; client <= 2; ++client) {
    JudgeUpdate action = stale_update(client, update, 0);
    action.base = encoded({0.0f});
    REQUIRE_FALSE(pipeline.judge(action, update));
  }
  const auto applied = pipeline.apply();
  REQUIRE_FALSE(applied.ok());
  CHECK_THAT(applied.error().message, Contains("one update"));
}

TEST_CASE("the order in which stale updates arrive does not change a bit of the model") {
  constexpr std::size_t kUpdates = 12;
  constexpr std::size_t kSize = 257;
  constexpr std::uint64_t kSeed = 11;
  CAPTURE(kSeed);
  RandomStream random(kSeed, RandomPurpose::kTraining);
  std::vector<SharedBytes> updates;
  std::vector<JudgeUpdate> actions;
  for (std::uint64_t k = 0; k < kUpdates; ++k) {
    std::vector<float> values(kSize);
    for (float& value : values) value = static_cast<float>(random.normal());
    updates.push_back(encoded(values));
    actions.push_back(stale_update(k + 1, updates.back(), static_cast<std::uint32_t>(7 * k % 31),
                                   random.uniform(0.1, 50)));
  }
  const auto model_after = [&](const std::vector<std::size_t>& order) {
    auto pipeline = pipeline_of(strategy("fedbuff", {{"by-examples", 1}}), kSize, {});
    for (const std::size_t k : order) {
      const auto rejection = pipeline.judge(actions[k], updates[k]);
      REQUIRE_FALSE(rejection);
    }
    const auto model = pipeline.apply();
    REQUIRE(model.ok());
    return model->parameters.digest();
  };
  std::vector<std::size_t> order(kUpdates);
  for (std::size_t k = 0; k < kUpdates; ++k) order[k] = k;
  const Digest expected = model_after(order);
  for (int times = 0; times < 20; ++times) {
    random.shuffle(std::span(order));
    CHECK(model_after(order) == expected);
  }
}
