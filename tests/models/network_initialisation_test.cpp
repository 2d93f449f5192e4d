#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <span>
#include <string>
#include <vector>

#include "network_specs.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::reference;

struct Statistics {
  double mean = 0, deviation = 0, most = 0;
};

Statistics statistics(std::span<const float> values) {
  Statistics s;
  const auto n = static_cast<double>(values.size());
  for (const float v : values) s.mean += static_cast<double>(v) / n;
  for (const float v : values) {
    const double away = static_cast<double>(v) - s.mean;
    s.deviation += away * away / n;
    s.most = std::max(s.most, std::abs(static_cast<double>(v)));
  }
  s.deviation = std::sqrt(s.deviation);
  return s;
}

}  // namespace

TEST_CASE("each scheme draws weights of its spread, and biases as it says", "[network]") {
  struct Scheme {
    Initialisation kind;
    double deviation;  ///< times the root of its fan
    bool both_fans;
    bool normal;
    bool zero_bias;
  };
  // uniform in +-b has the deviation b / sqrt(3)
  const std::vector<Scheme> schemes{
      {Initialisation::kFanIn, 1 / std::sqrt(3.0), false, false, false},
      {Initialisation::kHeNormal, std::sqrt(2.0), false, true, true},
      {Initialisation::kHeUniform, std::sqrt(2.0), false, false, true},
      {Initialisation::kGlorotNormal, std::sqrt(2.0), true, true, true},
      {Initialisation::kGlorotUniform, std::sqrt(2.0), true, false, true}};
  constexpr std::uint64_t kSeed = 61;
  for (const Scheme& scheme : schemes) {
    ModelSpec spec{{6, 6, 16}, {convolution(64, 3), depthwise(5), {kFlatten}, dense(20)}};
    spec.initialisation = scheme.kind;
    const Network network = Network::make(spec).value();
    std::vector<float> w(network.num_parameters());
    network.initialise(w, RandomStream(kSeed, RandomPurpose::kModelInitialisation));
    // fan-in: inputs of one output; fan-out: outputs of one input
    const std::vector<std::pair<double, double>> fans{{9 * 16, 9 * 64}, {25, 25}, {6 * 6 * 64, 20}};
    const auto& tensors = network.layout().tensors();
    for (std::size_t layer = 0; layer < fans.size(); ++layer) {
      const auto part = [&](std::size_t t) {
        return std::span<const float>(w).subspan(tensors[t].offset, tensors[t].size());
      };
      const auto [in, out] = fans[layer];
      const double expected = scheme.deviation / std::sqrt(scheme.both_fans ? in + out : in);
      const Statistics weights = statistics(part(2 * layer));
      const Statistics biases = statistics(part(2 * layer + 1));
      CAPTURE(to_string(scheme.kind), tensors[2 * layer].name, kSeed);
      const double n = static_cast<double>(tensors[2 * layer].size());
      CHECK(weights.deviation == Approx(expected).epsilon(5 / std::sqrt(2 * n)));
      CHECK(std::abs(weights.mean) < 5 * expected / std::sqrt(n));
      if (scheme.normal) {
        CHECK(weights.most > 2.5 * expected);  // a uniform draw ends at sqrt(3) deviations
      } else {
        CHECK(weights.most <= std::sqrt(3.0) * expected * 1.000001);
      }
      if (scheme.zero_bias) {
        CHECK(biases.most == 0);
      } else {
        CHECK(biases.most > 0.5 * std::sqrt(3.0) * expected);
        CHECK(biases.most <= std::sqrt(3.0) * expected * 1.000001);
      }
    }
  }
}

TEST_CASE("normalisations start as the identity whatever the scheme", "[network]") {
  ModelSpec spec{{8}, {dense(6), {kBatchNorm}, group_norm(2), {kLayerNorm}, dense(2)}};
  spec.initialisation = Initialisation::kHeNormal;
  const Network network = Network::make(spec).value();
  std::vector<float> w(network.num_parameters());
  network.initialise(w, RandomStream(1, RandomPurpose::kModelInitialisation));
  for (const auto& tensor : network.layout().tensors()) {
    if (tensor.name.find("norm") == std::string::npos) continue;
    const bool ones = tensor.name.ends_with(".weight") || tensor.name.ends_with(".running_var");
    const auto values = std::span<const float>(w).subspan(tensor.offset, tensor.size());
    CAPTURE(tensor.name);
    CHECK(static_cast<std::size_t>(std::ranges::count(values, ones ? 1.0f : 0.0f)) ==
          values.size());
  }
}

TEST_CASE("operations of strided and depthwise convolutions are counted from their products",
          "[network]") {
  const Network network =
      Network::make({{9, 9, 2}, {convolution(8, 3, 2), depthwise(3, 2), {kFlatten}, dense(4)}})
          .value();
  // 5x5 outputs of 18 x 8 products; 3x3 of 9 x 8; then 72 x 4
  CHECK(network.training_flops_per_example() == 4.0 * 25 * 18 * 8 + 6.0 * (9 * 9 * 8 + 72 * 4));
}
