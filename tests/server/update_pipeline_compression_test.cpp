#include <catch2/catch.hpp>
#include <cmath>
#include <covey/compression/compressor.hpp>

#include "pipeline_fixture.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

constexpr std::uint64_t kSeed = 20261121;
constexpr std::uint32_t kRows = 40, kColumns = 5;

ModelLayout layout_of() {
  ModelLayout layout;
  layout.append("dense1.weight", {kRows, kColumns});
  layout.append("dense1.bias", {kColumns});
  return layout;
}

std::vector<float> update_of(std::uint64_t client) {
  RandomStream random(kSeed, RandomPurpose::kFault, RoundNumber{1}, ClientId{client});
  std::vector<float> update(layout_of().size());
  for (float& value : update) value = static_cast<float>(random.normal());
  return update;
}

UpdatePipeline pipeline_of(const std::vector<std::string>& compressors) {
  UpdatePipeline::Format format;
  format.layout = layout_of();
  format.seed = kSeed;
  format.compressors = offer_compressors(compressors, format.layout).value();
  return UpdatePipeline::make(std::make_unique<MeanStrategy>(),
                              ParameterVector(format.layout.size()), {}, format)
      .value();
}

struct Sent {
  SharedBytes bytes;
  std::vector<float> says;
};
Sent sent_by(std::uint64_t client, RoundNumber round, const std::string& name) {
  const auto compressor =
      compression::make_compressor(parse_compressor(name).value(), layout_of()).value();
  const compression::UpdateName update{kSeed, round, ClientId{client}};
  Sent sent;
  sent.bytes = compressor->encode(update_of(client), update);
  sent.says.resize(layout_of().size());
  REQUIRE(compressor->decode(sent.bytes.span(), update, sent.says).ok());
  return sent;
}

JudgeUpdate judging(std::uint64_t client, RoundNumber round, const SharedBytes& bytes,
                    std::uint32_t compressor) {
  JudgeUpdate action;
  action.key = {RunId{1}, round, ClientId{client}, bytes.digest()};
  action.report = report_for(bytes);
  action.compressor = compressor;
  return action;
}

}  // namespace

TEST_CASE("devices of one round may each send by another compressor") {
  CAPTURE(kSeed);
  const std::vector<std::string> names{"eden-1",    "drive", "top-k:0.1", "rate-distortion",
                                       "int4+zstd", "fp16",  "fp32"};
  UpdatePipeline pipeline = pipeline_of(names);
  const RoundNumber round{3};
  pipeline.begin(round);
  std::vector<double> expected(layout_of().size());
  for (std::uint32_t number = 0; number < names.size(); ++number) {
    CAPTURE(names[number]);
    const Sent sent = sent_by(number + 1, round, names[number]);
    const auto rejection =
        pipeline.judge(judging(number + 1, round, sent.bytes, number), sent.bytes);
    if (rejection) FAIL(rejection->second);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] += sent.says[i] / static_cast<double>(names.size());
    }
  }
  REQUIRE(pipeline.apply().ok());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(pipeline.model()[i] == Approx(expected[i]).margin(1e-6));
  }
}

TEST_CASE("an update of a size that its compressor does not make is refused") {
  UpdatePipeline pipeline = pipeline_of({"eden-1", "fp32"});
  const SharedBytes fp32 = encode_fp32(update_of(1));
  const auto wrong = pipeline.judge(judging(1, RoundNumber{1}, fp32, 0), fp32);
  REQUIRE(wrong);
  CHECK(wrong->first == RejectReason::kWrongSize);
  CHECK_THAT(wrong->second, Catch::Contains("eden-1"));
  CHECK_FALSE(pipeline.judge(judging(1, RoundNumber{1}, fp32, 1), fp32));
}

TEST_CASE("bytes that a compressor did not make are refused, and change nothing") {
  UpdatePipeline pipeline = pipeline_of({"top-k:0.1"});
  const Sent good = sent_by(1, RoundNumber{1}, "top-k:0.1");
  std::vector<std::byte> bytes(good.bytes.size(), std::byte{0xff});
  const SharedBytes bad(std::move(bytes));
  const auto rejection = pipeline.judge(judging(1, RoundNumber{1}, bad, 0), bad);
  REQUIRE(rejection);
  CHECK((rejection->first == RejectReason::kMalformed ||
         rejection->first == RejectReason::kNotFinite));
  CHECK_FALSE(pipeline.apply().ok());  // nothing was counted
  CHECK_FALSE(pipeline.judge(judging(1, RoundNumber{1}, good.bytes, 0), good.bytes));
}

TEST_CASE("the norm of a compressed update is that of what it says") {
  UpdatePipeline::Format format;
  format.layout = layout_of();
  format.seed = kSeed;
  format.max_update_norm = 1;  // of 205 standard normal values: about 14
  format.compressors = offer_compressors({"eden-2"}, format.layout).value();
  auto pipeline = UpdatePipeline::make(std::make_unique<MeanStrategy>(),
                                       ParameterVector(format.layout.size()), {}, format)
                      .value();
  const Sent sent = sent_by(1, RoundNumber{1}, "eden-2");
  const auto rejection = pipeline.judge(judging(1, RoundNumber{1}, sent.bytes, 0), sent.bytes);
  REQUIRE(rejection);
  CHECK(rejection->first == RejectReason::kOverNorm);
}

TEST_CASE("a format of a plan offers the plan's compressor, or those it is told") {
  TrainingPlan plan;
  plan.compressor = "eden-1";
  const auto one = UpdatePipeline::Format::of(plan, layout_of(), 0);
  REQUIRE(one.ok());
  REQUIRE(one->compressors.size() == 1);
  CHECK(one->compressors[0].name == "eden-1");
  const auto two = UpdatePipeline::Format::of(plan, layout_of(), 0, {"eden-1", "fp32"});
  REQUIRE(two.ok());
  CHECK(two->compressors.size() == 2);
  plan.compressor = "gzip";
  CHECK_FALSE(UpdatePipeline::Format::of(plan, layout_of(), 0).ok());
}

TEST_CASE("the range of a secure sum that adapts is part of the state that is stored") {
  UpdatePipeline::Format format;
  format.layout = layout_of();
  SecureAggregationPlan plan;
  plan.threat_model = ThreatModel::kHonestButCurious;
  plan.bits = 4;
  plan.clip = 8;
  plan.max_weight = 1;
  plan.max_devices = 4;
  format.sum =
      privacy::SumFormat::make(plan, {}, format.layout.size(), privacy::num_sum_scalars({}, 0))
          .value();
  format.sum->least_error = true;
  const auto make = [&](std::vector<float> state, bool adaptive) {
    auto of_run = format;
    of_run.adaptive_clip = adaptive;
    return UpdatePipeline::make(std::make_unique<MeanStrategy>(),
                                ParameterVector(of_run.layout.size()), std::move(state), of_run);
  };
  const auto fresh = make({}, true);
  REQUIRE(fresh.ok());
  CHECK(fresh->sum_clip() == 8.0);
  CHECK(fresh->state() == std::vector<float>{0, 0, 8});  // the strategy's two, and the range
  const auto again = make({5, 6, 0.25f}, true);
  REQUIRE(again.ok());
  CHECK(again->sum_clip() == 0.25);
  CHECK(again->sum_format()->plan.clip == 0.25);
  CHECK(again->sum_format()->least_error);
  CHECK(again->state() == std::vector<float>{5, 6, 0.25f});
  CHECK_FALSE(make({5, 6}, true).ok());
  CHECK_FALSE(make({5, 6, -1}, true).ok());
  CHECK_FALSE(make({}, false)->sum_clip());
}
