#pragma once

#include <algorithm>
#include <cmath>
#include <covey/int8_encoding.hpp>
#include <covey/model_spec.hpp>
#include <covey/models/int8_network.hpp>
#include <covey/models/network.hpp>
#include <covey/random.hpp>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

/// Networks, data and parameters for the tests of the int8 engine.
namespace covey::models::int8_test {

using enum LayerKind;

inline LayerSpec dense(std::uint32_t units) { return {.kind = kDense, .units = units}; }
inline LayerSpec convolution(std::uint32_t filters, std::uint32_t kernel) {
  return {.kind = kConv2d, .units = filters, .kernel = kernel};
}
inline LayerSpec max_pool(std::uint32_t window) { return {.kind = kMaxPool2d, .kernel = window}; }
inline LayerSpec relu() { return {.kind = kRelu}; }
inline LayerSpec flatten() { return {.kind = kFlatten}; }

struct NamedSpec {
  const char* name;
  ModelSpec spec;
};

/// Sizes that leave partial quads, vectors and tiles, and every order of layers that is planned in
/// a way of its own.
inline std::vector<NamedSpec> int8_specs() {
  return {
      {"logistic", {{7}, {dense(5)}}},
      {"two hidden layers", {{65}, {dense(50), relu(), dense(40), relu(), dense(10)}}},
      {"hidden layer without relu", {{33}, {dense(24), dense(10)}}},
      {"relu first, then twice", {{20}, {relu(), dense(18), relu(), relu(), dense(4)}}},
      {"convolutions with pooling",
       {{12, 12, 1},
        {convolution(8, 5), relu(), max_pool(2), convolution(16, 5), relu(), max_pool(2), flatten(),
         dense(24), relu(), dense(10)}}},
      {"odd channels, even kernel, relu behind the pool",
       {{7, 9, 3},
        {convolution(6, 4), max_pool(2), relu(), convolution(5, 3), flatten(), dense(4)}}},
      {"pooling first and twice",
       {{12, 13, 2},
        {max_pool(2), convolution(9, 3), relu(), max_pool(2), max_pool(2), flatten(), dense(3)}}},
      {"kernel larger than the image",
       {{2, 3, 1}, {convolution(3, 5), convolution(4, 7), relu(), flatten(), dense(2)}}},
  };
}

/// The spec's network in floats, its layout and initial parameters.
inline std::vector<float> initial_parameters(const ModelSpec& spec, std::uint64_t seed) {
  const auto network = Network::make(spec);
  std::vector<float> parameters(network.value().num_parameters());
  network->initialise(parameters, RandomStream(seed, RandomPurpose::kModelInitialisation));
  return parameters;
}

struct Batch {
  std::vector<float> inputs;
  std::vector<std::int32_t> labels;
};

/// Inputs in [-0.5, 1), labels that one input in three gives away.
inline Batch random_batch(std::size_t size, std::size_t inputs, std::size_t classes,
                          std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kDataGeneration);
  Batch batch;
  for (std::size_t i = 0; i < size; ++i) {
    const auto label = random.below(classes);
    batch.labels.push_back(static_cast<std::int32_t>(label));
    for (std::size_t f = 0; f < inputs; ++f) {
      const double own = f % classes == label ? 0.5 : 0;
      batch.inputs.push_back(static_cast<float>(random.uniform(-0.5, 0.5) + own));
    }
  }
  return batch;
}

/// Sets COVEY_ISA while it lives.
class IsaScope {
 public:
  explicit IsaScope(const std::string& name) {
    if (const char* before = std::getenv("COVEY_ISA")) before_ = before;
    ::setenv("COVEY_ISA", name.c_str(), 1);
  }
  ~IsaScope() {
    before_.empty() ? ::unsetenv("COVEY_ISA") : ::setenv("COVEY_ISA", before_.c_str(), 1);
  }
  IsaScope(const IsaScope&) = delete;
  IsaScope& operator=(const IsaScope&) = delete;

 private:
  std::string before_;
};

inline std::vector<float> decoded(const SharedBytes& blob, const ModelLayout& layout) {
  std::vector<float> values(layout.size());
  const auto result = decode_int8(blob.span(), layout, values);
  if (!result.ok()) throw std::runtime_error(result.error().message);
  return values;
}

}  // namespace covey::models::int8_test
