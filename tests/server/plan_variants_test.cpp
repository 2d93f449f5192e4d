// Classes of devices with plans of their own: what they are sent, and how what they send is summed.

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/bfloat16.hpp>
#include <covey/models/engine.hpp>
#include <covey/server/plan_variants.hpp>
#include <covey/server/update_pipeline.hpp>
#include <covey/strategies/registry.hpp>

#include "../../server/sub_network.hpp"
#include "pipeline_fixture.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

LayerSpec dense(std::uint32_t units) { return {.kind = LayerKind::kDense, .units = units}; }
LayerSpec convolution(std::uint32_t filters, std::uint32_t kernel) {
  return {.kind = LayerKind::kConv2d, .units = filters, .kernel = kernel};
}
constexpr LayerSpec kRelu{.kind = LayerKind::kRelu};

/// 2 inputs, 2 hidden units, 2 outputs: weights 0 to 3, biases 4 and 5, weights 6 to 9, biases 10
/// and 11.
ModelSpec small_network() { return {.input_shape = {2}, .layers = {dense(2), kRelu, dense(2)}}; }

ModelLayout layout_of(const ModelSpec& spec) {
  auto network = models::make_network(spec, "fp32");
  REQUIRE(network.ok());
  return network->layout();
}

TrainingPlan plan_of(const ModelSpec& spec) {
  TrainingPlan plan;
  plan.strategy = "fedavg";
  plan.model = spec;
  plan.local_epochs = 5;
  plan.batch_size = 20;
  return plan;
}

std::unique_ptr<strategies::Strategy> strategy_named(const std::string& name) {
  auto made = strategies::Registry::with_built_ins().make(name, {});
  REQUIRE(made.ok());
  return std::move(*made);
}

ClientClassConfig class_named(std::string name, double width = 1) {
  ClientClassConfig config;
  config.name = std::move(name);
  config.width = width;
  return config;
}

Result<PlanVariants> variants_of(const RunConfig& config, const ModelSpec& spec,
                                 const std::string& strategy = "fedavg") {
  const auto made = strategy_named(strategy);
  TrainingPlan plan = plan_of(spec);
  plan.precision = config.client.precision;
  plan.compressor = compressor_of(config);
  auto network = models::make_network(spec, plan.precision);
  REQUIRE(network.ok());
  return PlanVariants::make(config, plan, network->layout(), *made);
}

std::string refusal(const RunConfig& config, const ModelSpec& spec = small_network(),
                    const std::string& strategy = "fedavg") {
  const auto made = variants_of(config, spec, strategy);
  return made.ok() ? "" : made.error().message;
}

bool says(const std::string& text, std::initializer_list<const char*> words) {
  INFO(text);
  return std::ranges::all_of(
      words, [&](const char* word) { return text.find(word) != std::string::npos; });
}

std::vector<float> random_values(std::size_t count, std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kLoadTest);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.normal());
  return values;
}

/// The whole network with every parameter outside the part at zero computes what the part does.
void check_part(const ModelSpec& spec, double width, std::uint64_t seed) {
  INFO("width " << width << " seed " << seed);
  const auto part_spec = narrowed(spec, width);
  REQUIRE(part_spec.ok());
  const auto whole = models::Network::make(spec);
  const auto part = models::Network::make(*part_spec);
  REQUIRE(whole.ok());
  REQUIRE(part.ok());
  const auto indices = indices_of_part(spec, whole->layout(), *part_spec, part->layout());
  REQUIRE(indices.size() == part->num_parameters());
  const auto values = random_values(part->num_parameters(), seed);
  std::vector<float> scattered(whole->num_parameters());
  for (std::size_t i = 0; i < indices.size(); ++i) scattered[indices[i]] = 0.1f * values[i];
  std::vector<float> own = values;
  for (float& value : own) value *= 0.1f;

  constexpr std::size_t kBatch = 3;
  const auto inputs = random_values(kBatch * whole->inputs(), seed + 1);
  const std::vector<std::int32_t> labels{0, 1, 1};
  models::Workspace of_whole(*whole, kBatch), of_part(*part, kBatch);
  const auto expected = part->evaluate(of_part, inputs, labels, own);
  const auto found = whole->evaluate(of_whole, inputs, labels, scattered);
  CHECK(found.loss_sum == Approx(expected.loss_sum).epsilon(1e-4));
  CHECK(expected.loss_sum > 0);
}

/// A pipeline of fedavg over the small network with these classes.
UpdatePipeline make_mixed(const RunConfig& config, std::vector<float> model) {
  const ModelSpec spec = small_network();
  auto variants = variants_of(config, spec);
  REQUIRE(variants.ok());
  auto format = UpdatePipeline::Format::of(plan_of(spec), layout_of(spec), 0);
  REQUIRE(format.ok());
  format->variants = std::make_shared<const PlanVariants>(std::move(*variants));
  ParameterVector parameters(model.size());
  std::ranges::copy(model, parameters.data());
  auto pipeline =
      UpdatePipeline::make(strategy_named("fedavg"), std::move(parameters), {}, std::move(*format));
  REQUIRE(pipeline.ok());
  return std::move(*pipeline);
}

JudgeUpdate judging(std::uint64_t client, const SharedBytes& bytes, double weight,
                    std::uint32_t variant) {
  JudgeUpdate action;
  action.key.client = ClientId{client};
  action.report = report_for(bytes, weight);
  action.variant = variant;
  return action;
}

/// Class 1 "half": half the hidden units. Class 2 "rounded": all of them in bf16.
RunConfig mixed_fleet() {
  RunConfig config;
  ClientClassConfig rounded = class_named("rounded");
  rounded.precision = "bf16";
  config.client.classes = {class_named("half", 0.5), rounded};
  return config;
}

}  // namespace

// ---- the part of a network

TEST_CASE("half of a hidden layer is its first units, with all inputs and outputs") {
  const ModelSpec spec = small_network();
  const auto part = narrowed(spec, 0.5);
  REQUIRE(part.ok());
  CHECK(part->layers[0].units == 1);
  CHECK(part->layers[2].units == 2);
  CHECK(indices_of_part(spec, layout_of(spec), *part, layout_of(*part)) ==
        std::vector<std::uint32_t>{0, 2, 4, 6, 7, 10, 11});
}

TEST_CASE("behind a flatten layer the units of every position are kept") {
  // 3x3 weights of 1 channel and 2 filters: 0 to 17, biases 18 and 19; then 2x2 positions of 2
  // channels.
  const ModelSpec spec{.input_shape = {4, 4, 1},
                       .layers = {convolution(2, 3),
                                  {.kind = LayerKind::kMaxPool2d, .kernel = 2},
                                  {.kind = LayerKind::kFlatten},
                                  dense(2)}};
  const auto part = narrowed(spec, 0.5);
  REQUIRE(part.ok());
  CHECK(indices_of_part(spec, layout_of(spec), *part, layout_of(*part)) ==
        std::vector<std::uint32_t>{0,  2,  4,  6,  8,  10, 12, 14, 16, 18,
                                   20, 21, 24, 25, 28, 29, 32, 33, 36, 37});
}

TEST_CASE("a width takes the ceiling of a layer's units, and the whole number that a product is") {
  const ModelSpec spec{.input_shape = {3},
                       .layers = {dense(100), kRelu, dense(7), kRelu, dense(2)}};
  const auto units = [&](double width) {
    const auto part = narrowed(spec, width);
    REQUIRE(part.ok());
    return std::pair(part->layers[0].units, part->layers[2].units);
  };
  CHECK(units(0.5) == std::pair(50U, 4U));
  CHECK(units(0.29) == std::pair(29U, 3U));  // 0.29 * 100 is 28.999999999999996
  CHECK(units(0.07) == std::pair(7U, 1U));   // 0.07 * 100 is 7.000000000000001
  CHECK(units(1e-6) == std::pair(1U, 1U));
}

TEST_CASE("a part computes what the whole network does whose other parameters are zero") {
  for (const double width : {0.25, 0.5, 0.9}) {
    check_part({.input_shape = {5}, .layers = {dense(9), kRelu, dense(6), kRelu, dense(3)}}, width,
               11);
    check_part({.input_shape = {8, 8, 2},
                .layers = {convolution(5, 3),
                           kRelu,
                           {.kind = LayerKind::kMaxPool2d, .kernel = 2},
                           convolution(7, 3),
                           kRelu,
                           {.kind = LayerKind::kFlatten},
                           dense(10),
                           kRelu,
                           dense(2)}},
               width, 12);
    check_part(
        {.input_shape = {6, 6, 1},
         .layers = {convolution(4, 3), kRelu, {.kind = LayerKind::kGlobalAveragePool}, dense(2)}},
        width, 13);
  }
}

// ---- plans

TEST_CASE("a class changes what it names and leaves the rest of the plan") {
  RunConfig config;
  ClientClassConfig slow = class_named("slow");
  slow.local_epochs = 1;
  ClientClassConfig small = class_named("small", 0.5);
  small.batch_size = 0;
  small.precision = "int8";
  config.client.classes = {slow, small};
  const auto variants = variants_of(config, small_network());
  REQUIRE(variants.ok());
  REQUIRE(variants->size() == 3);
  CHECK(variants->has_parts());
  CHECK(variants->number_of("slow") == 1);
  CHECK(variants->number_of("small") == 2);
  CHECK(variants->number_of("other") == 0);
  CHECK(variants->number_of("") == 0);

  TrainingPlan round_plan = plan_of(small_network());
  round_plan.learning_rate = 0.03f;
  CHECK((*variants)[0].plan_of(round_plan) == round_plan);
  TrainingPlan expected = round_plan;
  expected.local_epochs = 1;
  CHECK((*variants)[1].plan_of(round_plan) == expected);
  const TrainingPlan of_small = (*variants)[2].plan_of(round_plan);
  CHECK(of_small.local_epochs == 5);
  CHECK(of_small.batch_size == 0);
  CHECK(of_small.precision == "int8");
  CHECK(of_small.learning_rate == 0.03f);
  CHECK(of_small.model.layers[0].units == 1);
  REQUIRE((*variants)[2].compressors.size() == 1);
  const OfferedCompressor& offered = (*variants)[2].compressors.front();
  CHECK(offered.name == "int8");
  CHECK(offered.sizes.min == encoded_size(Encoding::kInt8, (*variants)[2].layout));
  CHECK(offered.sizes.max == offered.sizes.min);
}

TEST_CASE("a class is offered the run's compressors, for the part of the network that it trains") {
  RunConfig config;
  config.client.compressors = {"eden-1", "fp32"};
  config.client.classes = {class_named("small", 0.5)};
  const auto variants = variants_of(config, small_network());
  REQUIRE(variants.ok());
  const PlanVariant& whole = (*variants)[0];
  const PlanVariant& small = (*variants)[1];
  REQUIRE(whole.compressors.size() == 2);
  REQUIRE(small.compressors.size() == 2);
  CHECK(small.compressors[0].name == "eden-1");
  CHECK(small.compressors[1].sizes.max == 4 * small.layout.size());
  CHECK(whole.compressors[1].sizes.max == 4 * whole.layout.size());
  CHECK(small.compressors[0].sizes.max < whole.compressors[0].sizes.max);
  // A class whose precision does not go with one of them would have to be told apart: refused.
  ClientClassConfig narrow = class_named("narrow");
  narrow.precision = "bf16";
  config.client.classes = {narrow};
  CHECK(says(refusal(config), {"client.class.narrow.precision", "client.compressor: \"fp32\""}));
  config.client.compressors = {"eden-1", "sign"};
  CHECK(refusal(config).empty());
}

TEST_CASE("each class is sent its part of the model in its precision, and equal bytes are shared") {
  RunConfig config = mixed_fleet();
  ClientClassConfig eager = class_named("eager");
  eager.local_epochs = 9;
  ClientClassConfig half_and_eager = class_named("half-and-eager", 0.5);
  half_and_eager.local_epochs = 9;
  config.client.classes.push_back(eager);
  config.client.classes.push_back(half_and_eager);
  const std::vector<float> model{0.1f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const EncodedModel encoded = make_mixed(config, model).encoded_model();
  REQUIRE(encoded.variants.size() == 4);
  CHECK(encoded.sent_to(0).digest() == encoded.parameters.digest());
  CHECK(encoded.sent_to(1).digest() ==
        encode_fp32(std::vector<float>{0.1f, 2, 4, 6, 7, 10, 11}).digest());
  CHECK(encoded.sent_to(2).digest() ==
        encode(Encoding::kBf16, layout_of(small_network()), model).digest());
  CHECK(encoded.sent_to(3).data() == encoded.sent.data());
  CHECK(encoded.sent_to(4).data() == encoded.sent_to(1).data());
}

// ---- sums

TEST_CASE("each coordinate moves by the mean over those devices that train it") {
  auto pipeline = make_mixed(mixed_fleet(), std::vector<float>(12, 100));
  const ModelLayout layout = layout_of(small_network());
  const SharedBytes whole = encode_fp32(std::vector<float>(12, 1));                      // weight 1
  const SharedBytes half = encode_fp32(std::vector<float>{10, 20, 30, 40, 50, 60, 70});  // weight 3
  const SharedBytes rounded =
      encode(Encoding::kBf16, layout, std::vector<float>(12, 4));  // weight 2
  CHECK_FALSE(pipeline.judge(judging(1, whole, 1, 0), whole));
  CHECK_FALSE(pipeline.judge(judging(2, half, 3, 1), half));
  CHECK_FALSE(pipeline.judge(judging(3, rounded, 2, 2), rounded));
  REQUIRE(pipeline.apply().ok());
  // Trained by all: (1 * 1 + 3 * u + 2 * 4) / 6 = (9 + 3 u) / 6. By the whole ones: (1 + 8) / 3
  // = 3.
  CHECK(values_of(pipeline.model()) == std::vector<float>{106.5f, 103, 111.5f, 103, 116.5f, 103,
                                                          121.5f, 126.5f, 103, 103, 131.5f,
                                                          136.5f});
}

TEST_CASE("what nobody trained stays as it was") {
  auto pipeline = make_mixed(mixed_fleet(), std::vector<float>(12, 7));
  const SharedBytes half = encode_fp32(std::vector<float>(7, 2));
  CHECK_FALSE(pipeline.judge(judging(1, half, 5, 1), half));
  CHECK_FALSE(pipeline.judge(judging(2, half, 1, 1), half));
  REQUIRE(pipeline.apply().ok());
  CHECK(values_of(pipeline.model()) == std::vector<float>{9, 7, 9, 7, 9, 7, 9, 9, 7, 7, 9, 9});
}

TEST_CASE(
    "a mixed round gives the same bits in any order of arrival, and nothing stays for the next") {
  const auto model_after = [](std::vector<std::uint64_t> order, int rounds) {
    auto pipeline = make_mixed(mixed_fleet(), random_values(12, 3));
    const ModelLayout layout = layout_of(small_network());
    for (int round = 0; round < rounds; ++round) {
      for (const std::uint64_t client : order) {
        const auto variant = static_cast<std::uint32_t>(client % 3);
        const auto values = random_values(variant == 1 ? 7 : 12, 50 + client);
        const SharedBytes bytes =
            variant == 2 ? encode(Encoding::kBf16, layout, values) : encode_fp32(values);
        CHECK_FALSE(pipeline.judge(
            judging(client, bytes, 1.5 + static_cast<double>(client), variant), bytes));
      }
      REQUIRE(pipeline.apply().ok());
    }
    return values_of(pipeline.model());
  };
  const auto once = model_after({0, 1, 2, 3, 4, 5, 6}, 1);
  CHECK(model_after({6, 2, 4, 0, 5, 1, 3}, 1) == once);
  const auto twice = model_after({3, 1, 4, 0, 6, 5, 2}, 2);
  CHECK(model_after({0, 1, 2, 3, 4, 5, 6}, 2) == twice);
  for (std::size_t i = 0; i < once.size(); ++i) {  // the second round moves it as the first did
    const float start = random_values(12, 3)[i];
    CHECK(twice[i] - once[i] == Approx(once[i] - start).margin(1e-5));
  }
}

TEST_CASE("an update of another class's size is rejected and changes nothing") {
  auto pipeline = make_mixed(mixed_fleet(), std::vector<float>(12, 0));
  const SharedBytes whole = encode_fp32(std::vector<float>(12, 1));
  const SharedBytes half = encode_fp32(std::vector<float>(7, 1));
  const auto as_half = pipeline.judge(judging(1, whole, 1, 1), whole);
  REQUIRE(as_half);
  CHECK(as_half->first == RejectReason::kWrongSize);
  const auto as_whole = pipeline.judge(judging(2, half, 1, 0), half);
  REQUIRE(as_whole);
  CHECK(as_whole->first == RejectReason::kWrongSize);
  CHECK(pipeline.counted().empty());
}

// ---- bad configurations

TEST_CASE("a network that cannot be cut is refused with the class and the reason") {
  RunConfig config;
  config.client.classes = {class_named("half", 0.5)};
  const ModelSpec logistic{.input_shape = {4}, .layers = {dense(2)}};
  CHECK(says(refusal(config, logistic), {"client.class.half.width", "no hidden layer"}));
  const ModelSpec normed{.input_shape = {4},
                         .layers = {dense(8), {.kind = LayerKind::kLayerNorm}, kRelu, dense(2)}};
  CHECK(says(refusal(config, normed), {"client.class.half.width", "layer 2 (layer-norm)"}));
  config.client.classes = {class_named("odd", 0)};
  CHECK(says(refusal(config), {"client.class.odd.width", "above 0"}));
}

TEST_CASE("strategies that compare updates take classes that differ in epochs only") {
  for (const char* strategy : {"fedmedian", "qfedavg"}) {
    RunConfig config;
    ClientClassConfig eager = class_named("eager");
    eager.local_epochs = 9;
    config.client.classes = {eager};
    CHECK(refusal(config, small_network(), strategy) == "");
    config.client.classes = {class_named("half", 0.5)};
    CHECK(says(refusal(config, small_network(), strategy), {"client.class.half.width", strategy}));
    ClientClassConfig rounded = class_named("rounded");
    rounded.precision = "bf16";
    config.client.classes = {rounded};
    CHECK(says(refusal(config, small_network(), strategy),
               {"client.class.rounded.precision", strategy}));
  }
}

TEST_CASE("a strategy that needs what an update began with refuses parts of the network") {
  RunConfig config;
  config.client.classes = {class_named("half", 0.5)};
  CHECK(
      says(refusal(config, small_network(), "fedasync"), {"client.class.half.width", "fedasync"}));
  config.client.classes = {class_named("rounded")};
  config.client.classes[0].precision = "bf16";
  CHECK(refusal(config, small_network(), "fedasync") == "");
}

TEST_CASE("secure sums and differential privacy refuse what devices would do differently") {
  RunConfig config = mixed_fleet();
  config.secure_aggregation.mode = "honest-but-curious";
  CHECK(says(refusal(config), {"client.class.half", "secure-aggregation.mode"}));
  config = mixed_fleet();
  config.privacy.mechanism = "central-gaussian";
  CHECK(says(refusal(config), {"client.class.half.width", "privacy.mechanism"}));
  config.client.classes.erase(config.client.classes.begin());
  CHECK(says(refusal(config), {"client.class.rounded.precision", "privacy.mechanism"}));
}

TEST_CASE("precisions of classes that do not go with the run's are refused") {
  RunConfig config;
  ClientClassConfig ranges = class_named("ranges");
  ranges.precision = "qat-int8";
  config.client.classes = {ranges};
  CHECK(says(refusal(config), {"client.class.ranges.precision", "qat-int8"}));
  ranges.precision = "fp8";
  config.client.classes = {ranges};
  CHECK(says(refusal(config), {"client.class.ranges.precision", "fp8"}));
  ranges.precision = "bf16";
  config.client.classes = {ranges};
  config.client.compressors = {"fp32"};
  CHECK(says(refusal(config), {"client.class.ranges.precision", "client.compressor"}));
  config.client.compressors = {"auto"};
  config.client.classes = {ranges, ranges};
  CHECK(says(refusal(config), {"client.class.ranges", "names"}));
}
