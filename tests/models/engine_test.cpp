#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/engine.hpp>
#include <covey/models/optimizer.hpp>
#include <vector>

using namespace covey;
using namespace covey::models;

namespace {

constexpr std::uint64_t kSeed = 77;
constexpr std::size_t kBatch = 8;

ModelSpec small_network() {
  LayerSpec hidden, relu, out;
  hidden.units = 16;
  relu.kind = LayerKind::kRelu;
  out.units = 3;
  ModelSpec spec;
  spec.input_shape = {6};
  spec.layers = {hidden, relu, out};
  return spec;
}

/// Three classes that a small network tells apart: the label's own two features are large.
struct Batch {
  std::vector<float> inputs = std::vector<float>(kBatch * 6);
  std::vector<std::int32_t> labels = std::vector<std::int32_t>(kBatch);

  explicit Batch(std::uint64_t client) {
    RandomStream random(kSeed, RandomPurpose::kDataGeneration, {}, ClientId{client});
    for (std::size_t i = 0; i < kBatch; ++i) {
      labels[i] = static_cast<std::int32_t>(random.below(3));
      for (std::size_t f = 0; f < 6; ++f) {
        const bool own = static_cast<std::size_t>(labels[i]) == f / 2;
        inputs[i * 6 + f] = static_cast<float>(random.normal(own ? 1.5 : 0, 0.3));
      }
    }
  }
};

ParameterVector initial_model(const ModelSpec& spec, std::string_view precision) {
  const auto network = *make_network(spec, precision);
  ParameterVector initial(network.num_parameters());
  network.initialise(initial.span(), RandomStream(kSeed, RandomPurpose::kModelInitialisation));
  return initial;
}

SharedBytes model_for(std::string_view precision, const Engine& engine,
                      const ParameterVector& initial) {
  return encode(*model_encoding(precision), engine.layout(), initial.span());
}

double train(Engine& engine, int steps, float mu = 0) {
  double loss = 0;
  for (int step = 0; step < steps; ++step) {
    const Batch batch(static_cast<std::uint64_t>(step));
    loss = engine.train_step(batch.inputs, batch.labels, 0.1f, mu);
  }
  return loss;
}

RandomStream draws(std::uint64_t client = 0) {
  return RandomStream(kSeed, RandomPurpose::kTrainingStep, {}, ClientId{client});
}

}  // namespace

TEST_CASE("every supported precision trains, and its update is what moved") {
  CAPTURE(kSeed);
  const ModelSpec spec = small_network();
  for (const std::string& precision : supported_precisions()) {
    CAPTURE(precision);
    const ParameterVector initial = initial_model(spec, precision);
    auto engine = std::move(*make_engine(spec, precision));
    CHECK(engine->layout() == make_network(spec, precision)->layout());
    CHECK(engine->data_shape().example_size == 6);
    CHECK(engine->data_shape().classes == 3);
    engine->reserve(kBatch);
    const SharedBytes model = model_for(precision, *engine, initial);
    REQUIRE(engine->load(model.span()).ok());
    CHECK(engine->difference_squared_norm() == 0);
    engine->begin_training({}, draws());
    const double before = train(*engine, 1);
    train(*engine, 150);
    const Batch unseen(1000);
    const Evaluation after = engine->evaluate(unseen.inputs, unseen.labels);
    CHECK(before == Approx(std::log(3.0)).epsilon(0.3));  // chance among three classes
    CHECK(after.loss() < 0.3);
    CHECK(after.correct >= 7);
    CHECK(after.examples == kBatch);
    CHECK(engine->finite());
    const Encoding encoding = *model_encoding(precision);
    const auto update = engine->encode_difference(encoding, draws());
    REQUIRE(update.ok());
    std::vector<float> difference(initial.size());
    REQUIRE(decode(encoding, engine->layout(), update->span(), difference).ok());
    double squares = 0;
    for (const float d : difference) squares += static_cast<double>(d) * d;
    CHECK(squares > 0.01);
    // A bf16 update is rounded on its way, each value by 2^-7 at most.
    const double rounding = precision == "bf16" ? 0x1p-6 : 1e-5;
    CHECK(engine->difference_squared_norm() == Approx(squares).epsilon(rounding));
    // The next round begins at its model, whatever was trained before.
    REQUIRE(engine->load(model.span()).ok());
    engine->begin_training({}, draws());
    CHECK(train(*engine, 1) == before);
  }
}

TEST_CASE("an engine of any precision repeats itself from the same draws") {
  CAPTURE(kSeed);
  const ModelSpec spec = small_network();
  for (const std::string& precision : supported_precisions()) {
    CAPTURE(precision);
    const ParameterVector initial = initial_model(spec, precision);
    const Encoding encoding = *model_encoding(precision);
    const auto run = [&](Engine& engine, float mu, std::uint64_t client) {
      engine.reserve(kBatch);
      REQUIRE(engine.load(model_for(precision, engine, initial).span()).ok());
      engine.begin_training({}, draws(client));
      train(engine, 40, mu);
      return sha256(engine.encode_difference(encoding, draws(client))->span());
    };
    auto engine = std::move(*make_engine(spec, precision));
    auto other = std::move(*make_engine(spec, precision));
    const Digest first = run(*engine, 0, 1);
    const Digest proximal = run(*engine, 1.0f, 1);
    CHECK(proximal != first);
    CHECK(run(*engine, 0, 1) == first);
    CHECK(run(*engine, 1.0f, 1) == proximal);
    CHECK(run(*other, 0, 1) == first);
    if (precision == "int8") CHECK(run(*other, 0, 2) != first);  // its steps are rounded by draws
  }
}

TEST_CASE("a model of another encoding is refused, and the one before is kept") {
  const ModelSpec spec = small_network();
  for (const std::string& precision : supported_precisions()) {
    CAPTURE(precision);
    const ParameterVector initial = initial_model(spec, precision);
    auto engine = std::move(*make_engine(spec, precision));
    engine->reserve(kBatch);
    const SharedBytes model = model_for(precision, *engine, initial);
    REQUIRE(engine->load(model.span()).ok());
    const Batch batch(1);
    const double loss = engine->evaluate(batch.inputs, batch.labels).loss_sum;
    CHECK_FALSE(engine->load(model.span().first(model.size() - 1)).ok());
    CHECK_FALSE(engine->load({}).ok());
    CHECK(engine->evaluate(batch.inputs, batch.labels).loss_sum == loss);
  }
}

TEST_CASE("fp32 shows its weights and encodes their difference in any way") {
  const ModelSpec spec = small_network();
  const ParameterVector initial = initial_model(spec, "fp32");
  auto engine = std::move(*make_engine(spec, "fp32"));
  engine->reserve(kBatch);
  REQUIRE(engine->load(encode_fp32(initial.span()).span()).ok());
  engine->begin_training({}, draws());
  train(*engine, 20);
  CHECK(std::ranges::equal(engine->initial(), initial.span()));
  REQUIRE(engine->trained().size() == initial.size());
  for (const Encoding encoding : {Encoding::kFp32, Encoding::kBf16, Encoding::kInt8}) {
    const auto update = engine->encode_difference(encoding, draws());
    REQUIRE(update.ok());
    CHECK(update->size() == encoded_size(encoding, engine->layout()));
  }
  std::vector<float> update(initial.size());
  REQUIRE(decode_fp32(engine->encode_difference(Encoding::kFp32, draws())->span(), update).ok());
  for (std::size_t i = 0; i < update.size(); ++i) {
    REQUIRE(update[i] == engine->trained()[i] - initial[i]);
  }
}

TEST_CASE("an engine's optimiser state does not outlive its round") {
  const ModelSpec spec = small_network();
  const ParameterVector initial = initial_model(spec, "fp32");
  auto engine = std::move(*make_engine(spec, "fp32"));
  engine->reserve(kBatch);
  OptimizerSpec adam, momentum;
  adam.kind = OptimizerKind::kAdam;
  momentum.kind = OptimizerKind::kMomentum;
  const auto round = [&](const OptimizerSpec& optimizer) {
    REQUIRE(engine->check_training(optimizer, kBatch).ok());
    REQUIRE(engine->load(encode_fp32(initial.span()).span()).ok());
    engine->begin_training(optimizer, draws());
    train(*engine, 10);
    return sha256(engine->encode_difference(Encoding::kFp32, draws())->span());
  };
  const Digest plain = round({}), with_momentum = round(momentum), with_adam = round(adam);
  CHECK(plain != with_momentum);
  CHECK(with_momentum != with_adam);
  CHECK(round(adam) == with_adam);
  CHECK(round(momentum) == with_momentum);
  CHECK(round({}) == plain);
}

TEST_CASE("what no engine can do is refused with what can") {
  const auto unknown = make_engine(small_network(), "fp8");
  REQUIRE_FALSE(unknown.ok());
  CHECK_THAT(unknown.error().message, Catch::Contains("fp8") && Catch::Contains("fp32"));
  ModelSpec script;
  script.torchscript = std::string(64, 'a');
  CHECK_THAT(make_engine(script, "fp32").error().message, Catch::Contains("libtorch"));
}

TEST_CASE("an engine that shares its model's bytes trains like one that copied them") {
  const std::string precision = GENERATE("fp32", "bf16", "qat-int8", "int8");
  INFO(precision);
  const auto update = [&](bool shared, bool released) {
    const auto engine = *make_engine(*preset_model("2nn", {20}, 3), precision);
    ParameterVector initial(engine->layout().size());
    for (std::size_t i = 0; i < initial.size(); ++i)
      initial[i] = 0.001f * static_cast<float>(i % 97);
    const SharedBytes model = encode(*model_encoding(precision), engine->layout(), initial.span());
    const std::vector<float> inputs(4 * 20, 0.5f);
    const std::vector<std::int32_t> labels{0, 1, 2, 0};
    if (released) {  // used before, for something else
      engine->reserve(4);
      REQUIRE(engine->load(model.span()).ok());
      engine->begin_training({}, draws());
      engine->train_step(inputs, labels, 0.1f, 0.1f);
      if (engine->take_difference().size() > 0) REQUIRE(engine->trained().empty());
      engine->release_scratch();
    }
    REQUIRE((shared ? engine->load_shared(model) : engine->load(model.span())).ok());
    engine->reserve(4);
    engine->begin_training({}, draws());
    for (int step = 0; step < 3; ++step) engine->train_step(inputs, labels, 0.1f, 0.1f);
    const Encoding encoding = precision == "int8" ? Encoding::kInt8 : Encoding::kFp32;
    return sha256(engine->encode_difference(encoding, draws())->span());
  };
  const Digest expected = update(false, false);
  CHECK(update(true, false) == expected);
  CHECK(update(false, true) == expected);
  CHECK(update(true, true) == expected);
}

TEST_CASE("the difference taken from an engine is the one it would encode") {
  const auto engine = *make_engine(*preset_model("2nn", {20}, 3), "fp32");
  const ParameterVector initial(engine->layout().size());
  engine->reserve(1);
  REQUIRE(engine->load_shared(encode_fp32(initial.span())).ok());
  engine->begin_training({}, draws());
  const std::vector<float> inputs(20, 0.5f);
  engine->train_step(inputs, std::vector<std::int32_t>{1}, 0.1f, 0);
  const SharedBytes encoded = *engine->encode_difference(Encoding::kFp32, draws());
  const SharedBytes taken = encode_fp32(engine->take_difference());
  CHECK(std::ranges::equal(taken.span(), encoded.span()));
  CHECK(taken.digest() == encoded.digest());
}
