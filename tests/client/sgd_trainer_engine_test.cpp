#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/optimizer.hpp>

#include "training_fixture.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

TEST_CASE("an update is rounded to the plan's compressor, each device's by its own draws") {
  CAPTURE(kSeed);
  Fixture f;
  const auto layout = models::Network::make(f.task.plan.model)->layout();
  const std::vector<float> exact = reference(f, 3, 0).update;
  f.task.plan.compressor = GENERATE(std::string("bf16"), std::string("int8"));
  CAPTURE(f.task.plan.compressor);
  const Encoding encoding = *encoding_named(f.task.plan.compressor);
  const auto trained = f.train();
  REQUIRE(trained);
  CHECK(trained->update.size() == encoded_size(encoding, layout));
  CHECK(trained->digest == sha256(trained->update.span()));
  std::vector<float> values(layout.size());
  REQUIRE(covey::decode(encoding, layout, trained->update.span(), values));
  float largest = 0;
  for (const float value : exact) largest = std::max(largest, std::abs(value));
  const float step = encoding == Encoding::kBf16 ? largest / 128 : 1.01f * largest / 127;
  for (std::size_t i = 0; i < exact.size(); ++i) CHECK(std::abs(values[i] - exact[i]) <= step);
  CHECK(values != exact);
  CHECK(f.train()->digest == trained->digest);
  // What a device draws for rounding is its own: the same difference of another client, round or
  // seed rounds otherwise.
  RandomStream own(kSeed, RandomPurpose::kUpdateRounding, f.task.round, f.task.client);
  RandomStream other(kSeed, RandomPurpose::kUpdateRounding, f.task.round, ClientId{12});
  CHECK(sha256(encode(encoding, layout, exact, &own).span()) == trained->digest);
  CHECK(sha256(encode(encoding, layout, exact, &other).span()) != trained->digest);
}

TEST_CASE("an optimiser's steps are those of the network's, and begin anew in every round") {
  CAPTURE(kSeed);
  Fixture f;
  f.task.plan.optimizer.kind = GENERATE(OptimizerKind::kMomentum, OptimizerKind::kNesterov,
                                        OptimizerKind::kAdam, OptimizerKind::kAdamW);
  f.task.plan.optimizer.weight_decay = 0.01f;
  const auto network = *models::Network::make(f.task.plan.model);
  models::Workspace workspace(network, {.max_batch = 4, .keeps_gradient = true});
  models::Optimizer optimizer(f.task.plan.optimizer, network.num_parameters());
  ParameterVector w = f.initial.clone();
  std::vector<std::uint32_t> order = f.indices;
  RandomStream random(kSeed, RandomPurpose::kTraining, f.task.round, f.task.client);
  for (int epoch = 0; epoch < 3; ++epoch) {
    random.shuffle(std::span(order));
    for (std::size_t begin = 0; begin < order.size(); begin += 4) {
      const std::size_t size = std::min<std::size_t>(4, order.size() - begin);
      std::vector<float> x(size * kFeatures);
      std::vector<std::int32_t> y(size);
      f.data.gather(std::span(order).subspan(begin, size), x, y);
      models::SgdStep step;
      step.learning_rate = f.task.plan.learning_rate;
      step.optimizer = &optimizer;
      network.train_step(workspace, x, y, w.span(), step);
    }
  }
  SgdTrainer trainer(f.data, f.registry);
  trainer.use_examples(f.indices);
  for (int round = 0; round < 2; ++round) {
    const auto trained = trainer.train(f.task, {});
    REQUIRE(trained);
    const auto update = decode(*trained);
    bool same = true;
    for (std::size_t i = 0; i < w.size(); ++i) same &= update[i] == w[i] - f.initial[i];
    CHECK(same);
  }
}

namespace {

/// Sends something other than the difference: needs the weights.
class SumOfModels final : public strategies::SumStrategy {
 public:
  std::string_view name() const override { return "sum-of-models"; }
  bool sends_difference() const override { return false; }
  Result<void> fill_update(const strategies::LocalOutcome& outcome,
                           std::span<float> update) const override {
    for (std::size_t i = 0; i < update.size(); ++i) {
      update[i] = outcome.trained[i] + outcome.initial[i];
    }
    return {};
  }
  Result<void> apply(const strategies::Sum&, strategies::ServerModel) override { return {}; }
};

/// Trains in fp32 and shows nobody its weights, as engines of low precision have none to show.
class SecretiveEngine final : public models::Engine {
 public:
  explicit SecretiveEngine(const ModelSpec& spec) : inner_(*models::make_engine(spec, "fp32")) {}
  const ModelLayout& layout() const override { return inner_->layout(); }
  models::DataShape data_shape() const override { return inner_->data_shape(); }
  void reserve(std::size_t max_batch) override { inner_->reserve(max_batch); }
  std::size_t max_batch() const override { return inner_->max_batch(); }
  Result<void> load(std::span<const std::byte> model) override { return inner_->load(model); }
  void begin_training(const OptimizerSpec& optimizer, RandomStream random) override {
    inner_->begin_training(optimizer, random);
  }
  double train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                    float learning_rate, float proximal_mu) override {
    return inner_->train_step(inputs, labels, learning_rate, proximal_mu);
  }
  models::Evaluation evaluate(std::span<const float> inputs,
                              std::span<const std::int32_t> labels) override {
    return inner_->evaluate(inputs, labels);
  }
  bool finite() const override { return inner_->finite(); }
  double difference_squared_norm() const override { return inner_->difference_squared_norm(); }
  Result<SharedBytes> encode_difference(Encoding encoding, RandomStream random) const override {
    return inner_->encode_difference(encoding, random);
  }
  std::size_t bytes() const override { return inner_->bytes(); }

 private:
  std::unique_ptr<models::Engine> inner_;
};

}  // namespace

TEST_CASE(
    "a strategy may make its own update where the engine keeps fp32 weights, and only there") {
  Fixture f;
  REQUIRE(f.registry.add("sum-of-models", [](const strategies::Parameters&) {
    return Result<std::unique_ptr<strategies::Strategy>>(std::make_unique<SumOfModels>());
  }));
  const std::vector<float> difference = reference(f, 3, 0).update;
  f.task.plan.strategy = "sum-of-models";
  SECTION("with fp32 weights") {
    const auto trained = f.train();
    REQUIRE(trained);
    const auto values = decode(*trained);
    for (std::size_t i = 0; i < values.size(); ++i) {
      CHECK(values[i] == Approx(difference[i] + 2 * f.initial[i]).margin(1e-6));
    }
  }
  SECTION("without") {
    SgdTrainer trainer(f.data, f.registry, [](const ModelSpec& spec, std::string_view) {
      return Result<std::unique_ptr<models::Engine>>(std::make_unique<SecretiveEngine>(spec));
    });
    trainer.use_examples(f.indices);
    const auto trained = trainer.train(f.task, {});
    REQUIRE_FALSE(trained);
    CHECK_THAT(trained.error().message,
               Catch::Contains("sum-of-models") && Catch::Contains("training in fp32"));
    f.task.plan.strategy = "fedavg";  // the difference it can send
    CHECK(decode(*trainer.train(f.task, {})) == difference);
  }
}

TEST_CASE("examples that are no tokens, or of too many, are refused by a network of tokens") {
  Fixture f;
  ModelSpec spec;
  spec.input_shape = {kFeatures};
  LayerSpec embedding;
  embedding.kind = LayerKind::kEmbedding;
  embedding.units = 4;
  embedding.vocabulary = 258;
  LayerSpec dense;
  dense.units = 258;
  spec.layers = {embedding, dense};
  f.use_model(spec);
  const auto tokens = [](std::uint32_t vocabulary) {
    std::vector<std::uint16_t> features(50 * kFeatures, 3);
    std::vector<std::int32_t> labels(50 * kFeatures, 2);
    labels[7] = models::kNoLabel;
    return *models::DataSet::from_tokens(kFeatures, std::move(features), std::move(labels),
                                         vocabulary);
  };
  SECTION("numbers") {
    const auto trained = f.train();
    REQUIRE_FALSE(trained);
    CHECK_THAT(trained.error().message,
               Catch::Contains("takes tokens below 258, the local examples are numbers"));
  }
  SECTION("tokens of a larger vocabulary") {
    f.data = tokens(300);
    CHECK_THAT(f.train().error().message, Catch::Contains("are tokens below 300"));
  }
  SECTION("tokens of its own vocabulary are trained on, a prediction per step") {
    f.data = tokens(258);
    f.task.plan.strategy = "qfedavg";
    f.task.plan.strategy_parameters = {{"q", 1.0}};
    const auto trained = f.train();
    REQUIRE(trained);
    CHECK(trained->steps == 21);
    // ln 258 = 5.55 before anything is learnt; always the same label is learnt soon.
    CHECK(trained->train_loss > 0);
    CHECK(trained->train_loss < 5.7);
    CHECK(trained->weight * static_cast<double>(f.task.plan.learning_rate) < 7);
  }
  SECTION("tokens are refused by a network of numbers") {
    f.use_model(*preset_model("logistic", {kFeatures}, 258));
    f.data = tokens(258);
    CHECK_THAT(f.train().error().message,
               Catch::Contains("takes numbers, the local examples are tokens below 258"));
  }
}
