#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <limits>
#include <string>
#include <vector>

namespace {

using namespace covey;
using namespace covey::models;
using enum LayerKind;

Network preset(const char* name, std::uint32_t inputs) {
  const auto spec = preset_model(name, {inputs}, 10);
  REQUIRE(spec.ok());
  auto network = Network::make(*spec);
  REQUIRE(network.ok());
  return std::move(network).value();
}

std::string refusal(const ModelSpec& spec) {
  const auto network = Network::make(spec);
  REQUIRE_FALSE(network.ok());
  CHECK(network.error().code == ErrorCode::kInvalidArgument);
  return network.error().message;
}

}  // namespace

TEST_CASE("the models of McMahan et al. 2017 have the paper's sizes", "[network]") {
  CHECK(preset("2nn", 784).num_parameters() == 199'210);
  CHECK(preset("cnn", 784).num_parameters() == 1'663'370);
  CHECK(preset("logistic", 60).num_parameters() == 610);
}

TEST_CASE("a network names its tensors in the order of its layers", "[network]") {
  const Network network = preset("cnn", 784);
  CHECK(network.inputs() == 784);
  CHECK(network.classes() == 10);
  struct Expected {
    const char* name;
    std::vector<std::uint32_t> shape;
  };
  const std::vector<Expected> expected{{"conv1.weight", {5, 5, 1, 32}},  {"conv1.bias", {32}},
                                       {"conv2.weight", {5, 5, 32, 64}}, {"conv2.bias", {64}},
                                       {"dense1.weight", {3136, 512}},   {"dense1.bias", {512}},
                                       {"dense2.weight", {512, 10}},     {"dense2.bias", {10}}};
  const auto& tensors = network.layout().tensors();
  REQUIRE(tensors.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(tensors[i].name == expected[i].name);
    CHECK(tensors[i].shape == expected[i].shape);
  }
}

TEST_CASE("the operations of a training step are counted from the products", "[network]") {
  // one product forward, one for the weights; none for the input of the first layer
  CHECK(preset("logistic", 60).training_flops_per_example() == 4.0 * 60 * 10);
  CHECK(preset("2nn", 784).training_flops_per_example() ==
        4.0 * 784 * 200 + 6.0 * (200 * 200 + 200 * 10));
  CHECK(preset("cnn", 784).training_flops_per_example() ==
        4.0 * 28 * 28 * 25 * 32 + 6.0 * (14 * 14 * 25 * 32 * 64 + 3136 * 512 + 512 * 10));
}

TEST_CASE("initial parameters are uniform within one over the root of the fan-in", "[network]") {
  const Network network = preset("cnn", 784);
  std::vector<float> parameters(network.num_parameters());
  std::vector<float> again(network.num_parameters());
  network.initialise(parameters, RandomStream(1, RandomPurpose::kModelInitialisation));
  network.initialise(again, RandomStream(1, RandomPurpose::kModelInitialisation));
  CHECK(parameters == again);
  network.initialise(again, RandomStream(2, RandomPurpose::kModelInitialisation));
  CHECK(parameters != again);
  const std::vector<double> fan_in{25, 25, 800, 800, 3136, 3136, 512, 512};
  const auto& tensors = network.layout().tensors();
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const auto values =
        std::span<const float>(parameters).subspan(tensors[t].offset, tensors[t].size());
    const double bound = 1 / std::sqrt(fan_in[t]);
    double most = 0;
    double sum = 0;
    for (const float v : values) {
      most = std::max(most, std::abs(static_cast<double>(v)));
      sum += static_cast<double>(v);
    }
    CAPTURE(tensors[t].name);
    CHECK(most <= bound * 1.0000001);
    CHECK(most >
          0.7 * bound);  // ten uniform draws all within 0.7: chance 0.03, with this seed not so
    // six standard deviations of the mean of n uniform draws: 6 * bound / sqrt(3 n)
    CHECK(std::abs(sum) / static_cast<double>(values.size()) <=
          6 * bound / std::sqrt(3.0 * static_cast<double>(values.size())));
  }
}

TEST_CASE("a description whose layers do not fit is refused, naming layer and shapes",
          "[network]") {
  CHECK(refusal({{28, 28, 1}, {{kConv2d, 8, 3}, {kDense, 10, 0}}}) ==
        "layer 2 (dense) takes a vector or a sequence but receives 28x28x8; put a flatten layer "
        "before "
        "it");
  CHECK(refusal({{784}, {{kConv2d, 8, 3}}}) ==
        "layer 1 (conv2d) takes [height, width, channels] but receives 784");
  CHECK(refusal({{784}, {{kRelu}, {kMaxPool2d, 0, 2}}}) ==
        "layer 2 (max-pool2d) takes [height, width, channels] but receives 784");
  CHECK(refusal({{4, 3, 1}, {{kMaxPool2d, 0, 2}, {kMaxPool2d, 0, 2}}}) ==
        "layer 2 (max-pool2d) has a window of 2x2, which does not fit its input 2x1x1");
  CHECK(refusal({{4, 4, 1}, {{kMaxPool2d, 0, 0}}}) ==
        "layer 1 (max-pool2d) has a window of 0x0, which does not fit its input 4x4x1");
  CHECK(refusal({{4}, {{kDense, 3, 0}, {kDense, 0, 0}}}) == "layer 2 (dense) has no units");
  CHECK(refusal({{4, 4, 1}, {{kConv2d, 0, 3}}}) == "layer 1 (conv2d) has no filters");
  CHECK(refusal({{4, 4, 1}, {{kConv2d, 2, 0}}}) == "layer 1 (conv2d) has kernel 0; 1 to 64 work");
  CHECK(refusal({{4, 4, 1}, {{kConv2d, 2, 3}}}) ==
        "the model's last layer 1 (conv2d) gives 4x4x2; the loss needs one score per class, two or "
        "more (end with flatten and dense)");
  CHECK(refusal({{4}, {{kDense, 1, 0}}}) ==
        "the model's last layer 1 (dense) gives 1; the loss needs one score per class, two or more "
        "(end with flatten and dense)");
  CHECK(refusal({{4}, {{kRelu}}}) == "the model has nothing to train: no layer has parameters");
  CHECK(refusal({{4}, {}}) == "the model has no layers");
  CHECK(refusal({{4}, {{static_cast<LayerKind>(99), 1, 1}}}) == "layer 1 has the unknown kind 99");
}

TEST_CASE("a description of absurd size is refused before anything is allocated", "[network]") {
  constexpr std::uint32_t kHuge = std::numeric_limits<std::uint32_t>::max();
  CHECK(refusal({{kHuge, kHuge, kHuge}, {{kDense, 2, 0}}}).find("too many values") !=
        std::string::npos);
  CHECK(refusal({{0}, {{kDense, 2, 0}}}).find("has no values") != std::string::npos);
  CHECK(refusal({{4, 4, 1, 1}, {{kDense, 2, 0}}}).find("has 4 dimensions") != std::string::npos);
  CHECK(refusal({{}, {{kDense, 2, 0}}}).find("has 0 dimensions") != std::string::npos);
  CHECK(refusal({{1u << 24}, {{kDense, kHuge, 0}}}).find("parameters; at most") !=
        std::string::npos);
  CHECK(refusal({{64, 64, 1u << 12}, {{kConv2d, kHuge, 64}}}).find("layer 1 (conv2d)") !=
        std::string::npos);
  CHECK(refusal({{4096, 4096, 1}, {{kConv2d, 64, 1}}}).find("values per example") !=
        std::string::npos);
  CHECK(refusal({{4}, std::vector<LayerSpec>(2000, {kRelu})}).find("2000 layers") !=
        std::string::npos);
}
