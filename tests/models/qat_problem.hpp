#pragma once

#include <covey/models/data_set.hpp>
#include <covey/models/engine.hpp>
#include <covey/random.hpp>
#include <numeric>
#include <vector>

/// A problem that a small network learns in a second: images whose class is where the bright patch
/// lies.
namespace covey::models::qat_problem {

constexpr std::uint32_t kSide = 8;
constexpr std::uint32_t kClasses = 4;

inline DataSet images(std::size_t examples, std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kDataGeneration);
  std::vector<float> features(examples * kSide * kSide);
  std::vector<std::int32_t> labels(examples);
  for (std::size_t e = 0; e < examples; ++e) {
    labels[e] = static_cast<std::int32_t>(random.below(kClasses));
    float* image = features.data() + e * kSide * kSide;
    for (std::size_t i = 0; i < kSide * kSide; ++i) {
      image[i] = static_cast<float>(random.normal(0, 0.6));
    }
    const auto class_index = static_cast<std::size_t>(labels[e]);
    const std::size_t row = class_index / 2 * 4 + static_cast<std::size_t>(random.below(2));
    const std::size_t column = class_index % 2 * 4 + static_cast<std::size_t>(random.below(2));
    for (std::size_t y = 0; y < 3; ++y) {
      for (std::size_t x = 0; x < 3; ++x) image[(row + y) * kSide + column + x] += 0.8f;
    }
  }
  return DataSet::from_floats({kSide, kSide, 1}, std::move(features), std::move(labels), kClasses)
      .value();
}

inline ModelSpec dense_model() {
  using enum LayerKind;
  return {{kSide, kSide, 1},
          {{kFlatten}, {kDense, 40}, {kRelu}, {kDense, 20}, {kRelu}, {kDense, kClasses}}};
}

inline ModelSpec convolutional_model() {
  using enum LayerKind;
  return {{kSide, kSide, 1},
          {{kConv2d, 8, 3},
           {kRelu},
           {kMaxPool2d, 0, 2},
           {kConv2d, 12, 3},
           {kMaxPool2d, 0, 2},
           {kRelu},
           {kFlatten},
           {kDense, 24},
           {kRelu},
           {kDense, kClasses}}};
}

struct Examples {
  std::vector<float> features;
  std::vector<std::int32_t> labels;
};

inline Examples gather(const DataSet& data, std::size_t first, std::size_t count) {
  Examples result{std::vector<float>(count * data.example_size()),
                  std::vector<std::int32_t>(count)};
  std::vector<std::uint32_t> indices(count);
  std::iota(indices.begin(), indices.end(), static_cast<std::uint32_t>(first));
  data.gather(indices, result.features, result.labels);
  return result;
}

/// An engine at the model drawn from `seed`, with room for `batch` examples.
inline std::unique_ptr<Engine> engine_for(const ModelSpec& spec, const char* precision,
                                          std::uint64_t seed, std::size_t batch) {
  const Network network = make_network(spec, precision).value();
  ParameterVector initial(network.num_parameters());
  network.initialise(initial.span(), RandomStream(seed, RandomPurpose::kModelInitialisation));
  auto engine = make_engine(spec, precision).value();
  engine->reserve(batch);
  engine->load(encode_fp32(initial.span()).span()).ok();
  engine->begin_training({}, RandomStream(seed, RandomPurpose::kTrainingStep));
  return engine;
}

/// One pass over the data in order, ten examples a step.
inline void train(Engine& engine, const DataSet& data, float learning_rate) {
  for (std::size_t first = 0; first + 10 <= data.size(); first += 10) {
    const Examples batch = gather(data, first, 10);
    engine.train_step(batch.features, batch.labels, learning_rate, 0);
  }
}

}  // namespace covey::models::qat_problem
