#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/random.hpp>
#include <covey/server/update_pipeline.hpp>
#include <cstring>
#include <limits>

#include "pipeline_fixture.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("accepted updates move the model by their weighted mean") {
  auto pipeline = make_pipeline(std::make_unique<MeanStrategy>(), 2);
  const auto first = encoded({1.0f, -2.0f});
  const auto second = encoded({5.0f, 2.0f});
  REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(first, 3), first));
  REQUIRE_FALSE(pipeline.judge(ClientId{2}, report_for(second, 1), second));
  const auto model = pipeline.apply();
  REQUIRE(model.ok());
  // (3*1 + 1*5) / 4 = 2; (3*-2 + 1*2) / 4 = -1
  const std::vector<float> expected{2.0f, -1.0f};
  CHECK(values_of(pipeline.model()) == expected);
  CHECK(std::ranges::equal(model->parameters.span(), encode_fp32(expected).span()));
  CHECK(model->sent.data() == model->parameters.data());  // fp32 devices are sent the same bytes
  CHECK(pipeline.state()[0] == 1.0f);
}

TEST_CASE("an update that is refused says why and changes nothing") {
  struct Case {
    const char* what;
    RejectReason reason;
    std::vector<float> values;
    double weight = 1;
    std::vector<double> scalars = {0.0};
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<Case> cases{
      {"too few parameters", RejectReason::kWrongSize, {1.0f, 1.0f}},
      {"too many parameters", RejectReason::kWrongSize, std::vector<float>(18, 1.0f)},
      {"a NaN in the vector part", RejectReason::kNotFinite, {kNan}},
      {"an infinity", RejectReason::kNotFinite, {0.0f, kInfinity}},
      {"a negative infinity", RejectReason::kNotFinite, {0.0f, -kInfinity}},
      {"a NaN weight", RejectReason::kNotFinite, {1.0f}, nan},
      {"an infinite weight", RejectReason::kNotFinite, {1.0f}, HUGE_VAL},
      {"a negative weight", RejectReason::kMalformed, {1.0f}, -1.0},
      {"no scalar", RejectReason::kMalformed, {1.0f}, 1.0, {}},
      {"two scalars", RejectReason::kMalformed, {1.0f}, 1.0, {1.0, 2.0}},
      {"a NaN scalar", RejectReason::kNotFinite, {1.0f}, 1.0, {nan}},
      {"a scalar too large to sum", RejectReason::kOverNorm, {1.0f}, 1.0, {1e300}},
      {"a value too large to sum", RejectReason::kOverNorm, {1e30f}},
      {"a weight too large to sum", RejectReason::kOverNorm, {1.0f}, 1e300},
  };
  const std::size_t size = 17;  // one more than the lanes of the finiteness check
  for (const Case& bad : cases) {
    INFO(bad.what);
    auto pipeline = make_pipeline(std::make_unique<MeanStrategy>(1), size);
    const auto good = encode_fp32(std::vector<float>(size, 0.5f));
    REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(good, 2, {4.0}), good));

    std::vector<float> values = bad.values;
    if (bad.reason != RejectReason::kWrongSize) values.resize(size);
    const auto bytes = encode_fp32(values);
    const auto rejection =
        pipeline.judge(ClientId{2}, report_for(bytes, bad.weight, bad.scalars), bytes);
    REQUIRE(rejection);
    CHECK(rejection->first == bad.reason);
    CHECK_FALSE(rejection->second.empty());

    REQUIRE(pipeline.apply().ok());
    CHECK(values_of(pipeline.model()) == std::vector<float>(size, 0.5f));
    CHECK(pipeline.state()[1] == 4.0f);
  }
}

TEST_CASE("a value that is not finite is found at every position") {
  const std::size_t size = 35;  // two full blocks of lanes and a tail
  for (std::size_t at = 0; at < size; ++at) {
    auto pipeline = make_pipeline(std::make_unique<MeanStrategy>(), size);
    std::vector<float> values(size, 1.0f);
    values[at] = kNan;
    const auto bytes = encode_fp32(values);
    const auto rejection = pipeline.judge(ClientId{1}, report_for(bytes), bytes);
    INFO("position " << at);
    REQUIRE(rejection);
    CHECK(rejection->first == RejectReason::kNotFinite);
  }
}

TEST_CASE("the largest finite floats are finite") {
  auto pipeline = make_pipeline(std::make_unique<FirstStrategy>(), 64);
  const auto bytes = encode_fp32(std::vector<float>(64, std::numeric_limits<float>::max()));
  CHECK_FALSE(pipeline.judge(ClientId{1}, report_for(bytes), bytes));
}

TEST_CASE("bytes with another hash than announced are refused as malformed") {
  auto pipeline = make_pipeline(std::make_unique<MeanStrategy>(), 2);
  const auto announced = encoded({1.0f, 2.0f});
  const auto sent = encoded({1.0f, 2.5f});
  const auto rejection = pipeline.judge(ClientId{1}, report_for(announced), sent);
  REQUIRE(rejection);
  CHECK(rejection->first == RejectReason::kMalformed);
  CHECK_THAT(rejection->second, Catch::Contains(sha256(sent.span()).hex()));
  CHECK_FALSE(pipeline.apply().ok());
}

TEST_CASE("the norm limit is inclusive and its message gives both figures") {
  auto pipeline = make_pipeline(std::make_unique<MeanStrategy>(), 2, 5.0);
  const auto at_limit = encoded({3.0f, 4.0f});  // l2 norm 5
  CHECK_FALSE(pipeline.judge(ClientId{1}, report_for(at_limit), at_limit));
  const auto above = encoded({6.0f, 8.0f});  // l2 norm 10
  const auto rejection = pipeline.judge(ClientId{2}, report_for(above), above);
  REQUIRE(rejection);
  CHECK(rejection->first == RejectReason::kOverNorm);
  CHECK(rejection->second == "the update's l2 norm is 10, the limit is 5");
}

TEST_CASE("the model has the same bits for any order of arrival") {
  const std::uint64_t seed = 20240517;
  INFO("seed " << seed);
  const std::size_t size = 301;
  std::vector<SharedBytes> updates;
  std::vector<double> weights;
  RandomStream random(seed, RandomPurpose::kFault);
  for (int k = 0; k < 40; ++k) {
    std::vector<float> values(size);
    for (float& value : values) value = static_cast<float>(random.normal(0, 0.3));
    updates.push_back(encode_fp32(values));
    weights.push_back(random.uniform(0.1, 600));
  }
  std::vector<std::size_t> order(updates.size());
  for (std::size_t k = 0; k < order.size(); ++k) order[k] = k;
  std::optional<SharedBytes> expected;
  for (int trial = 0; trial < 5; ++trial) {
    auto pipeline = make_pipeline(std::make_unique<MeanStrategy>(), size);
    for (const std::size_t k : order) {
      REQUIRE_FALSE(pipeline.judge(ClientId{k}, report_for(updates[k], weights[k]), updates[k]));
    }
    const auto model = pipeline.apply();
    REQUIRE(model.ok());
    if (!expected) expected = model->parameters;
    CHECK(std::ranges::equal(model->parameters.span(), expected->span()));
    random.shuffle(std::span(order));
  }
}

TEST_CASE("updates at an odd address count the same") {
  const auto bytes = encoded({0.25f, -8.0f, 3.0f});
  const auto odd = misaligned(bytes);
  REQUIRE(reinterpret_cast<std::uintptr_t>(odd.data()) % alignof(float) != 0);
  SECTION("in a sum") {
    auto pipeline = make_pipeline(std::make_unique<MeanStrategy>(), 3);
    REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(odd), odd));
    REQUIRE(pipeline.apply().ok());
    CHECK(values_of(pipeline.model()) == std::vector<float>{0.25f, -8.0f, 3.0f});
  }
  SECTION("one by one") {
    auto pipeline = make_pipeline(std::make_unique<FirstStrategy>(), 3);
    const auto other = misaligned(encoded({1.0f, 1.0f, 1.0f}));
    REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(odd), odd));
    REQUIRE_FALSE(pipeline.judge(ClientId{2}, report_for(other), other));
    REQUIRE(pipeline.apply().ok());
    CHECK(values_of(pipeline.model()) == std::vector<float>{0.25f, -8.0f, 3.0f});
  }
}

TEST_CASE("a device is counted once per round") {
  auto pipeline = make_pipeline(std::make_unique<MeanStrategy>(), 1);
  const auto bytes = encoded({2.0f});
  const auto other = encoded({4.0f});
  REQUIRE_FALSE(pipeline.judge(ClientId{7}, report_for(bytes), bytes));
  const auto rejection = pipeline.judge(ClientId{7}, report_for(other), other);
  REQUIRE(rejection);
  CHECK(rejection->first == RejectReason::kDuplicate);
  REQUIRE(pipeline.apply().ok());
  CHECK(pipeline.model()[0] == 2.0f);
  pipeline.begin();
  CHECK_FALSE(pipeline.judge(ClientId{7}, report_for(other), other));
}

TEST_CASE("an individual strategy sees the updates by client, where they lie") {
  auto strategy = std::make_unique<FirstStrategy>();
  const FirstStrategy& seen_by = *strategy;
  auto pipeline = make_pipeline(std::move(strategy), 2);
  const auto nine = encoded({9.0f, 9.0f});
  const auto four = encoded({4.0f, 4.0f});
  REQUIRE_FALSE(pipeline.judge(ClientId{9}, report_for(nine, 2), nine));
  REQUIRE_FALSE(pipeline.judge(ClientId{4}, report_for(four, 3), four));
  REQUIRE(pipeline.apply().ok());
  REQUIRE(seen_by.seen.size() == 2);
  CHECK(seen_by.seen[0].client == ClientId{4});
  CHECK(seen_by.seen[0].weight == 3.0);
  CHECK(static_cast<const void*>(seen_by.seen[0].update.data()) == four.data());
  CHECK(static_cast<const void*>(seen_by.seen[1].update.data()) == nine.data());
}

TEST_CASE("without an accepted update the model cannot be moved") {
  auto pipeline = make_pipeline(std::make_unique<MeanStrategy>(), 1);
  CHECK_FALSE(pipeline.apply().ok());
  const auto bytes = encoded({2.0f});
  REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(bytes), bytes));
  SECTION("begin forgets what was summed") { pipeline.begin(); }
  SECTION("so does a model that was moved") {
    REQUIRE(pipeline.apply().ok());
    CHECK(pipeline.model()[0] == 2.0f);
  }
  CHECK_FALSE(pipeline.apply().ok());
}

TEST_CASE("a strategy that fails leaves the model and its state as they were") {
  auto strategy = std::make_unique<MeanStrategy>();
  MeanStrategy& mean = *strategy;
  auto pipeline = make_pipeline(std::move(strategy), 1);
  const auto bytes = encoded({2.0f});
  double weight = 1;
  std::string expected;
  SECTION("by an error") {
    mean.refuse = true;
    expected = "the strategy refused";
  }
  SECTION("by an exception") {
    mean.explode = true;
    expected = "the plug-in threw";
  }
  SECTION("by a model that is not finite") {
    weight = 0;  // 0 / 0
    expected = "not finite";
  }
  REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(bytes, weight), bytes));
  const auto model = pipeline.apply();
  REQUIRE_FALSE(model.ok());
  CHECK_THAT(model.error().message, Catch::Contains("test-mean") && Catch::Contains(expected));
  CHECK(pipeline.model()[0] == 0.0f);
  CHECK(pipeline.state() == std::vector<float>{0.0f, 0.0f});
}

TEST_CASE("a pipeline is not made of parts that do not fit") {
  const auto make = [](std::size_t model, std::vector<float> state, UpdatePipeline::Format format) {
    return UpdatePipeline::make(std::make_unique<MeanStrategy>(), ParameterVector(model),
                                std::move(state), std::move(format));
  };
  CHECK(make(2, {}, format_of(2)).ok());
  CHECK(make(2, {1.0f, 2.0f}, format_of(2)).ok());
  CHECK_FALSE(make(2, {}, format_of(3)).ok());
  CHECK_FALSE(make(2, {1.0f}, format_of(2)).ok());
  CHECK_FALSE(make(2, {1.0f, kNan}, format_of(2)).ok());
  CHECK_FALSE(make(2, {}, format_of(2, -1)).ok());
  CHECK_FALSE(UpdatePipeline::make(nullptr, ParameterVector(2), {}, format_of(2)).ok());
}
