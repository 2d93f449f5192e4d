#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/model_spec.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace covey {
namespace {

using Shape = std::vector<std::uint32_t>;
using enum LayerKind;

ModelSpec preset(const char* name, const Shape& shape, std::uint32_t classes) {
  const auto spec = preset_model(name, shape, classes);
  if (!spec.ok()) FAIL(spec.error().message);
  return *spec;
}

std::string refusal(const char* name, const Shape& shape) {
  const auto spec = preset_model(name, shape, 10);
  REQUIRE_FALSE(spec.ok());
  CHECK(spec.error().code == ErrorCode::kInvalidArgument);
  return spec.error().message;
}

std::size_t count(const ModelSpec& spec, LayerKind kind) {
  return static_cast<std::size_t>(std::ranges::count(spec.layers, kind, &LayerSpec::kind));
}

}  // namespace

TEST_CASE("presets of dense layers take an example of any shape as one row") {
  for (const char* name : {"logistic", "2nn", "autoencoder"}) {
    CHECK(preset(name, {60}, 10).input_shape == Shape{60});
    CHECK(preset(name, {32, 32, 3}, 10).input_shape == Shape{3072});
    CHECK_THAT(refusal(name, {}), Catch::Contains("no features"));
    CHECK_THAT(refusal(name, {28, 0, 1}), Catch::Contains("no features"));
    CHECK_THAT(refusal(name, {65536, 65536}), Catch::Contains("too many"));
  }
}

TEST_CASE("the convolutional preset takes 28x28 images, also as rows") {
  CHECK(preset("cnn", {28, 28, 1}, 62).input_shape == Shape{28, 28, 1});
  CHECK(preset("cnn", {784}, 62) == preset("cnn", {28, 28, 1}, 62));
  CHECK(refusal("cnn", {32, 32, 3}) ==
        "model.preset \"cnn\" takes 28x28x1 or 784 inputs, the data's examples are 32x32x3");
}

TEST_CASE("the character model has one symbol an output and two LSTM with peepholes") {
  // McMahan et al. 2017, section 3: 8-d embedding, 2 x 256 LSTM, 866,578 parameters. By hand, with
  // 258 symbols: 258*8 + (8 + 256 + 1 + 3/4)*4*256 + (256 + 256 + 1 + 3/4)*4*256 + 257*258
  // = 2,064 + 272,128 + 526,080 + 66,306 = 866,578.
  const ModelSpec spec = preset("char-lstm", {80}, 258);
  CHECK(spec.input_shape == Shape{80});
  const LayerSpec lstm{.kind = kLstm, .units = 256, .peephole = true};
  CHECK(spec.layers == std::vector<LayerSpec>{{.kind = kEmbedding, .units = 8, .vocabulary = 258},
                                              lstm,
                                              lstm,
                                              {.kind = kDense, .units = 258}});
  CHECK_THAT(refusal("char-lstm", {28, 28, 1}), Catch::Contains("sequences of tokens"));
}

TEST_CASE("the depthwise separable preset keeps no statistics of a batch") {
  const ModelSpec spec = preset("dscnn", {32, 32, 3}, 10);
  CHECK(spec.input_shape == Shape{32, 32, 3});
  CHECK(spec.layers.front().stride == 2);
  CHECK(count(spec, kDepthwiseConv2d) == 4);
  CHECK(count(spec, kConv2d) == 5);
  CHECK(count(spec, kGroupNorm) == 9);
  CHECK(count(spec, kBatchNorm) == 0);
  CHECK(spec.layers.back() == LayerSpec{.kind = kDense, .units = 10});
  CHECK_THAT(refusal("dscnn", {784}), Catch::Contains("images"));
}

TEST_CASE("the autoencoder rebuilds its input from a code of 16") {
  const ModelSpec spec = preset("autoencoder", {8, 5}, 3);
  CHECK(spec.loss == Loss::kMeanSquaredError);
  CHECK(spec.target == Target::kInput);
  std::vector<std::uint32_t> widths;
  for (const LayerSpec& layer : spec.layers) {
    if (layer.kind == kDense) widths.push_back(layer.units);
  }
  CHECK(widths == std::vector<std::uint32_t>{128, 64, 16, 64, 128, 40});
}

TEST_CASE("a model that has no preset is refused with those that have") {
  CHECK(refusal("resnet", {784}) == "unknown model \"resnet\"; there are " + preset_names());
  CHECK(preset_names() == "logistic, 2nn, cnn, char-lstm, dscnn, autoencoder");
}

}  // namespace covey
