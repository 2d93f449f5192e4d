// What a network for quantisation-aware training computes: layout, rounding, ranges, gradients.
#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/int8_encoding.hpp>
#include <covey/models/engine.hpp>
#include <covey/models/network.hpp>
#include <limits>
#include <string>
#include <vector>

#include "../../models/kernels/kernels.hpp"
#include "network_reference.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using enum LayerKind;

ModelSpec small_dense() { return {{5}, {{kDense, 4}, {kRelu}, {kDense, 3}}}; }

ModelSpec small_cnn() {
  return {{8, 8, 1},
          {{kConv2d, 6, 3},
           {kRelu},
           {kMaxPool2d, 0, 2},
           {kFlatten},
           {kDense, 9},
           {kRelu},
           {kDense, 3}}};
}

Network qat(const ModelSpec& spec) {
  auto network = Network::make_quantisation_aware(spec);
  REQUIRE(network.ok());
  return std::move(network).value();
}

/// The parameters as an int8 model has them, ranges (of rank 1) as they are.
std::vector<float> rounded(const ModelLayout& layout, std::span<const float> parameters) {
  std::vector<float> result(parameters.size());
  const SharedBytes blob = encode_int8(parameters, layout, {.headroom = 1});
  REQUIRE(decode_int8(blob.span(), layout, result).ok());
  return result;
}

}  // namespace

TEST_CASE("the layout for quantisation-aware training ends with the ranges", "[qat]") {
  constexpr std::uint64_t kSeed = 4;
  CAPTURE(kSeed);
  const Network plain = *Network::make(small_cnn());
  const Network network = qat(small_cnn());
  const auto& tensors = network.layout().tensors();
  const auto& before = plain.layout().tensors();
  REQUIRE(tensors.size() == before.size() + 4);
  CHECK(std::equal(before.begin(), before.end(), tensors.begin()));
  std::vector<std::string> added;
  for (std::size_t t = before.size(); t < tensors.size(); ++t) {
    CHECK(tensors[t].shape == std::vector<std::uint32_t>{1});
    added.push_back(tensors[t].name);
  }
  CHECK(added ==
        std::vector<std::string>{"input.range", "conv1.range", "dense1.range", "dense2.range"});

  // the same weights as an fp32 run draws from this seed; nothing is known of the ranges
  std::vector<float> weights(plain.num_parameters());
  std::vector<float> all(network.num_parameters(), -1.0f);
  plain.initialise(weights, RandomStream(kSeed, RandomPurpose::kModelInitialisation));
  network.initialise(all, RandomStream(kSeed, RandomPurpose::kModelInitialisation));
  CHECK(std::equal(weights.begin(), weights.end(), all.begin()));
  CHECK(std::all_of(all.begin() + static_cast<std::ptrdiff_t>(weights.size()), all.end(),
                    [](float range) { return range == 0; }));
}

TEST_CASE("a layer that integers do not know is refused by name", "[qat]") {
  const std::vector<std::pair<ModelSpec, std::string>> cases{
      {{{4, 6}, {{kLstm, 5}, {kFlatten}, {kDense, 3}}}, "layer 1 (lstm)"},
      {{{8, 8, 1}, {{kConv2d, 6, 3, 2}, {kFlatten}, {kDense, 3}}}, "layer 1 (conv2d) of stride 2"},
      {{{8, 8, 1}, {{kConv2d, 6, 3}, {kMaxPool2d, 0, 3, 2}, {kFlatten}, {kDense, 3}}},
       "layer 2 (max-pool2d) of window 3 and another stride, 2"},
      {{{6}, {{kDense, 5}, {kTanh}, {kDense, 3}}}, "layer 2 (tanh)"}};
  for (const auto& [spec, what] : cases) {
    CAPTURE(what);
    REQUIRE(Network::make(spec).ok());
    const auto refused = make_engine(spec, "qat-int8");
    REQUIRE_FALSE(refused.ok());
    CAPTURE(refused.error().message);
    CHECK(refused.error().message.find(what) != std::string::npos);
    CHECK(refused.error().message.find("cannot be trained in qat-int8; fp32 and bf16 can") !=
          std::string::npos);
  }
  // known to a network, not to the integer engine
  CHECK_FALSE(make_engine({{6}, {{kDense, 5}, {kDense, 3}, {kRelu}}}, "qat-int8").ok());
}

TEST_CASE("rounded weights are to the bit those of the int8 encoding", "[qat]") {
  constexpr std::uint64_t kSeed = 12;
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const reference::InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  RandomStream random(kSeed, RandomPurpose::kTraining);
  for (const std::uint32_t columns : {1u, 3u, 10u, 37u, 200u}) {
    constexpr std::uint32_t kRows = 203;
    CAPTURE(isa, columns, kSeed);
    std::vector<float> w(kRows * columns);
    for (float& value : w) value = static_cast<float>(random.normal());
    std::vector<float> scales(columns), inverses(columns), magnitudes(columns);
    kernels.max_column_magnitudes(w.data(), kRows, columns, magnitudes.data());
    for (std::size_t c = 0; c < columns; ++c) {
      float largest = 0;
      for (std::size_t r = 0; r < kRows; ++r)
        largest = std::max(largest, std::abs(w[r * columns + c]));
      REQUIRE(magnitudes[c] == largest);
      scales[c] = round_up_to_int8_scale(magnitudes[c] / 127);
      inverses[c] = 1 / scales[c];
    }
    // ties, which go to the even step, and what lies one bit beside them
    for (std::size_t r = 0; r + 3 < kRows; r += 5) {
      for (std::size_t c = 0; c < columns; ++c) {
        const float tie = (static_cast<float>(r % 120) + 0.5f) * scales[c];
        w[r * columns + c] = tie;
        w[(r + 1) * columns + c] = std::nextafter(tie, 0.0f);
        w[(r + 2) * columns + c] = -std::nextafter(tie, 1e9f);
      }
    }
    for (std::size_t c = 0; c < columns; ++c) w[(kRows - 1) * columns + c] = magnitudes[c];
    std::vector<float> fake(w.size());
    kernels.fake_quantise_columns(w.data(), kRows, columns, scales.data(), inverses.data(),
                                  fake.data());
    ModelLayout layout;
    layout.append("w", {kRows, columns});
    const std::vector<float> expected = rounded(layout, w);
    std::size_t different = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      different +=
          std::bit_cast<std::uint32_t>(fake[i]) != std::bit_cast<std::uint32_t>(expected[i]);
    }
    CHECK(different == 0);
  }
}

TEST_CASE("activations are rounded to 255 values, clipped, and a NaN stays", "[qat]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const reference::InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  // scale 0.5: halves are whole steps, quarters are ties
  const std::vector<float> x{0.2f,  0.25f, 0.75f,  -0.75f, 63.5f,
                             63.8f, 1e30f, -1e30f, -0.1f,  std::numeric_limits<float>::quiet_NaN()};
  const std::vector<float> expected{0, 0, 1, -1, 63.5f, 63.5f, 63.5f, -63.5f, 0};
  std::vector<float> y(x.size());
  kernels.fake_quantise(x.data(), x.size(), 0.5f, y.data());
  CAPTURE(isa, y);
  CHECK(std::equal(expected.begin(), expected.end(), y.begin()));
  CHECK(std::isnan(y.back()));
  CHECK(kernels.max_magnitude(x.data(), x.size()) == 1e30f);

  const std::vector<float> gradient{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  std::vector<float> passed(x.size());
  kernels.pass_within(x.data(), 9, 0.75f, gradient.data(), passed.data());
  CHECK(passed == std::vector<float>{1, 2, 3, 4, 0, 0, 0, 0, 9, 0});
}

TEST_CASE("a range begins with the first batch and then moves by a twentieth", "[qat]") {
  constexpr std::uint64_t kSeed = 21;
  CAPTURE(kSeed);
  const Network network = qat(small_dense());
  auto problem = reference::random_problem(small_dense(), 2, kSeed);
  problem.parameters.resize(network.num_parameters(), 0.0f);
  const std::size_t input_range = network.num_parameters() - 3;
  Workspace workspace(network, 2);
  const auto step_with_largest_input = [&](float largest) {
    for (float& x : problem.inputs) x = std::clamp(x, -0.5f, 0.5f);
    problem.inputs[3] = -largest;
    network.train_step(workspace, problem.inputs, problem.labels, problem.parameters,
                       {.learning_rate = 0.01f});
    return problem.parameters[input_range];
  };
  CHECK(step_with_largest_input(2.0f) == 2.0f);
  // 0.95 * 2 + 0.05 * 4
  CHECK(step_with_largest_input(4.0f) == Approx(2.1).epsilon(1e-6));
  const std::vector<float> before = problem.parameters;
  network.evaluate(workspace, problem.inputs, problem.labels, problem.parameters);
  std::vector<float> gradient(network.num_parameters());
  network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
  CHECK(problem.parameters == before);
  CHECK(gradient[input_range] == 0);
}

TEST_CASE("no gradient passes where an activation is beyond its range", "[qat]") {
  // one example, input 1; hidden unit 0 gives 3 and unit 1 gives 1, both reach the scores
  const ModelSpec spec{{1}, {{kDense, 2}, {kRelu}, {kDense, 2}}};
  const Network network = qat(spec);
  //                        weights  biases  weights      biases  ranges
  std::vector<float> w{3, 1, 0, 0, 1, -1, 1, -1, 0, 0, 1, 2, 10};
  REQUIRE(w.size() == network.num_parameters());
  Workspace workspace(network, 1);
  const std::vector<float> x{1};
  const std::vector<std::int32_t> label{1};
  std::vector<float> gradient(w.size());
  network.gradient(workspace, x, label, w, gradient);
  CHECK(gradient[0] == 0);  // 3 > 2: clipped
  CHECK(gradient[1] != 0);
  // scores: +-(2 + 64 * 2/127 rounded from 1) = +-3.0079; d loss / d score 0 = softmax_0 = p, and
  // d loss / d hidden 1 = p * 1 - p * -1 = 2p
  const double step = 2.0 / 127;
  const double score = 2 + 64 * step;
  const double p = 1 / (1 + std::exp(-2 * score));
  CHECK(gradient[1] == Approx(2 * p).epsilon(1e-5));
  CHECK(gradient[4] == Approx(p * 2).epsilon(1e-5));  // its input was clipped to 2
  w[11] = 4;                                          // now both are within
  network.gradient(workspace, x, label, w, gradient);
  CHECK(gradient[0] != 0);
}

TEST_CASE("a step takes the gradient at the rounded weights and moves the exact ones", "[qat]") {
  constexpr std::uint64_t kSeed = 8;
  constexpr float kLearningRate = 0.125f;
  CAPTURE(kSeed);
  for (const ModelSpec& spec : {small_dense(), small_cnn()}) {
    const Network network = qat(spec);
    const auto problem = reference::random_problem(spec, 6, kSeed);
    std::vector<float> w = problem.parameters;
    // far too wide for any activation: nothing is clipped, and 0.95 r + 0.05 m stays wide
    w.resize(network.num_parameters(), 1000.0f);
    auto engine = *make_engine(spec, "qat-int8");
    engine->reserve(6);
    REQUIRE(engine->load(encode_fp32(w).span()).ok());
    engine->begin_training({}, RandomStream(kSeed, RandomPurpose::kTrainingStep));
    const double loss = engine->train_step(problem.inputs, problem.labels, kLearningRate, 0);

    Workspace workspace(network, 6);
    std::vector<float> gradient(w.size());
    std::vector<float> at = rounded(network.layout(), w);
    const std::size_t d = problem.parameters.size();
    std::copy(engine->trained().begin() + static_cast<std::ptrdiff_t>(d), engine->trained().end(),
              at.begin() + static_cast<std::ptrdiff_t>(d));  // the ranges that the step used
    CHECK(network.gradient(workspace, problem.inputs, problem.labels, at, gradient) == loss);
    double difference = 0;
    double moved = 0;
    for (std::size_t i = 0; i < d; ++i) {
      const float expected = w[i] - kLearningRate * gradient[i];
      difference =
          std::max(difference, std::abs(static_cast<double>(engine->trained()[i] - expected)));
      moved = std::max(moved, std::abs(static_cast<double>(gradient[i])));
    }
    CHECK(difference < 1e-6);
    CHECK(moved > 1e-3);
  }
}
