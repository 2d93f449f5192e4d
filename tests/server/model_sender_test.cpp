#include <catch2/catch.hpp>
#include <cmath>
#include <covey/compression/model_delta.hpp>
#include <covey/compression/model_steps.hpp>
#include <covey/encoding.hpp>
#include <covey/random.hpp>
#include <covey/server/model_sender.hpp>
#include <covey/server/update_pipeline.hpp>

#include "coordinator_harness.hpp"
#include "pipeline_fixture.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

constexpr std::uint64_t kSeed = 31;
constexpr std::size_t kSize = 4000;

ModelLayout layout() {
  ModelLayout layout;
  layout.append("dense.weight", {80, 50});
  return layout;
}

SharedBytes update_of(std::uint32_t round, float deviation = 0.01f) {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration, RoundNumber{round});
  std::vector<float> values(kSize);
  for (float& value : values) value = deviation * static_cast<float>(random.normal());
  return encode_fp32(values);
}

UpdatePipeline::Format format_with(std::uint32_t history, const char* compressor = nullptr) {
  UpdatePipeline::Format format;
  format.layout = layout();
  format.seed = kSeed;
  format.sending.history = history;
  if (compressor != nullptr) {
    RunConfig config;
    config.server.model_compressor = compressor;
    format.sending = *ModelSending::of(config, TrainingPlan{});
  }
  return format;
}

/// Weights of deviation 0.1, so that a step of 0.01 is a small one.
UpdatePipeline start(const UpdatePipeline::Format& format) {
  ParameterVector model(kSize);
  const SharedBytes initial = update_of(1000, 0.1f);
  REQUIRE(decode_fp32(initial.span(), model.span()).ok());
  return *UpdatePipeline::make(std::make_unique<MeanStrategy>(), std::move(model), {}, format);
}

EncodedModel run_round(UpdatePipeline& pipeline, std::uint32_t round, const SharedBytes& update) {
  pipeline.begin(RoundNumber{round});
  REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(update), update));
  auto model = pipeline.apply();
  REQUIRE(model.ok());
  return *std::move(model);
}

EncodedModel run_round(UpdatePipeline& pipeline, std::uint32_t round) {
  return run_round(pipeline, round, update_of(round));
}

const ModelDifference* from(const EncodedModel& model, const SharedBytes& base) {
  for (const ModelDifference& difference : model.differences) {
    if (difference.delta.base == base.digest()) return &difference;
  }
  return nullptr;
}

double distance(const SharedBytes& a, const SharedBytes& b) {
  std::vector<float> x(a.size() / 4), y(b.size() / 4);
  REQUIRE(decode_fp32(a.span(), x).ok());
  REQUIRE(decode_fp32(b.span(), y).ok());
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += std::pow(double{x[i]} - y[i], 2);
  return std::sqrt(sum);
}

SharedBytes follow(const ModelDifference& difference, const SharedBytes& base) {
  auto model = compression::is_model_steps(difference.delta.encoding)
                   ? compression::apply_model_steps(difference.delta.encoding, layout(), kSeed,
                                                    base.span(), difference.bytes.span())
                   : compression::apply_model_delta(difference.delta.encoding, base.span(),
                                                    difference.bytes.span());
  REQUIRE(model.ok());
  return *model;
}

std::string refusal(const char* compressor, const TrainingPlan& plan = {}) {
  RunConfig config;
  config.server.model_compressor = compressor;
  const auto sending = ModelSending::of(config, plan);
  return sending.ok() ? std::string() : sending.error().message;
}

}  // namespace

TEST_CASE("a new model comes with differences to as many earlier ones as are kept") {
  INFO("seed " << kSeed);
  auto pipeline = start(format_with(2));
  const SharedBytes initial = pipeline.encoded_model().sent;
  CHECK(pipeline.encoded_model().differences.empty());
  const EncodedModel first = run_round(pipeline, 1);
  REQUIRE(first.differences.size() == 1);
  const EncodedModel second = run_round(pipeline, 2);
  const EncodedModel third = run_round(pipeline, 3);
  REQUIRE(second.differences.size() == 2);
  REQUIRE(third.differences.size() == 2);
  CHECK(from(third, initial) == nullptr);
  for (const auto& [model, base] : {std::pair(first, initial), std::pair(second, initial),
                                    std::pair(third, first.sent), std::pair(third, second.sent)}) {
    const ModelDifference* difference = from(model, base);
    REQUIRE(difference != nullptr);
    CHECK(difference->model == model.sent.digest());
    CHECK(difference->delta.blob == difference->bytes.digest());
    CHECK(difference->delta.size == difference->bytes.size());
    CHECK(difference->delta.size < model.sent.size() * 9 / 10);
    CHECK(follow(*difference, base).digest() == model.sent.digest());
  }
}

TEST_CASE("a difference that would save less than a tenth is not offered") {
  INFO("seed " << kSeed);
  auto sender = ModelSender::make(ModelSending{2}, layout(), kSeed);
  REQUIRE(sender.ok());
  const std::vector encodings{Encoding::kFp32};
  RandomStream random(kSeed, RandomPurpose::kDataGeneration);
  const auto noise = [&random] {
    std::vector<std::byte> bytes(4 * kSize);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next_u32());
    const SharedBytes blob(std::move(bytes));
    return EncodedModel{blob, blob};
  };
  sender->remember(noise(), encodings);
  EncodedModel other = noise();
  sender->offer(other, encodings);
  CHECK(other.differences.empty());
}

TEST_CASE("without a history devices are offered whole models only") {
  auto pipeline = start(format_with(0));
  run_round(pipeline, 1);
  CHECK(run_round(pipeline, 2).differences.empty());
}

TEST_CASE("with a model compressor the model stays exact and devices' model follows it") {
  const char* compressor = GENERATE("int8", "int4", "int2", "eden-2", "sign", "top-k:0.05");
  INFO("seed " << kSeed << " " << compressor);
  auto exact = start(format_with(0));
  auto pipeline = start(format_with(0, compressor));
  CHECK(pipeline.encoded_model().sent.digest() == exact.encoded_model().sent.digest());
  // Steps as a run that converges has them: each a quarter smaller than the one before.
  float step = 0.01f;
  double first = 0, gap = 0;
  for (std::uint32_t round = 1; round <= 25; ++round, step *= 0.75f) {
    const SharedBytes update = update_of(round, step);
    const EncodedModel expected = run_round(exact, round, update);
    const EncodedModel model = run_round(pipeline, round, update);
    CHECK(model.parameters.digest() == expected.parameters.digest());
    gap = distance(model.sent, model.parameters);
    if (round == 1) first = gap;
    REQUIRE(gap < 0.04 * std::sqrt(static_cast<double>(kSize)));  // the sum of all steps
  }
  // What a step loses is made up for by the next ones.
  CHECK(gap < first);
}

TEST_CASE("steps lead from each of the last models to the one that devices are sent") {
  INFO("seed " << kSeed);
  auto pipeline = start(format_with(0, "int8"));
  std::vector<SharedBytes> sent{pipeline.encoded_model().sent};
  EncodedModel model;
  for (std::uint32_t round = 1; round <= 5; ++round) {
    model = run_round(pipeline, round);
    sent.push_back(model.sent);
  }
  // A step takes a quarter of the model: three of them are less than 0.9 of it, four are not.
  REQUIRE(model.differences.size() == 3);
  for (std::size_t back = 1; back <= 3; ++back) {
    const SharedBytes& base = sent[5 - back];
    const ModelDifference* difference = from(model, base);
    REQUIRE(difference != nullptr);
    CHECK(difference->delta.blob == difference->bytes.digest());
    CHECK(difference->bytes.size() == back * (8 + 50 * 4 + kSize));  // 50 scales
    CHECK(follow(*difference, base).digest() == model.sent.digest());
  }
}

TEST_CASE("small steps are offered up to a number that a device follows") {
  INFO("seed " << kSeed);
  auto pipeline = start(format_with(0, "top-k:0.005"));
  EncodedModel model;
  const SharedBytes initial = pipeline.encoded_model().sent;
  for (std::uint32_t round = 1; round <= 40; ++round) {
    model = run_round(pipeline, round);
    if (round == compression::kMostModelSteps) {
      CHECK(from(model, initial) != nullptr);
    }
  }
  CHECK(model.differences.size() == compression::kMostModelSteps);
}

TEST_CASE("a server that starts again sends the same compressed models as one that did not") {
  const char* compressor = GENERATE("int8+zstd", "eden-1", "rate-distortion:0.001");
  INFO("seed " << kSeed << " " << compressor);
  const auto format = format_with(0, compressor);
  auto pipeline = start(format);
  run_round(pipeline, 1);
  const EncodedModel stored = run_round(pipeline, 2);
  ParameterVector parameters(kSize);
  REQUIRE(decode_fp32(stored.parameters.span(), parameters.span()).ok());
  auto restarted = *UpdatePipeline::make(std::make_unique<MeanStrategy>(), std::move(parameters),
                                         pipeline.state(), format);
  CHECK(restarted.encoded_model().sent.digest() == stored.sent.digest());
  CHECK(stored.sent.digest() != stored.parameters.digest());
  const EncodedModel before = run_round(pipeline, 3), after = run_round(restarted, 3);
  CHECK(after.sent.digest() == before.sent.digest());
  CHECK(after.parameters.digest() == before.parameters.digest());
  // And it knows the way from what it sent last.
  const ModelDifference* step = from(after, stored.sent);
  REQUIRE(step != nullptr);
  CHECK(follow(*step, stored.sent).digest() == after.sent.digest());
}

TEST_CASE("a step that is no float is not taken, and devices are sent the model itself") {
  const auto format = format_with(0, "int8");
  auto sender = ModelSender::make(format.sending, format.layout, kSeed);
  REQUIRE(sender.ok());
  const std::vector<float> high(kSize, 3e38f), low(kSize, -3e38f);
  sender->begin(high, {});
  sender->advance(RoundNumber{1}, low);  // 6e38 below
  CHECK(std::ranges::equal(sender->sent(low), low));
  EncodedModel model{encode_fp32(low), encode_fp32(low)};
  sender->offer(model, std::vector{Encoding::kFp32});
  CHECK(model.differences.empty());
}

TEST_CASE("a model compressor that does not go with the run is refused by its key") {
  CHECK(refusal("off").empty());
  CHECK(refusal("int8").empty());
  CHECK_THAT(refusal("mp3"), Catch::Contains("server.model-compressor = \"mp3\""));
  CHECK_THAT(refusal("fp32"), Catch::Contains("leave it \"off\""));
  TrainingPlan plan;
  plan.precision = "bf16";
  CHECK_THAT(refusal("int8", plan), Catch::Contains("train in \"bf16\""));
  plan.precision = "fp32";
  plan.model.torchscript = std::string(1, 'x');
  CHECK_THAT(refusal("int8", plan), Catch::Contains("TorchScript"));
}

// ---- the coordinator

namespace {

/// fp32_model(7), and how to come to it from fp32_model(3).
EncodedModel model_with_difference() {
  EncodedModel model = fp32_model(7);
  const SharedBytes bytes = filled(9, 40);
  model.differences.push_back({model.sent.digest(),
                               {filled(3).digest(), bytes.digest(), bytes.size(), "planes-zstd"},
                               bytes});
  return model;
}

}  // namespace

TEST_CASE("a device that holds an earlier model is assigned the difference, another is not") {
  auto options = default_options(3);
  CoordinatorHarness h(options, RoundNumber{0}, model_with_difference());
  h.start();
  h.add(1).conditions.held_model = filled(3).digest();
  h.add(2).conditions.held_model = filled(4).digest();
  h.add(3);
  for (std::uint64_t client = 1; client <= 3; ++client) {
    h.device(client).reports = false;
    h.connect(h.device(client));
  }
  h.settle();
  REQUIRE(h.device(1).task->delta);
  CHECK(h.device(1).task->delta->base == filled(3).digest());
  CHECK(h.device(1).task->delta->blob == filled(9, 40).digest());
  CHECK(h.device(1).task->delta->size == 40);
  CHECK(h.device(1).task->model == filled(7).digest());
  CHECK_FALSE(h.device(2).task->delta);
  CHECK_FALSE(h.device(3).task->delta);
}

TEST_CASE("the bytes of a difference are served like those of the model, to selected devices") {
  auto options = default_options(2);
  options.config.selection.fraction_fit = 0.5;
  CoordinatorHarness h(options, RoundNumber{0}, model_with_difference());
  h.start();
  for (std::uint64_t client = 1; client <= 2; ++client) {
    ScriptedDevice& device = h.add(client);
    device.conditions.held_model = filled(3).digest();
    device.reports = false;
    h.connect(device);
  }
  h.settle();
  const bool first = h.device(1).task.has_value();
  ScriptedDevice& selected = h.device(first ? 1 : 2);
  ScriptedDevice& other = h.device(first ? 2 : 1);
  REQUIRE(selected.task->delta);
  const Digest blob = selected.task->delta->blob;
  h.speak(selected, BlobRequest{blob, 32, kChunkBytes});
  const auto* chunk = selected.last<BlobChunk>();
  REQUIRE(chunk != nullptr);
  CHECK(chunk->blob == blob);
  CHECK(chunk->offset == 32);
  CHECK(chunk->payload.size() == 8);  // of 40
  h.speak(other, BlobRequest{blob, 0, kChunkBytes});
  REQUIRE(other.last<BlobMissing>() != nullptr);
  CHECK(other.last<BlobMissing>()->blob == blob);
  // A range behind its end is no correct device's.
  h.speak(selected, BlobRequest{blob, 40, kChunkBytes});
  CHECK(selected.last<Refusal>() != nullptr);
}

TEST_CASE("what a device holds is what it said last") {
  auto options = default_options(1);
  CoordinatorHarness h(options, RoundNumber{0}, model_with_difference());
  h.start();
  ScriptedDevice& device = h.add(1);
  device.reports = false;
  device.conditions.held_model = filled(3).digest();
  h.connect(device);
  h.settle();
  REQUIRE(device.task->delta);
  device.conditions.held_model.reset();
  h.speak(device, CheckIn{device.conditions});
  CHECK(device.count<Assignment>() == 2);
  CHECK_FALSE(device.task->delta);
}
