#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <limits>
#include <string>
#include <vector>

#include "network_reference.hpp"
#include "recurrent_reference.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using enum LayerKind;
using sequence_reference::Problem;
using sequence_reference::random_problem;

LayerSpec dense(std::uint32_t units) { return {.kind = kDense, .units = units}; }
LayerSpec embedding(std::uint32_t vocabulary, std::uint32_t units) {
  return {.kind = kEmbedding, .units = units, .vocabulary = vocabulary};
}
LayerSpec lstm(std::uint32_t units) { return {.kind = kLstm, .units = units}; }
LayerSpec peephole_lstm(std::uint32_t units) {
  return {.kind = kLstm, .units = units, .peephole = true};
}
LayerSpec gru(std::uint32_t units) { return {.kind = kGru, .units = units}; }
LayerSpec last_only(LayerSpec layer) {
  layer.last_only = true;
  return layer;
}

struct NamedSpec {
  const char* name;
  ModelSpec spec;
};

/// Every recurrent layer alone and stacked, with sizes that leave partial vectors and tiles.
std::vector<NamedSpec> specs() {
  return {
      {"lstm", {{5, 3}, {lstm(7), dense(4)}}},
      {"lstm with peepholes", {{6, 4}, {peephole_lstm(9), dense(3)}}},
      {"gru", {{5, 3}, {gru(7), dense(4)}}},
      {"the last state of an lstm", {{6, 2}, {last_only(lstm(16)), dense(3)}}},
      {"the last state with peepholes", {{4, 3}, {last_only(peephole_lstm(5)), dense(2)}}},
      {"the last state of a gru", {{6, 2}, {last_only(gru(16)), dense(3)}}},
      {"one step of an lstm", {{1, 5}, {peephole_lstm(6), dense(3)}}},
      {"one step of a gru", {{1, 5}, {last_only(gru(6)), dense(3)}}},
      {"one unit", {{4, 1}, {peephole_lstm(1), gru(1), dense(2)}}},
      {"no layer above", {{3, 2}, {gru(5), lstm(4)}}},
      {"embedding and a dense layer", {{7}, {embedding(5, 3), dense(4)}}},
      {"dense layers at many steps", {{40, 6}, {dense(37), dense(5)}}},
      {"characters", {{9}, {embedding(11, 5), peephole_lstm(33), peephole_lstm(20), dense(11)}}},
      {"characters by gru", {{9}, {embedding(11, 5), gru(33), gru(20), dense(11)}}},
      {"a sequence to one class", {{8}, {embedding(6, 4), lstm(10), last_only(gru(9)), dense(3)}}},
      {"products deeper than a panel", {{8, 6}, {lstm(70), gru(90), dense(35)}}},
  };
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return most;
}

Network make(const ModelSpec& spec) {
  auto network = Network::make(spec);
  REQUIRE(network.ok());
  return std::move(network).value();
}

std::string refusal(const ModelSpec& spec) {
  const auto network = Network::make(spec);
  return network.ok() ? "" : network.error().message;
}

}  // namespace

TEST_CASE("the recurrent reference's gradient agrees with central differences", "[recurrent]") {
  constexpr double kStep = 1e-6;
  constexpr std::size_t kProbes = 40;
  const std::uint64_t seed = GENERATE(1, 2);
  for (const auto& [name, spec] : specs()) {
    CAPTURE(seed, name);
    const Problem problem = random_problem(spec, 2, seed);
    std::vector<double> w = problem.exact();
    const auto loss = [&] {
      return sequence_reference::loss_and_gradient(spec, w, problem.inputs, problem.labels);
    };
    const auto exact = loss();
    RandomStream random(seed, RandomPurpose::kSelection);
    for (std::size_t probe = 0; probe < (w.size() > 10'000 ? 4 : kProbes); ++probe) {
      const auto i = static_cast<std::size_t>(random.below(w.size()));
      const double before = w[i];
      w[i] = before + kStep;
      const double above = loss().loss;
      w[i] = before - kStep;
      const double below = loss().loss;
      w[i] = before;
      CAPTURE(i);
      // Truncation is of order kStep^2, rounding of order 1e-16 / kStep.
      CHECK((above - below) / (2 * kStep) == Approx(exact.gradient[i]).epsilon(1e-6).margin(2e-9));
    }
  }
}

TEST_CASE("the engine's recurrent layers agree with the reference", "[recurrent]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const std::size_t batch = GENERATE(1u, 3u, 10u, 17u);
  constexpr std::uint64_t kSeed = 7;
  const reference::InstructionSet scope(isa);
  for (const auto& [name, spec] : specs()) {
    CAPTURE(isa, batch, name, kSeed);
    const Network network = make(spec);
    const Problem problem = random_problem(spec, batch, kSeed);
    REQUIRE(problem.parameters.size() == network.num_parameters());
    REQUIRE(problem.labels.size() == batch * network.predictions());
    Workspace workspace(network, batch);
    std::vector<float> gradient(network.num_parameters(), 1e9f);
    const double loss =
        network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
    const auto exact = sequence_reference::loss_and_gradient(spec, problem.exact(), problem.inputs,
                                                             problem.labels);
    CHECK(loss == Approx(exact.loss).epsilon(1e-6));
    const double scale = largest(exact.gradient);
    double worst = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(gradient[i]) - exact.gradient[i]));
    }
    CHECK(worst <= 1e-5 * scale);
    CHECK(scale > 1e-3);  // there is a gradient to compare

    Workspace evaluating(network, {.max_batch = batch, .training = false});
    const Evaluation evaluation =
        network.evaluate(evaluating, problem.inputs, problem.labels, problem.parameters);
    CHECK(evaluation.correct == exact.correct);
    CHECK(evaluation.examples == exact.targets);
    CHECK(evaluation.loss() == Approx(loss).epsilon(1e-12));
  }
}

TEST_CASE("a training step of recurrent layers is the gradient followed by the formula",
          "[recurrent]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const float proximal_mu = GENERATE(0.0f, 0.7f);
  const std::size_t batch = GENERATE(2u, 13u);
  constexpr std::uint64_t kSeed = 3;
  constexpr float kLearningRate = 0.25f;
  const reference::InstructionSet scope(isa);
  for (const auto& [name, spec] : specs()) {
    CAPTURE(isa, proximal_mu, batch, name, kSeed);
    const Network network = make(spec);
    const Problem problem = random_problem(spec, batch, kSeed);
    const std::vector<float> anchor = random_problem(spec, 1, kSeed + 1).parameters;
    const std::vector<float> correction = random_problem(spec, 1, kSeed + 2).parameters;
    Workspace workspace(network, batch);
    std::vector<float> gradient(network.num_parameters());
    const double loss =
        network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
    std::vector<float> expected = problem.parameters;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      // w - lr * (g + mu * (w - anchor) + correction), all terms at the parameters before the step
      expected[i] -=
          kLearningRate * (gradient[i] + proximal_mu * (expected[i] - anchor[i]) + correction[i]);
    }
    std::vector<float> stepped = problem.parameters;
    const double step_loss = network.train_step(workspace, problem.inputs, problem.labels, stepped,
                                                {.learning_rate = kLearningRate,
                                                 .proximal_mu = proximal_mu,
                                                 .anchor = anchor,
                                                 .correction = correction});
    CHECK(step_loss == loss);
    CHECK(largest_difference(stepped, expected) < 2e-6);
    CHECK(largest_difference(stepped, problem.parameters) > 1e-3);
  }
}

TEST_CASE("a workspace used for other sequences leaves nothing behind", "[recurrent]") {
  constexpr std::uint64_t kSeed = 11;
  for (const auto& [name, spec] : specs()) {
    CAPTURE(name, kSeed);
    const Network network = make(spec);
    const Problem first = random_problem(spec, 20, kSeed);
    const Problem second = random_problem(spec, 3, kSeed + 1);
    Workspace used(network, 20);
    Workspace fresh(network, 3);
    std::vector<float> gradient(network.num_parameters());
    std::vector<float> expected(network.num_parameters());
    network.gradient(used, first.inputs, first.labels, first.parameters, gradient);
    network.gradient(used, second.inputs, second.labels, second.parameters, gradient);
    network.gradient(fresh, second.inputs, second.labels, second.parameters, expected);
    CHECK(gradient == expected);
    std::vector<float> again(network.num_parameters());
    network.gradient(fresh, second.inputs, second.labels, second.parameters, again);
    CHECK(again == expected);
  }
}

TEST_CASE("recurrent layers learn a sequence until it is predicted", "[recurrent]") {
  constexpr std::uint64_t kSeed = 17;
  constexpr std::uint32_t kSteps = 12;
  constexpr std::uint32_t kSymbols = 4;
  // The symbol two steps before: it can only be known from the state.
  RandomStream random(kSeed, RandomPurpose::kTraining);
  std::vector<float> inputs;
  std::vector<std::int32_t> labels;
  for (std::uint32_t i = 0; i < 16 * kSteps; ++i) {
    inputs.push_back(static_cast<float>(random.below(kSymbols)));
    const bool known = i % kSteps >= 2;
    labels.push_back(known ? static_cast<std::int32_t>(inputs[i - 2]) : -1);
  }
  for (const LayerSpec& layer : {lstm(24), peephole_lstm(24), gru(24)}) {
    CAPTURE(kSeed, to_string(layer.kind), layer.peephole);
    const ModelSpec spec{{kSteps}, {embedding(kSymbols, 6), layer, dense(kSymbols)}};
    const Network network = make(spec);
    std::vector<float> parameters(network.num_parameters());
    network.initialise(parameters, RandomStream(kSeed, RandomPurpose::kModelInitialisation));
    Workspace workspace(network, 16);
    const double first = network.evaluate(workspace, inputs, labels, parameters).loss();
    for (int i = 0; i < 600; ++i) {
      network.train_step(workspace, inputs, labels, parameters, {.learning_rate = 1.0f});
    }
    const Evaluation last = network.evaluate(workspace, inputs, labels, parameters);
    CHECK(first > 1.2);  // near ln 4
    CHECK(last.loss() < 0.1);
    CHECK(last.accuracy() == 1.0);
    CHECK(last.examples == 16 * (kSteps - 2));
  }
}

TEST_CASE("char-lstm has the parameters of McMahan et al. 2017", "[recurrent]") {
  const auto spec = preset_model("char-lstm", {80}, 258);
  REQUIRE(spec.ok());
  const Network network = make(*spec);
  CHECK(network.num_parameters() == 866'578);  // section 3, "Shakespeare"
  CHECK(network.vocabulary() == 258);
  CHECK(network.predictions() == 80);
  CHECK(network.classes() == 258);
  std::vector<std::string> names;
  for (const auto& tensor : network.layout().tensors()) names.push_back(tensor.name);
  CHECK(names == std::vector<std::string>{"embedding1.weight", "lstm1.weight", "lstm1.recurrent",
                                          "lstm1.bias", "lstm1.peephole", "lstm2.weight",
                                          "lstm2.recurrent", "lstm2.bias", "lstm2.peephole",
                                          "dense1.weight", "dense1.bias"});
}

TEST_CASE("recurrent weights start within 1/sqrt(units), embeddings normal", "[recurrent]") {
  constexpr std::uint64_t kSeed = 23;
  const Network network = make({{4}, {embedding(500, 8), lstm(64), gru(100), dense(2)}});
  std::vector<float> w(network.num_parameters());
  network.initialise(w, RandomStream(kSeed, RandomPurpose::kModelInitialisation));
  for (const auto& tensor : network.layout().tensors()) {
    CAPTURE(kSeed, tensor.name);
    double most = 0;
    double squares = 0;
    for (std::size_t i = 0; i < tensor.size(); ++i) {
      const double value = static_cast<double>(w[tensor.offset + i]);
      most = std::max(most, std::abs(value));
      squares += value * value;
    }
    if (tensor.name.starts_with("embedding")) {
      // 4000 draws: the mean square of N(0, 1) has a standard deviation of sqrt(2 / 4000) = 0.022
      CHECK(squares / static_cast<double>(tensor.size()) == Approx(1).margin(0.1));
    } else {
      const double bound = tensor.name.starts_with("lstm") ? 0.125 : 0.1;
      CHECK(most <= bound);
      CHECK(most > 0.95 * bound);
    }
  }
}

TEST_CASE("a token out of range takes the nearest row of the table", "[recurrent]") {
  constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();
  const ModelSpec spec{{5}, {embedding(6, 3), dense(2)}};
  const Network network = make(spec);
  const Problem problem = random_problem(spec, 1, 1);
  const std::vector<float> bad{-1.0f, 6.0f, 1e30f, kNotANumber, -1e30f};
  const std::vector<float> good{0.0f, 5.0f, 5.0f, 0.0f, 0.0f};
  Workspace workspace(network, 1);
  std::vector<float> gradient(network.num_parameters());
  std::vector<float> expected(network.num_parameters());
  const double loss =
      network.gradient(workspace, bad, problem.labels, problem.parameters, gradient);
  CHECK(loss == network.gradient(workspace, good, problem.labels, problem.parameters, expected));
  CHECK(gradient == expected);
}

TEST_CASE("recurrent layers that cannot be are refused with the reason", "[recurrent]") {
  CHECK(refusal({{4, 2}, {lstm(3), embedding(5, 2)}}) ==
        "layer 2 (embedding) must be the first layer: it takes the tokens of the data");
  CHECK(refusal({{4, 2}, {embedding(5, 2), dense(2)}}) ==
        "layer 1 (embedding) takes a sequence of tokens [steps] but receives 4x2");
  CHECK(refusal({{4}, {embedding(0, 2), dense(2)}}) ==
        "layer 1 (embedding) has vocabulary 0; 1 to 16777216 work");
  CHECK(refusal({{4}, {embedding(20'000'000, 2), dense(2)}}) ==
        "layer 1 (embedding) has vocabulary 20000000; 1 to 16777216 work");
  CHECK(refusal({{4}, {embedding(5, 0), dense(2)}}) == "layer 1 (embedding) has no units");
  CHECK(refusal({{4}, {lstm(3), dense(2)}}) ==
        "layer 1 (lstm) takes a sequence [steps, features] but receives 4");
  CHECK(refusal({{4, 2}, {last_only(gru(3)), gru(3)}}) ==
        "layer 2 (gru) takes a sequence [steps, features] but receives 3");
  CHECK(refusal({{4, 2}, {lstm(0), dense(2)}}) == "layer 1 (lstm) has no units");
  CHECK(refusal({{4, 2}, {gru(4'000'000'000), dense(2)}}) ==
        "layer 1 (gru) brings the model to 4000000000 parameters; at most 268435456 work");
  CHECK(refusal({{4, 2}, {lstm(60'000), dense(2)}}) ==
        "layer 1 (lstm) brings the model to 14400720000 parameters; at most 268435456 work");
}
