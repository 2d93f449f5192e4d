#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <limits>
#include <string>
#include <vector>

#include "network_specs.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::reference;

std::string refusal(const ModelSpec& spec) {
  const auto network = Network::make(spec);
  REQUIRE_FALSE(network.ok());
  CHECK(network.error().code == ErrorCode::kInvalidArgument);
  return network.error().message;
}

/// The refusal of this layer, which receives `input`.
std::string refused(const std::vector<std::uint32_t>& input, const LayerSpec& layer) {
  return refusal({input, {layer, {kFlatten}, dense(2)}});
}

constexpr std::uint32_t kHuge = std::numeric_limits<std::uint32_t>::max();

}  // namespace

TEST_CASE("windows that do not fit are refused", "[network]") {
  constexpr Padding kValid = Padding::kValid;
  CHECK(refused({4, 3, 1}, convolution(2, 4, 1, kValid)) ==
        "layer 1 (conv2d) has a window of 4x4, which does not fit its input 4x3x1 without padding");
  CHECK(
      refused({2, 8, 3}, depthwise(3, 2, kValid)) ==
      "layer 1 (depthwise-conv2d) has a window of 3x3, which does not fit its input 2x8x3 without "
      "padding");
  CHECK(refused({4, 4, 1}, depthwise(0)) ==
        "layer 1 (depthwise-conv2d) has kernel 0; 1 to 64 work");
  CHECK(refused({4, 4, 1}, depthwise(65)) ==
        "layer 1 (depthwise-conv2d) has kernel 65; 1 to 64 work");
  CHECK(refused({4, 4, 1}, average_pool(5, 1)) ==
        "layer 1 (average-pool2d) has a window of 5x5, which does not fit its input 4x4x1");
  CHECK(refused({4, 4, 1}, average_pool(kHuge, kHuge)) ==
        "layer 1 (average-pool2d) has a window of 4294967295x4294967295, which does not fit its "
        "input 4x4x1");
  LayerSpec unknown = convolution(2, 3);
  unknown.padding = static_cast<Padding>(7);
  CHECK(refused({4, 4, 1}, unknown) == "layer 1 (conv2d) has the unknown padding 7");
}

TEST_CASE("a layer that receives the wrong number of dimensions is refused", "[network]") {
  CHECK(refused({9}, depthwise(3)) ==
        "layer 1 (depthwise-conv2d) takes [height, width, channels] but receives 9");
  CHECK(refused({9, 4}, convolution(2, 3)) ==
        "layer 1 (conv2d) takes [height, width, channels] but receives 9x4");
  CHECK(refused({9}, {kGlobalAveragePool}) ==
        "layer 1 (global-average-pool) takes [height, width, channels] or a sequence [steps, "
        "features] but receives 9");
}

TEST_CASE("normalisations that leave nothing or do not divide are refused", "[network]") {
  CHECK(refused({4, 4, 6}, group_norm(4)) ==
        "layer 1 (group-norm) has 4 groups, which do not divide the 6 channels of 4x4x6");
  CHECK(refused({6}, group_norm(0)) ==
        "layer 1 (group-norm) has 0 groups, which do not divide the 6 channels of 6");
  CHECK(refused({6}, group_norm(6)) ==
        "layer 1 (group-norm) has 6 groups for 6: one value each, which leaves nothing");
  CHECK(
      refused({6, 1}, {kLayerNorm}) ==
      "layer 1 (layer-norm) normalises the last dimension of 6x1: one value, which leaves nothing");
}

TEST_CASE("a dropout rate that is no chance is refused", "[network]") {
  for (const float rate : {1.0f, -0.1f, 2.0f, std::nanf("")}) {
    const std::string message = refused({6}, dropout(rate));
    CAPTURE(rate);
    CHECK(message.find("layer 1 (dropout) has rate ") == 0);
    CHECK(message.find("it is a chance in [0, 1)") != std::string::npos);
  }
  CHECK(Network::make({{6}, {dropout(0), dense(2)}}).ok());
}

TEST_CASE("a residual that leads nowhere or does not fit is refused", "[network]") {
  CHECK(
      refusal({{6}, {dense(6), add(3), dense(2)}}) ==
      "layer 2 (add) has back = 3; it adds an earlier output to the one of the layer before it, so "
      "2 to 2 work here (2 is the network's input)");
  CHECK(refusal({{6}, {dense(6), add(1), dense(2)}}).find("layer 2 (add) has back = 1") == 0);
  CHECK(refusal({{6}, {dense(6), add(kHuge), dense(2)}}).find("layer 2 (add) has back = 42949") ==
        0);
  CHECK(refusal({{6}, {dense(5), add(2), dense(2)}}) ==
        "layer 2 (add) adds 5 and 6; the shapes must be the same");
  CHECK(refusal({{4, 4, 2}, {convolution(2, 3), {kFlatten}, add(2), dense(2)}}) ==
        "layer 3 (add) adds 32 and 4x4x2; the shapes must be the same");
}

TEST_CASE("what a kind of layer has no use for is refused rather than ignored", "[network]") {
  const auto message = [](const char* name, const char* field) {
    return std::string("layer 1 (") + name + ") has " + field +
           " set, which this kind of layer does not take";
  };
  LayerSpec layer = depthwise(3);
  layer.units = 4;
  CHECK(refused({4, 4, 2}, layer) == message("depthwise-conv2d", "units"));
  CHECK(refused({6}, {.kind = kRelu, .units = 3}) == message("relu", "units"));
  CHECK(refused({6}, {.kind = kDense, .units = 3, .kernel = 3}) == message("dense", "kernel"));
  CHECK(refused({6}, {.kind = kDense, .units = 3, .stride = 2}) == message("dense", "stride"));
  layer = max_pool(2);
  layer.padding = Padding::kValid;
  CHECK(refused({4, 4, 2}, layer) == message("max-pool2d", "padding"));
  CHECK(refused({6}, {.kind = kDense, .units = 3, .vocabulary = 9}) ==
        message("dense", "vocabulary"));
  CHECK(refused({6}, {.kind = kLayerNorm, .groups = 2}) == message("layer-norm", "groups"));
  CHECK(refused({6}, {.kind = kDense, .units = 3, .back = 2}) == message("dense", "back"));
  CHECK(refused({6}, {.kind = kDense, .units = 3, .rate = 0.5f}) == message("dense", "rate"));
  CHECK(refused({6}, {.kind = kDense, .units = 3, .rate = std::nanf("")}) ==
        message("dense", "rate"));
  CHECK(refused({6}, {.kind = kDense, .units = 3, .peephole = true}) ==
        message("dense", "peephole"));
  CHECK(refused({6}, {.kind = kFlatten, .last_only = true}) == message("flatten", "last-only"));
}

TEST_CASE("sizes that only new layers reach are refused before anything is allocated",
          "[network]") {
  // padding: 4096 x 4096 values fit 2^24, with a border of 63 they do not
  CHECK(refused({4096, 4095, 1}, convolution(1, 64)).find("values per example") !=
        std::string::npos);
  CHECK(Network::make({{4096, 2048, 1}, {depthwise(3), {kGlobalAveragePool}, dense(2)}}).ok());
  // 2^24 channels of 64 x 64 taps: 2^36 parameters
  CHECK(refused({1, 1, 1u << 24}, depthwise(64)).find("parameters; at most") != std::string::npos);
  // every layer fits, all together do not
  const ModelSpec many{{1u << 20}, std::vector<LayerSpec>(100, {.kind = kTanh})};
  CHECK(refusal(many).find("with the layers before; at most") != std::string::npos);
  // a stride beyond the image is one window
  const auto network = Network::make({{5, 6, 2}, {convolution(3, 2, kHuge), {kFlatten}, dense(2)}});
  REQUIRE(network.ok());
  CHECK(network->num_parameters() == 2 * 2 * 2 * 3 + 3 + 3 * 2 + 2);
}

TEST_CASE("losses and targets that do not fit the outputs are refused", "[network]") {
  constexpr auto kMse = Loss::kMeanSquaredError;
  CHECK(refusal({{6}, {dense(6)}, Loss::kCrossEntropy, Target::kInput}) ==
        "the model's target is its input, which takes the loss mse or bce, not cross-entropy");
  CHECK(refusal({{6}, {dense(5)}, kMse, Target::kInput}).find("layer 1 (dense) is the last") == 0);
  CHECK(refusal({{4, 3}, {dense(5)}, kMse}).find("the model's last layer 1 (dense) gives 4x5") ==
        0);
}
