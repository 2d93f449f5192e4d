#include <catch2/catch.hpp>
#include <cstring>
#include <limits>
#include <numeric>

#include "int8_support.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::int8_test;

constexpr std::size_t kBatch = 10;

/// A network, its parameters on the device and what they were loaded from.
struct Trained {
  Int8Network network;
  SharedBytes blob;
  Int8Parameters parameters;
  Int8Workspace workspace;

  static Trained make(const ModelSpec& spec, std::uint64_t seed) {
    auto network = Int8Network::make(spec);
    REQUIRE(network.ok());
    const auto initial = initial_parameters(spec, seed);
    SharedBytes blob = encode_int8(initial, network->layout());
    Int8Parameters parameters(*network);
    REQUIRE(network->load(parameters, blob.span()).ok());
    auto workspace = Int8Workspace::make(*network, kBatch);
    REQUIRE(workspace.ok());
    return {std::move(*network), std::move(blob), std::move(parameters), std::move(*workspace)};
  }

  double step(const Batch& batch, const Int8Step& options) {
    return network.train_step(workspace, batch.inputs, batch.labels, parameters, options);
  }
  void reset() { REQUIRE(network.load(parameters, blob.span()).ok()); }
  std::vector<std::byte> bytes() const {
    const SharedBytes now = network.encode(parameters);
    return {now.span().begin(), now.span().end()};
  }
};

std::string refusal(const ModelSpec& spec) {
  const auto network = Int8Network::make(spec);
  REQUIRE_FALSE(network.ok());
  return network.error().message;
}

}  // namespace

TEST_CASE("int8: the layout is that of the network in floats", "[int8]") {
  for (const auto& [name, spec] : int8_specs()) {
    CAPTURE(name);
    const auto in_floats = Network::make(spec);
    const auto in_int8 = Int8Network::make(spec);
    REQUIRE(in_int8.ok());
    CHECK(in_int8->layout() == in_floats->layout());
    CHECK(in_int8->inputs() == in_floats->inputs());
    CHECK(in_int8->classes() == in_floats->classes());
  }
}

TEST_CASE("int8: a layer that integers do not train is refused by name", "[int8]") {
  CHECK(refusal({{8}, {dense(4), relu(), {.kind = LayerKind::kLstm, .units = 3}, dense(2)}}) ==
        "layer 3 (lstm) cannot be trained in int8; fp32 and bf16 can");
  CHECK(refusal({{8, 8, 1},
                 {{.kind = kConv2d, .units = 4, .kernel = 3, .stride = 2}, flatten(), dense(2)}}) ==
        "layer 1 (conv2d) with stride 2 cannot be trained in int8; fp32 and bf16 can");
  CHECK_THAT(refusal({{8, 8, 1},
                      {{.kind = kConv2d, .units = 4, .kernel = 3, .padding = Padding::kValid},
                       flatten(),
                       dense(2)}}),
             Catch::StartsWith("layer 1 (conv2d) with valid padding cannot be trained in int8"));
  CHECK_THAT(
      refusal({{8, 8, 1}, {{.kind = kMaxPool2d, .kernel = 3, .stride = 2}, flatten(), dense(2)}}),
      Catch::StartsWith("layer 1 (max-pool2d) with window 3 and stride 2 cannot"));
  CHECK_THAT(refusal({{8}, {dense(4), relu()}}), Catch::Contains("no relu behind it"));
  CHECK_THAT(refusal({{4, 4, 1}, {convolution(3, 3), flatten()}}),
             Catch::Contains("last layer 2 (flatten) gives 48; in int8 it must be a dense layer"));
  CHECK_THAT(refusal({{70'000}, {dense(2)}}), Catch::Contains("sums 70000 products"));
  CHECK_THAT(refusal({{4, 4, 1}, {dense(2)}}), Catch::Contains("put a flatten layer before it"));
  ModelSpec squared{{8}, {dense(2)}};
  squared.loss = Loss::kMeanSquaredError;
  CHECK_THAT(refusal(squared),
             Catch::Contains("cannot be trained in int8, which knows cross-entropy"));
  const IsaScope isa("avx1024");
  CHECK(refusal({{8}, {dense(2)}}) ==
        "the environment variable COVEY_ISA is \"avx1024\"; there are sse2, avx2 and avx512");
}

TEST_CASE("int8: what was loaded is what is encoded, and a refused blob changes nothing",
          "[int8]") {
  constexpr std::uint64_t kSeed = 3;
  for (const auto& [name, spec] : int8_specs()) {
    CAPTURE(name, kSeed);
    Trained trained = Trained::make(spec, kSeed);
    const std::vector<std::byte> before(trained.blob.span().begin(), trained.blob.span().end());
    CHECK(trained.bytes() == before);
    auto broken = before;
    std::memset(broken.data(), 0xFF, sizeof(float));  // the first scale: not a number
    const auto refused = trained.network.load(trained.parameters, broken);
    REQUIRE_FALSE(refused.ok());
    CHECK_THAT(refused.error().message, Catch::Contains("the scale of channel 0 of"));
    CHECK(trained.bytes() == before);
    CHECK_FALSE(trained.network.load(trained.parameters, std::span(before).first(5)).ok());
    CHECK(trained.network.difference_squared_norm(trained.parameters, before) == 0);
  }
}

TEST_CASE("int8: training gives the same bits on every instruction set and in every run",
          "[int8]") {
  constexpr std::uint64_t kSeed = 11;
  for (const auto& [name, spec] : int8_specs()) {
    std::vector<std::vector<std::byte>> results;
    std::vector<std::vector<double>> losses;
    for (const char* isa : {"sse2", "avx2", "avx512", "avx512"}) {
      const IsaScope scope(isa);
      Trained trained = Trained::make(spec, kSeed);
      const Trained anchor = Trained::make(spec, kSeed + 1);
      std::vector<double>& loss = losses.emplace_back();
      for (std::uint64_t step = 0; step < 6; ++step) {
        const std::size_t size = step % 2 == 0 ? kBatch : 7;
        const Batch batch =
            random_batch(size, trained.network.inputs(), trained.network.classes(), kSeed + step);
        loss.push_back(trained.step(batch, {.learning_rate = 0.2f,
                                            .proximal_mu = step == 5 ? 0.1f : 0.0f,
                                            .anchor = &anchor.parameters,
                                            .seed = step}));
      }
      results.push_back(trained.bytes());
    }
    CAPTURE(name, kSeed);
    for (std::size_t i = 1; i < results.size(); ++i) {
      CHECK(results[i] == results[0]);
      CHECK(losses[i] == losses[0]);
    }
  }
}

TEST_CASE("int8: the mean of many steps from one point is the step in floats", "[int8]") {
  // Rounding is unbiased, so over seeds the step approaches -learning_rate * gradient. What stays
  // are activations and gradients rounded to 7 bits.
  constexpr std::uint64_t kSeed = 5;
  constexpr float kLearningRate = 0.05f;
  constexpr std::uint64_t kSteps = 400;
  for (const auto& [name, spec] : int8_specs()) {
    CAPTURE(name, kSeed);
    Trained trained = Trained::make(spec, kSeed);
    const ModelLayout& layout = trained.network.layout();
    const Batch batch =
        random_batch(kBatch, trained.network.inputs(), trained.network.classes(), kSeed);
    const std::vector<float> start = decoded(trained.blob, layout);
    std::vector<double> mean(layout.size());
    double loss = 0;
    for (std::uint64_t seed = 0; seed < kSteps; ++seed) {
      trained.reset();
      loss = trained.step(batch, {.learning_rate = kLearningRate, .seed = seed});
      const auto step = decoded(
          trained.network.encode_difference(trained.parameters, trained.blob.span()), layout);
      for (std::size_t i = 0; i < mean.size(); ++i)
        mean[i] += static_cast<double>(step[i]) / kSteps;
    }
    const auto in_floats = Network::make(spec);
    Workspace workspace(*in_floats, kBatch);
    std::vector<float> gradient(layout.size());
    const double float_loss =
        in_floats->gradient(workspace, batch.inputs, batch.labels, start, gradient);
    CHECK(loss == Approx(float_loss).epsilon(0.02));
    for (const TensorLayout& tensor : layout.tensors()) {
      double dot = 0;
      double squares = 0;
      double expected_squares = 0;
      for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size(); ++i) {
        const double expected =
            -static_cast<double>(kLearningRate) * static_cast<double>(gradient[i]);
        dot += mean[i] * expected;
        squares += mean[i] * mean[i];
        expected_squares += expected * expected;
      }
      CAPTURE(tensor.name);
      // a factor s_w or s_x in the wrong place would be off by orders of magnitude
      CHECK(dot / expected_squares == Approx(1.0).margin(0.12));
      CHECK(dot / std::sqrt(squares * expected_squares) > 0.94);
    }
  }
}

TEST_CASE("int8: a tiny problem is learnt", "[int8]") {
  constexpr std::uint64_t kSeed = 17;
  for (const auto& [name, spec] : int8_specs()) {
    if (spec.layers.size() < 3) continue;
    CAPTURE(name, kSeed);
    Trained trained = Trained::make(spec, kSeed);
    const std::size_t classes = trained.network.classes();
    const Batch batch = random_batch(kBatch, trained.network.inputs(), classes, kSeed);
    const double first = trained.step(batch, {.learning_rate = 0.1f});
    double last = first;
    for (std::uint64_t round = 0; round < 30; ++round) {
      for (std::uint64_t step = 0; step < 20; ++step) {
        last = trained.step(batch, {.learning_rate = 0.1f, .seed = round * 20 + step});
      }
      // as a server would: the same values on scales that fit them again
      const auto values =
          decoded(trained.network.encode(trained.parameters), trained.network.layout());
      trained.blob = encode_int8(values, trained.network.layout());
      trained.reset();
    }
    CHECK(last < 0.25 * first);
    const Evaluation evaluation =
        trained.network.evaluate(trained.workspace, batch.inputs, batch.labels, trained.parameters);
    CHECK(evaluation.accuracy() == 1.0);
    CHECK(evaluation.examples == kBatch);
  }
}

TEST_CASE("int8: the proximal term pulls towards the anchor", "[int8]") {
  // The same steps with and without it, averaged over seeds: they differ by
  // -learning_rate * mu * (w - anchor) = -0.05 * 2 * (w - anchor).
  constexpr std::uint64_t kSeed = 23;
  constexpr float kLearningRate = 0.05f;
  constexpr float kMu = 2.0f;
  constexpr std::uint64_t kSteps = 300;
  const ModelSpec spec{{40}, {dense(16), relu(), dense(4)}};
  Trained trained = Trained::make(spec, kSeed);
  const ModelLayout& layout = trained.network.layout();
  // an anchor on the same scales: the model after some large steps
  Trained anchor = Trained::make(spec, kSeed);
  const Batch batch = random_batch(kBatch, 40, 4, kSeed);
  for (std::uint64_t i = 0; i < 5; ++i) anchor.step(batch, {.learning_rate = 1.0f, .seed = i});
  const auto start = decoded(trained.blob, layout);
  const auto target = decoded(anchor.network.encode(anchor.parameters), layout);
  std::vector<double> difference(layout.size());
  for (std::uint64_t seed = 0; seed < kSteps; ++seed) {
    for (const double sign : {1.0, -1.0}) {
      trained.reset();
      trained.step(batch, {.learning_rate = kLearningRate,
                           .proximal_mu = sign > 0 ? kMu : 0.0f,
                           .anchor = &anchor.parameters,
                           .seed = seed});
      const auto now = decoded(trained.network.encode(trained.parameters), layout);
      for (std::size_t i = 0; i < now.size(); ++i) {
        difference[i] += sign * static_cast<double>(now[i]) / kSteps;
      }
    }
  }
  double dot = 0;
  double squares = 0;
  for (std::size_t i = 0; i < difference.size(); ++i) {
    const double expected =
        -static_cast<double>(kLearningRate * kMu) * static_cast<double>(start[i] - target[i]);
    dot += difference[i] * expected;
    squares += expected * expected;
  }
  REQUIRE(squares > 0);
  CHECK(dot / squares == Approx(1.0).margin(0.05));
}

TEST_CASE("int8: the update is the difference of the models and counts whole steps", "[int8]") {
  constexpr std::uint64_t kSeed = 29;
  for (const auto& [name, spec] : int8_specs()) {
    CAPTURE(name, kSeed);
    Trained trained = Trained::make(spec, kSeed);
    const ModelLayout& layout = trained.network.layout();
    const Batch batch =
        random_batch(kBatch, trained.network.inputs(), trained.network.classes(), kSeed);
    for (std::uint64_t i = 0; i < 3; ++i) trained.step(batch, {.learning_rate = 0.3f, .seed = i});
    const auto update =
        decoded(trained.network.encode_difference(trained.parameters, trained.blob.span()), layout);
    const auto before = decoded(trained.blob, layout);
    const auto after = decoded(trained.network.encode(trained.parameters), layout);
    double squares = 0;
    for (std::size_t i = 0; i < update.size(); ++i) {
      // differences of at most 127 steps: exact up to the rounding of the subtraction here
      REQUIRE(update[i] == Approx(after[i] - before[i]).margin(1e-6));
      squares += static_cast<double>(update[i]) * static_cast<double>(update[i]);
    }
    CHECK(squares > 0);
    CHECK(trained.network.difference_squared_norm(trained.parameters, trained.blob.span()) ==
          Approx(squares));
  }
}

TEST_CASE("int8: inputs that are not finite give NaN and change nothing", "[int8]") {
  constexpr std::uint64_t kSeed = 31;
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Trained trained = Trained::make(int8_specs()[1].spec, kSeed);
    Batch batch = random_batch(kBatch, trained.network.inputs(), trained.network.classes(), kSeed);
    batch.inputs[100] = bad;
    const auto before = trained.bytes();
    CHECK(std::isnan(trained.step(batch, {})));
    CHECK(trained.bytes() == before);
    CHECK(trained.network.finite(trained.parameters));
    CHECK(std::isnan(
        trained.network.evaluate(trained.workspace, batch.inputs, batch.labels, trained.parameters)
            .loss()));
  }
}

TEST_CASE("int8: an absurd learning rate ends in a finite model or in NaN, never in a trap",
          "[int8]") {
  constexpr std::uint64_t kSeed = 37;
  for (const auto& [name, spec] : int8_specs()) {
    CAPTURE(name, kSeed);
    Trained trained = Trained::make(spec, kSeed);
    const Batch batch =
        random_batch(kBatch, trained.network.inputs(), trained.network.classes(), kSeed);
    for (std::uint64_t i = 0; i < 20; ++i) {
      const double loss = trained.step(batch, {.learning_rate = 1e30f, .seed = i});
      CHECK((std::isnan(loss) || loss >= 0));
    }
    if (trained.network.finite(trained.parameters)) {
      CHECK(check_int8(trained.network.encode(trained.parameters).span(), trained.network.layout())
                .ok());
    }
  }
}

TEST_CASE("int8: a batch larger than 32-bit sums can hold is refused", "[int8]") {
  const auto network = Int8Network::make({{28, 28, 1}, {convolution(4, 5), flatten(), dense(2)}});
  REQUIRE(network.ok());
  // 2^31 / 127^2 / (28 * 28 positions) = 169.8
  CHECK(network->max_batch() == 169);
  CHECK(Int8Workspace::make(*network, 169).ok());
  const auto refused = Int8Workspace::make(*network, 170);
  REQUIRE_FALSE(refused.ok());
  CHECK_THAT(refused.error().message,
             Catch::StartsWith("a batch of 170 examples cannot be trained"));
  CHECK_FALSE(Int8Workspace::make(*network, 0).ok());
}

TEST_CASE("int8: weights and activations take less than a third of what floats take", "[int8]") {
  for (const char* name : {"2nn", "cnn"}) {
    CAPTURE(name);
    const auto spec = preset_model(name, {28, 28, 1}, 10);
    REQUIRE(spec.ok());
    const auto network = Int8Network::make(*spec);
    REQUIRE(network.ok());
    const Int8MemoryPlan plan = network->training_memory(kBatch);
    // activations per example in floats: inputs and every layer's outputs
    const std::size_t activations =
        std::string(name) == "2nn"
            ? 784 + 200 + 200 + 10
            : 784 + 28 * 28 * 32 + 14 * 14 * 32 + 14 * 14 * 64 + 7 * 7 * 64 + 512 + 10;
    const std::size_t in_floats = 4 * (network->num_parameters() + kBatch * activations);
    CHECK(3 * (plan.weights + plan.activations) < in_floats);
    CHECK(3 * network->training_bytes(kBatch) < in_floats);
    // the plan is what is allocated
    const Int8Parameters parameters(*network);
    CHECK(parameters.bytes() == plan.weights);
    const auto workspace = Int8Workspace::make(*network, kBatch);
    CHECK(workspace->bytes() == plan.total() - plan.weights);
    const auto inference = Int8Workspace::make_for_inference(*network, kBatch);
    CHECK(inference->bytes() == network->inference_bytes(kBatch) - plan.weights);
    CHECK(inference->bytes() < workspace->bytes());
    std::size_t layers = 0;
    for (const auto& layer : plan.layers) layers += layer.weights;
    CHECK(layers == plan.weights);
  }
}

TEST_CASE("int8: evaluation agrees with floats and takes any number of examples", "[int8]") {
  constexpr std::uint64_t kSeed = 41;
  constexpr std::size_t kExamples = 137;
  for (const auto& [name, spec] : int8_specs()) {
    CAPTURE(name, kSeed);
    Trained trained = Trained::make(spec, kSeed);
    const Batch batch =
        random_batch(kExamples, trained.network.inputs(), trained.network.classes(), kSeed);
    const auto values = decoded(trained.blob, trained.network.layout());
    const auto in_floats = Network::make(spec);
    Workspace float_workspace(*in_floats, kExamples);
    const Evaluation expected =
        in_floats->evaluate(float_workspace, batch.inputs, batch.labels, values);
    const Evaluation got =
        trained.network.evaluate(trained.workspace, batch.inputs, batch.labels, trained.parameters);
    auto inference = Int8Workspace::make_for_inference(trained.network, kBatch);
    const Evaluation again =
        trained.network.evaluate(*inference, batch.inputs, batch.labels, trained.parameters);
    CHECK(got.examples == kExamples);
    CHECK(got.loss() == Approx(expected.loss()).epsilon(0.02));
    CHECK(again.loss_sum == got.loss_sum);
    CHECK(again.correct == got.correct);
  }
}
