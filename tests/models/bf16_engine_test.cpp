#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/engine.hpp>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "network_reference.hpp"
#include "network_specs.hpp"

/// Counted by the program's operator new (network_allocation_test.cpp).
std::size_t allocations_on_this_thread();

namespace {

using namespace covey;
using namespace covey::models;
using reference::NamedSpec;

constexpr std::uint64_t kSeed = 41;

std::vector<NamedSpec> recurrent_specs() {
  const LayerSpec lstm{.kind = LayerKind::kLstm, .units = 12, .peephole = true};
  const LayerSpec last{.kind = LayerKind::kLstm, .units = 9, .last_only = true};
  const LayerSpec gru{.kind = LayerKind::kGru, .units = 10};
  const LayerSpec embedding{.kind = LayerKind::kEmbedding, .units = 6, .vocabulary = 1000};
  return {{"embedding and lstm", {{7}, {embedding, lstm, reference::dense(5)}}},
          {"lstm of the last step", {{6, 4}, {lstm, last, reference::dense(3)}}},
          {"gru", {{6, 4}, {gru, reference::dense(3)}}}};
}

/// A batch with labels, and a model; features of a network of tokens are tokens.
struct Problem {
  Problem(const ModelSpec& spec, std::size_t batch_size) : batch(batch_size) {
    const Network network = std::move(*Network::make(spec));
    layout = network.layout();
    parameters.resize(network.num_parameters());
    network.initialise(parameters, RandomStream(kSeed, RandomPurpose::kModelInitialisation));
    RandomStream random(kSeed, RandomPurpose::kDataGeneration);
    inputs.resize(batch * network.inputs());
    for (float& x : inputs) {
      x = static_cast<float>(network.vocabulary() > 0
                                 ? static_cast<double>(random.below(network.vocabulary()))
                                 : random.uniform(-1, 1));
    }
    labels.resize(batch * network.predictions());
    const std::size_t limit = std::min<std::size_t>(network.classes(), 4);
    for (auto& label : labels) label = static_cast<std::int32_t>(random.below(limit));
    model = encode(Encoding::kBf16, layout, parameters);
    // what bf16 holds of it, for the fp32 engine
    REQUIRE(decode(Encoding::kBf16, layout, model.span(), parameters).ok());
  }

  std::size_t batch;
  ModelLayout layout;
  std::vector<float> parameters, inputs;
  std::vector<std::int32_t> labels;
  SharedBytes model;
};

std::unique_ptr<Engine> engine_for(const ModelSpec& spec, const Problem& problem,
                                   const OptimizerSpec& optimizer = {},
                                   std::uint64_t seed = kSeed) {
  auto engine = make_engine(spec, "bf16");
  REQUIRE(engine.ok());
  (*engine)->reserve(problem.batch);
  REQUIRE((*engine)->load(problem.model.span()).ok());
  (*engine)->begin_training(optimizer, RandomStream(seed, RandomPurpose::kTrainingStep));
  return std::move(*engine);
}

/// w - w^t
std::vector<float> difference(const Engine& engine) {
  const auto bytes = engine.encode_difference(Encoding::kFp32,
                                              RandomStream(kSeed, RandomPurpose::kUpdateRounding));
  REQUIRE(bytes.ok());
  std::vector<float> values(engine.layout().size());
  REQUIRE(decode(Encoding::kFp32, engine.layout(), bytes->span(), values).ok());
  return values;
}

/// The fp32 engine's step from the same weights, in double.
std::vector<double> fp32_step(const ModelSpec& spec, const Problem& problem, float learning_rate) {
  const Network network = std::move(*Network::make(spec));
  Workspace workspace(network, problem.batch);
  std::vector<float> gradient(network.num_parameters());
  network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
  std::vector<double> step;
  for (const float g : gradient) step.push_back(static_cast<double>(-learning_rate * g));
  return step;
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

/// Running statistics move without a gradient.
bool has_running_statistics(const ModelSpec& spec) {
  return std::ranges::any_of(spec.layers,
                             [](const LayerSpec& l) { return l.kind == LayerKind::kBatchNorm; });
}

bool has_dropout(const ModelSpec& spec) {
  return std::ranges::any_of(spec.layers,
                             [](const LayerSpec& l) { return l.kind == LayerKind::kDropout; });
}

std::vector<NamedSpec> every_spec() {
  std::vector<NamedSpec> specs = reference::all_specs();
  for (const NamedSpec& spec : recurrent_specs()) specs.push_back(spec);
  return specs;
}

}  // namespace

TEST_CASE("a bf16 step is on average the fp32 step, for every layer kind", "[bf16]") {
  const std::string isa = GENERATE("avx2", "");
  const reference::InstructionSet scope(isa);
  constexpr float kRate = 4;  // far above the rounding of weights of order 0.3
  constexpr std::uint64_t kTrials = 8;
  for (const auto& [name, spec] : every_spec()) {
    if (has_dropout(spec) || has_running_statistics(spec)) continue;  // masks differ; own test
    CAPTURE(isa, name, kSeed);
    const Problem problem(spec, 17);
    std::vector<double> mean(problem.parameters.size());
    for (std::uint64_t trial = 0; trial < kTrials; ++trial) {
      const auto engine = engine_for(spec, problem, {}, trial);
      engine->train_step(problem.inputs, problem.labels, kRate, 0);
      const auto moved = difference(*engine);
      for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += static_cast<double>(moved[i]);
    }
    // Activations and gradients carry 2^-9 each, so some 1% of a sum's norm: an angle of 0.01 to
    // 0.05 where a relu or a maximum also goes the other way.
    CHECK(cosine(mean, fp32_step(spec, problem, kRate)) > 0.995);
  }
}

TEST_CASE("every layer kind learns a batch by heart in bf16", "[bf16]") {
  for (const auto& [name, spec] : every_spec()) {
    CAPTURE(name, kSeed);
    const Problem problem(spec, 6);
    const auto engine = engine_for(spec, problem);
    const double before = engine->evaluate(problem.inputs, problem.labels).loss();
    for (int step = 0; step < 150; ++step) {
      engine->train_step(problem.inputs, problem.labels, 0.1f, 0);
    }
    CHECK(engine->finite());
    CHECK(engine->evaluate(problem.inputs, problem.labels).loss() < before - 0.02);
  }
}

TEST_CASE("bf16 evaluates as fp32 does, to what bf16 activations cost", "[bf16]") {
  for (const auto& [name, spec] : every_spec()) {
    CAPTURE(name, kSeed);
    const Problem problem(spec, 20);
    const Network network = std::move(*Network::make(spec));
    Workspace workspace(network, {.max_batch = 20, .training = false});
    const Evaluation exact =
        network.evaluate(workspace, problem.inputs, problem.labels, problem.parameters);
    const auto engine = engine_for(spec, problem);
    const Evaluation evaluation = engine->evaluate(problem.inputs, problem.labels);
    CHECK(evaluation.examples == exact.examples);
    CHECK(evaluation.loss() == Approx(exact.loss()).epsilon(0.02));
  }
}

TEST_CASE("bf16 training does not depend on what a workspace did before", "[bf16]") {
  for (const auto& [name, spec] : every_spec()) {
    CAPTURE(name, kSeed);
    const Problem problem(spec, 5);
    const Problem larger(spec, 23);
    const auto fresh = engine_for(spec, problem);
    const auto used = engine_for(spec, larger);
    used->train_step(larger.inputs, larger.labels, 0.5f, 0.1f);
    REQUIRE(used->load(problem.model.span()).ok());
    used->begin_training({}, RandomStream(kSeed, RandomPurpose::kTrainingStep));
    used->evaluate(larger.inputs, larger.labels);
    for (int step = 0; step < 3; ++step) {
      const double expected = fresh->train_step(problem.inputs, problem.labels, 0.1f, 0.01f);
      CHECK(used->train_step(problem.inputs, problem.labels, 0.1f, 0.01f) == expected);
    }
    CHECK(difference(*used) == difference(*fresh));
  }
}

TEST_CASE("the same random stream gives the same bf16 weights, another one others", "[bf16]") {
  const ModelSpec spec = reference::plain_specs().back().spec;
  const Problem problem(spec, 9);
  const auto train = [&](std::uint64_t seed) {
    const auto engine = engine_for(spec, problem, {}, seed);
    for (int step = 0; step < 5; ++step)
      engine->train_step(problem.inputs, problem.labels, 0.1f, 0);
    return difference(*engine);
  };
  CHECK(train(1) == train(1));
  CHECK(train(1) != train(2));
}

TEST_CASE("running statistics follow the batches and are no weights", "[bf16]") {
  const ModelSpec spec{{6},
                       {reference::dense(8), {.kind = LayerKind::kBatchNorm}, reference::dense(3)}};
  const Problem problem(spec, 16);
  // A weight decay that would take a statistic down by 1 in 200 a step, and a rate of 0 otherwise.
  const auto engine = engine_for(spec, problem, {.weight_decay = 1.0f});
  const Network network = std::move(*Network::make(spec));
  Workspace workspace(network, 16);
  std::vector<float> exact = problem.parameters;
  for (int step = 0; step < 200; ++step) {
    engine->train_step(problem.inputs, problem.labels, 0, 0);
    network.train_step(workspace, problem.inputs, problem.labels, exact, {.learning_rate = 0});
  }
  const auto moved = difference(*engine);
  double largest = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    CAPTURE(i, problem.parameters[i]);
    CHECK(problem.parameters[i] + moved[i] == Approx(exact[i]).epsilon(0.1).margin(0.05));
    largest = std::max(largest, std::abs(static_cast<double>(moved[i])));
  }
  CHECK(largest > 0.05);
}

TEST_CASE("a large batch in pieces and every optimiser step as fp32 does", "[bf16]") {
  // 70,000 values an example: 100 of them run in pieces
  const ModelSpec spec{{64, 64, 1},
                       {reference::convolution(16, 1),
                        reference::max_pool(8),
                        {LayerKind::kFlatten},
                        reference::dense(3)}};
  const Problem problem(spec, 100);
  const auto plain = engine_for(spec, problem);
  plain->train_step(problem.inputs, problem.labels, 1.0f, 0);
  const auto moved = difference(*plain);
  const std::vector<double> step(moved.begin(), moved.end());
  CHECK(cosine(step, fp32_step(spec, problem, 1.0f)) > 0.99);

  const ModelSpec small = reference::plain_specs()[1].spec;
  const Problem batch(small, 10);
  for (const OptimizerKind kind :
       {OptimizerKind::kSgd, OptimizerKind::kMomentum, OptimizerKind::kNesterov,
        OptimizerKind::kAdam, OptimizerKind::kAdamW}) {
    CAPTURE(to_string(kind), kSeed);
    const bool adaptive = kind == OptimizerKind::kAdam || kind == OptimizerKind::kAdamW;
    const auto engine = engine_for(
        small, batch, {.kind = kind, .weight_decay = 1e-3f, .clip_norm = adaptive ? 0.0f : 1.0f});
    double loss = 0;
    for (int s = 0; s < 60; ++s) {
      loss = engine->train_step(batch.inputs, batch.labels, adaptive ? 0.01f : 0.1f, 0.01f);
    }
    CHECK(loss < 0.5);
    CHECK(engine->finite());
  }
}

TEST_CASE("a proximal term keeps bf16 weights near w^t, weight decay makes them small", "[bf16]") {
  const ModelSpec spec = reference::plain_specs()[1].spec;
  const Problem problem(spec, 10);
  const auto distance = [&](float mu, float decay) {
    const auto engine = engine_for(spec, problem, {.weight_decay = decay});
    for (int s = 0; s < 100; ++s) engine->train_step(problem.inputs, problem.labels, 0.1f, mu);
    double norm = 0;
    const auto moved = difference(*engine);
    for (std::size_t i = 0; i < moved.size(); ++i) {
      norm += std::pow(static_cast<double>(moved[i] + problem.parameters[i]), 2);
    }
    return std::pair(engine->difference_squared_norm(), norm);
  };
  const auto [free, norm] = distance(0, 0);
  CHECK(distance(1, 0).first < 0.5 * free);
  CHECK(distance(0, 0.5f).second < 0.5 * norm);
}

TEST_CASE("training and evaluating in bf16 allocate nothing", "[bf16]") {
  std::vector<NamedSpec> specs = every_spec();
  specs.push_back({"in pieces",
                   {{64, 64, 1},
                    {reference::convolution(16, 1),
                     reference::max_pool(8),
                     {LayerKind::kFlatten},
                     reference::dense(3)}}});
  for (const auto& [name, spec] : specs) {
    CAPTURE(name);
    const Problem problem(spec, std::string(name) == "in pieces" ? 100 : 12);
    for (const OptimizerKind kind : {OptimizerKind::kSgd, OptimizerKind::kAdam}) {
      const auto engine = engine_for(spec, problem, {.kind = kind});
      const std::size_t before = allocations_on_this_thread();
      engine->train_step(problem.inputs, problem.labels, 0.01f, 0.1f);
      engine->evaluate(problem.inputs, problem.labels);
      engine->difference_squared_norm();
      CHECK(allocations_on_this_thread() == before);
    }
  }
}

TEST_CASE("bf16 takes little more than half of what fp32 takes", "[bf16]") {
  const ModelSpec spec = std::move(*preset_model("2nn", {28, 28, 1}, 10));
  const auto half = std::move(*make_engine(spec, "bf16"));
  const auto full = std::move(*make_engine(spec, "fp32"));
  for (Engine* engine : {half.get(), full.get()}) {
    const ParameterVector zeros(engine->layout().size());
    const Encoding encoding = engine == half.get() ? Encoding::kBf16 : Encoding::kFp32;
    REQUIRE(engine->load(encode(encoding, engine->layout(), zeros.span()).span()).ok());
    engine->reserve(10);
    engine->begin_training({}, RandomStream(kSeed, RandomPurpose::kTrainingStep));
  }
  CAPTURE(half->bytes(), full->bytes());
  CHECK(static_cast<double>(full->bytes()) >= 1.8 * static_cast<double>(half->bytes()));
}

TEST_CASE("a bf16 update is w - w^t in every encoding", "[bf16]") {
  const ModelSpec spec = reference::plain_specs()[1].spec;
  const Problem problem(spec, 10);
  const auto engine = engine_for(spec, problem);
  for (int s = 0; s < 20; ++s) engine->train_step(problem.inputs, problem.labels, 0.1f, 0);
  const auto exact = difference(*engine);
  double norm = 0;
  for (const float x : exact) norm += static_cast<double>(x) * static_cast<double>(x);
  CHECK(norm > 0);
  CHECK(engine->difference_squared_norm() == Approx(norm).epsilon(1e-9));
  // Relative to the update's norm: bf16 2^-8 of each value, int8 a 254th of a tensor's range.
  for (const auto& [encoding, tolerance] :
       {std::pair(Encoding::kBf16, 0.005), std::pair(Encoding::kInt8, 0.05)}) {
    CAPTURE(to_string(encoding), kSeed);
    const auto bytes =
        engine->encode_difference(encoding, RandomStream(kSeed, RandomPurpose::kUpdateRounding));
    REQUIRE(bytes.ok());
    std::vector<float> decoded(exact.size());
    REQUIRE(decode(encoding, engine->layout(), bytes->span(), decoded).ok());
    double error = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      error += std::pow(static_cast<double>(decoded[i] - exact[i]), 2);
    }
    CHECK(std::sqrt(error / norm) < tolerance);
    CHECK(error > 0);
  }
}

TEST_CASE("a bf16 model of another size is refused, and weights that overflow are noticed",
          "[bf16]") {
  const ModelSpec spec = reference::plain_specs()[0].spec;
  const Problem problem(spec, 4);
  const auto engine = engine_for(spec, problem);
  const auto refused = engine->load(problem.model.span().first(problem.model.size() - 2));
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message.find("40 parameters as bf16 take 80") != std::string::npos);
  CHECK(engine->finite());
  CHECK(engine->difference_squared_norm() == 0);  // the refused one changed nothing
  engine->train_step(problem.inputs, problem.labels, std::numeric_limits<float>::infinity(), 0);
  CHECK_FALSE(engine->finite());
}
