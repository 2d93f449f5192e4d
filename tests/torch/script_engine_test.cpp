// What a TorchScript engine computes: steps, buffers, randomness, losses.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/data_set.hpp>
#include <thread>

#include "script_models.hpp"

using namespace covey;
using namespace covey::torch_tests;

namespace {

RandomStream stream(std::uint64_t seed) { return RandomStream(seed, RandomPurpose::kTraining); }

std::vector<float> copy_of(std::span<const float> values) { return {values.begin(), values.end()}; }

std::size_t offset_of(const models::Engine& engine, const std::string& name) {
  for (const auto& tensor : engine.layout().tensors()) {
    if (tensor.name == name) return tensor.offset;
  }
  FAIL("no tensor " << name);
  return 0;
}

/// Weights after `steps` steps from the seed, on an engine of its own.
std::vector<float> train(models::Engine& engine, std::span<const float> start, std::uint64_t seed,
                         int steps, const Batch& batch) {
  REQUIRE(engine.load(encode_fp32(start).span()).ok());
  engine.begin_training({}, stream(seed));
  for (int i = 0; i < steps; ++i) engine.train_step(batch.inputs, batch.labels, 0.1f, 0);
  return copy_of(engine.trained());
}

}  // namespace

TEST_CASE("A TorchScript network takes the same steps as Covey's own network of the same layers") {
  const TemporaryFolder folder;
  const auto engine = make_loaded(save_dense(folder.file("net.pt"), 20, 16, 5), {20});
  ModelSpec spec;
  spec.input_shape = {20};
  LayerSpec hidden, relu, output;
  hidden.units = 16;
  relu.kind = LayerKind::kRelu;
  output.units = 5;
  spec.layers = {hidden, relu, output};
  const auto native = models::make_engine(spec, "fp32").value();
  REQUIRE(native->layout().size() == engine->layout().size());
  native->reserve(8);
  REQUIRE(native->load(encode_fp32(engine->initial()).span()).ok());

  const float proximal_mu = GENERATE(0.0f, 0.7f);
  engine->begin_training({}, stream(1));
  native->begin_training({}, stream(1));
  for (std::uint64_t step = 0; step < 20; ++step) {
    const Batch batch = random_batch(8, 20, 5, 100 + step);
    const double loss = engine->train_step(batch.inputs, batch.labels, 0.3f, proximal_mu);
    const double expected = native->train_step(batch.inputs, batch.labels, 0.3f, proximal_mu);
    REQUIRE(loss == Approx(expected).epsilon(1e-5));
  }
  for (std::size_t i = 0; i < engine->trained().size(); ++i) {
    REQUIRE(engine->trained()[i] == Approx(native->trained()[i]).margin(2e-6));
  }
  CHECK(engine->difference_squared_norm() ==
        Approx(native->difference_squared_norm()).epsilon(1e-4));
  const Batch batch = random_batch(8, 20, 5, 9);
  const auto mine = engine->evaluate(batch.inputs, batch.labels);
  const auto theirs = native->evaluate(batch.inputs, batch.labels);
  CHECK(mine.loss_sum == Approx(theirs.loss_sum).epsilon(1e-5));
  CHECK(mine.correct == theirs.correct);
  CHECK(mine.examples == 8);
}

TEST_CASE("The difference that an engine encodes is trained minus initial") {
  const TemporaryFolder folder;
  const auto engine = make_loaded(save_dense(folder.file("net.pt"), 6, 4, 3), {6});
  const Batch batch = random_batch(4, 6, 3, 1);
  engine->begin_training({}, stream(1));
  engine->train_step(batch.inputs, batch.labels, 0.5f, 0);
  const auto bytes = engine->encode_difference(Encoding::kFp32, stream(2)).value();
  std::vector<float> difference(engine->layout().size());
  REQUIRE(decode_fp32(bytes.span(), difference).ok());
  double squared = 0;
  for (std::size_t i = 0; i < difference.size(); ++i) {
    CHECK(difference[i] == engine->trained()[i] - engine->initial()[i]);
    squared += static_cast<double>(difference[i]) * difference[i];
  }
  CHECK(squared > 0);
  CHECK(engine->difference_squared_norm() == Approx(squared));
}

TEST_CASE("Batch-norm's running statistics are part of the model, its counter is not") {
  const TemporaryFolder folder;
  const auto engine = make_loaded(save_batch_norm(folder.file("net.pt")), {8, 8, 3});
  // 6*3*3*3 + 6 + 6 + 4*6 + 4 parameters, then 6 + 6 floats of buffers.
  REQUIRE(engine->layout().size() == 162 + 12 + 28 + 12);
  const std::size_t mean = offset_of(*engine, "running_mean");
  REQUIRE(mean == 202);
  REQUIRE(offset_of(*engine, "running_var") == 208);

  const Batch batch = random_batch(8, 192, 4, 3);
  engine->begin_training({}, stream(1));
  engine->train_step(batch.inputs, batch.labels, 0.0f, 0);  // moves the statistics alone
  CHECK(std::ranges::equal(engine->trained().first(mean), engine->initial().first(mean)));
  CHECK_FALSE(std::ranges::equal(engine->trained().subspan(mean), engine->initial().subspan(mean)));

  // A model with other statistics evaluates differently, so loading one reaches the module.
  const auto before = engine->evaluate(batch.inputs, batch.labels);
  std::vector<float> moved = copy_of(engine->trained());
  for (std::size_t i = mean; i < mean + 6; ++i) moved[i] += 0.2f;
  REQUIRE(engine->load(encode_fp32(moved).span()).ok());
  CHECK(engine->evaluate(batch.inputs, batch.labels).loss_sum != Approx(before.loss_sum));
}

TEST_CASE("Evaluation changes nothing, not even batch-norm's statistics") {
  const TemporaryFolder folder;
  const auto engine = make_loaded(save_batch_norm(folder.file("net.pt")), {8, 8, 3});
  const Batch batch = random_batch(8, 192, 4, 3);
  engine->evaluate(batch.inputs, batch.labels);
  CHECK(std::ranges::equal(engine->trained(), engine->initial()));
}

TEST_CASE("A round's result does not depend on what the engine did before") {
  const TemporaryFolder folder;
  const bool dropout = GENERATE(true, false);
  const std::string path =
      dropout ? save_dropout(folder.file("net.pt"), 12, 4) : save_batch_norm(folder.file("net.pt"));
  const std::vector<std::uint32_t> shape =
      dropout ? std::vector<std::uint32_t>{12} : std::vector<std::uint32_t>{8, 8, 3};
  const Batch batch = random_batch(8, dropout ? 12 : 192, 4, 3);
  const auto used = make_loaded(path, shape);
  const std::vector<float> start = copy_of(used->initial());
  train(*used, start, 5, 7, batch);
  const auto again = train(*used, start, 6, 5, batch);
  const auto fresh = make_loaded(path, shape);
  CHECK(again == train(*fresh, start, 6, 5, batch));
}

TEST_CASE("Dropout follows the round's seed, whatever other threads draw meanwhile") {
  const TemporaryFolder folder;
  const std::string path = save_dropout(folder.file("net.pt"), 12, 4);
  const Batch batch = random_batch(8, 12, 4, 3);
  const auto alone = make_loaded(path, {12});
  const std::vector<float> start = copy_of(alone->initial());
  const std::vector<float> expected = train(*alone, start, 1, 60, batch);
  CHECK(expected != train(*alone, start, 2, 60, batch));

  constexpr std::size_t kThreads = 4;
  std::vector<std::unique_ptr<models::Engine>> engines;
  for (std::size_t i = 0; i < kThreads; ++i) engines.push_back(make_loaded(path, {12}));
  std::vector<std::vector<float>> results(kThreads);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] { results[i] = train(*engines[i], start, 1, 60, batch); });
    }
  }
  for (const auto& result : results) CHECK(result == expected);
}

TEST_CASE("A network of tokens predicts at every step and leaves padding out") {
  const TemporaryFolder folder;
  const auto engine = make_loaded(save_next_token(folder.file("net.pt"), 30), {7});
  const models::DataShape shape = engine->data_shape();
  CHECK(shape.vocabulary == 30);
  CHECK(shape.classes == 30);
  CHECK(shape.example_size == 7);
  CHECK(shape.labels_per_example == 7);

  RandomStream random = stream(4);
  std::vector<float> tokens(2 * 7);
  std::vector<std::int32_t> labels(2 * 7);
  for (float& token : tokens) token = static_cast<float>(random.below(30));
  for (auto& label : labels) label = static_cast<std::int32_t>(random.below(30));
  const auto whole = engine->evaluate(tokens, labels);
  CHECK(whole.examples == 14);
  // Logits lie within 8 * 0.1^2, so each loss is about ln 30.
  CHECK(whole.loss() == Approx(std::log(30.0)).epsilon(0.05));
  std::vector<std::int32_t> padded = labels;
  for (std::size_t i = 11; i < 14; ++i) padded[i] = models::kNoLabel;
  CHECK(engine->evaluate(tokens, padded).examples == 11);
  engine->begin_training({}, stream(1));
  const double loss = engine->train_step(tokens, padded, 0.0f, 0);
  CHECK(loss == Approx(engine->evaluate(tokens, padded).loss()).epsilon(1e-5));
}

TEST_CASE("Frozen parameters travel and do not move") {
  using Kind = TensorOf::Kind;
  const TemporaryFolder folder;
  const std::string path =
      save_module(folder.file("net.pt"), {{"base", {5, 4}, Kind::kFrozen}, {"head", {4, 3}}},
                  "def forward(self, x):\n  return torch.matmul(torch.matmul(x, self.base), "
                  "self.head)\n");
  const auto script = covey::torch::load_script(path, covey::torch::Device::kCpu).value();
  CHECK(script.trainable == 12);
  const auto engine = make_loaded(path, {5});
  REQUIRE(offset_of(*engine, "base") == 12);
  OptimizerSpec optimizer;
  optimizer.weight_decay = 0.5f;  // would shrink what is not its business
  const Batch batch = random_batch(4, 5, 3, 1);
  engine->begin_training(optimizer, stream(1));
  engine->train_step(batch.inputs, batch.labels, 0.5f, 0);
  CHECK(std::ranges::equal(engine->trained().subspan(12), engine->initial().subspan(12)));
  CHECK_FALSE(std::ranges::equal(engine->trained().first(12), engine->initial().first(12)));
}

TEST_CASE("Mean squared error and logistic loss are means over the outputs") {
  const TemporaryFolder folder;
  // Gives its two parameters whatever the input: the losses can be written down.
  const std::string path =
      save_module(folder.file("net.pt"), {{"out", {2}}},
                  "def forward(self, x):\n  return torch.zeros_like(x) + self.out\n");
  const auto script = covey::torch::load_script(path, covey::torch::Device::kCpu).value();
  ModelSpec spec = spec_of(script, {2});
  const auto evaluated = [&](Loss loss, Target target) {
    spec.loss = loss;
    spec.target = target;
    auto engine = script.make_engine(spec, "fp32").value();
    const std::vector<float> weights{0.25f, -1.0f};
    REQUIRE(engine->load(encode_fp32(weights).span()).ok());
    const auto result =
        engine->evaluate(std::vector<float>{3, 5, 3, 5}, std::vector<std::int32_t>{0, 1});
    engine->begin_training({}, stream(1));
    const double step =
        engine->train_step(std::vector<float>{3, 5, 3, 5}, std::vector<std::int32_t>{0, 1}, 0, 0);
    CHECK(step == Approx(result.loss()).epsilon(1e-6));
    return result;
  };
  // One-hot targets (1, 0) and (0, 1).
  const double mse = (0.75 * 0.75 + 1) / 2 + (0.25 * 0.25 + 4) / 2;
  CHECK(evaluated(Loss::kMeanSquaredError, Target::kLabel).loss_sum == Approx(mse));
  CHECK(evaluated(Loss::kMeanSquaredError, Target::kLabel).correct == 1);
  const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
  const double bce = (softplus(-0.25) + softplus(-1.0)) / 2 + (softplus(0.25) + softplus(1.0)) / 2;
  CHECK(evaluated(Loss::kBinaryCrossEntropy, Target::kLabel).loss_sum == Approx(bce));
  const double rebuilt = 2 * (2.75 * 2.75 + 36) / 2;
  const auto reconstruction = evaluated(Loss::kMeanSquaredError, Target::kInput);
  CHECK(reconstruction.loss_sum == Approx(rebuilt));
  CHECK(reconstruction.correct == 0);
  CHECK(reconstruction.examples == 2);
}

TEST_CASE("Weights that a module shares are one tensor of the model") {
  const TemporaryFolder folder;
  const std::string path = save_shared(folder.file("net.pt"));
  const auto engine = make_loaded(path, {4});
  REQUIRE(engine->layout().size() == 16);
  const Batch batch = random_batch(3, 4, 4, 1);
  engine->begin_training({}, stream(1));
  engine->train_step(batch.inputs, batch.labels, 0.5f, 0);
  // The gradient of x W W by the product rule, numerically.
  const auto loss_at = [&](std::vector<float> weights) {
    REQUIRE(engine->load(encode_fp32(weights).span()).ok());
    return engine->evaluate(batch.inputs, batch.labels).loss();
  };
  const std::vector<float> start = copy_of(engine->initial());
  const std::vector<float> stepped = copy_of(engine->trained());
  for (const std::size_t i : {std::size_t{0}, std::size_t{6}, std::size_t{15}}) {
    constexpr float kStep = 0.01f;
    std::vector<float> up = start, down = start;
    up[i] += kStep;
    down[i] -= kStep;
    const double slope = (loss_at(up) - loss_at(down)) / (2 * kStep);
    CHECK((start[i] - stepped[i]) / 0.5f == Approx(slope).margin(2e-4));
  }
}
