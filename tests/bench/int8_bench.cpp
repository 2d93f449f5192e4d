// Time of one training step in int8, B = 10, on one core; COVEY_ISA lowers the kernels. The
// yardstick is the same step in single precision. `bytes` is what training holds: weights,
// activations, scratch (in single precision weights and workspace).

#include <benchmark/benchmark.h>

#include <covey/int8_encoding.hpp>
#include <covey/models/int8_network.hpp>
#include <covey/models/network.hpp>
#include <covey/models/quantised_model.hpp>
#include <string>
#include <vector>

namespace {

using namespace covey;
using namespace covey::models;

constexpr std::size_t kBatch = 10;
constexpr std::size_t kBatches = 20;
constexpr std::uint32_t kClasses = 10;

/// Images a fifth of whose pixels are not black, as MNIST's.
struct Examples {
  std::vector<float> inputs;
  std::vector<std::int32_t> labels;

  explicit Examples(std::size_t example_size) {
    RandomStream random(1, RandomPurpose::kDataGeneration);
    inputs.resize(kBatches * kBatch * example_size);
    for (float& x : inputs) x = random.below(5) == 0 ? static_cast<float>(random.uniform()) : 0.0f;
    for (std::size_t i = 0; i < kBatches * kBatch; ++i) {
      labels.push_back(static_cast<std::int32_t>(random.below(kClasses)));
    }
  }
  std::span<const float> batch(std::size_t i) const {
    const std::size_t size = inputs.size() / kBatches;
    return std::span(inputs).subspan(i % kBatches * size, size);
  }
  std::span<const std::int32_t> batch_labels(std::size_t i) const {
    return std::span(labels).subspan(i % kBatches * kBatch, kBatch);
  }
};

ModelSpec spec_of(const std::string& model) {
  return preset_model(model, {28, 28, 1}, kClasses).value();
}

ParameterVector initial(const Network& network) {
  ParameterVector parameters(network.num_parameters());
  network.initialise(parameters.span(), RandomStream(1, RandomPurpose::kModelInitialisation));
  return parameters;
}

void train_int8(benchmark::State& state, const std::string& model) {
  const ModelSpec spec = spec_of(model);
  const auto network = Int8Network::make(spec).value();
  const Examples examples(network.inputs());
  Int8Parameters parameters(network);
  const auto blob = encode_int8(initial(Network::make(spec).value()).span(), network.layout());
  if (!network.load(parameters, blob.span()).ok()) state.SkipWithError("refused");
  auto workspace = Int8Workspace::make(network, kBatch).value();
  std::uint64_t step = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(network.train_step(workspace, examples.batch(step),
                                                examples.batch_labels(step), parameters,
                                                {.learning_rate = 0.01f, .seed = step}));
    ++step;
  }
  state.counters["bytes"] = static_cast<double>(network.training_bytes(kBatch));
}

void train_fp32(benchmark::State& state, const std::string& model) {
  const auto network = Network::make(spec_of(model)).value();
  const Examples examples(network.inputs());
  ParameterVector parameters = initial(network);
  Workspace workspace(network, kBatch);
  std::size_t step = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(network.train_step(workspace, examples.batch(step),
                                                examples.batch_labels(step), parameters.span(),
                                                {.learning_rate = 0.01f}));
    ++step;
  }
  state.counters["bytes"] =
      static_cast<double>(parameters.size() * sizeof(float) + workspace.bytes());
}

void infer_int8(benchmark::State& state, const std::string& model) {
  const ModelSpec spec = spec_of(model);
  const ParameterVector parameters = initial(Network::make(spec).value());
  const std::size_t weighted = model == "2nn" ? 3 : 4;
  const std::vector<float> ranges(weighted + 1, 1.0f);
  auto quantised = QuantisedModel::make(spec, parameters.span(), ranges).value();
  const Examples examples(quantised.inputs());
  std::vector<float> scores(kBatch * quantised.classes());
  std::size_t step = 0;
  for (auto _ : state) {
    quantised.predict(examples.batch(step++), scores);
    benchmark::DoNotOptimize(scores.data());
  }
  state.counters["bytes"] = static_cast<double>(quantised.bytes());
}

BENCHMARK_CAPTURE(train_int8, 2nn, std::string("2nn"))->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(train_fp32, 2nn, std::string("2nn"))->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(train_int8, cnn, std::string("cnn"))->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(train_fp32, cnn, std::string("cnn"))->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(infer_int8, 2nn, std::string("2nn"))->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(infer_int8, cnn, std::string("cnn"))->Unit(benchmark::kMicrosecond);

}  // namespace
