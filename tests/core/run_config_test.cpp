#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/run_config.hpp>
#include <filesystem>
#include <string>
#include <vector>

namespace covey {
namespace {

RunConfig with_layers(std::vector<LayerSpec> layers) {
  RunConfig config;
  config.model = {"", std::move(layers)};
  return config;
}

}  // namespace

TEST_CASE("a preset becomes a network for the data's inputs and classes") {
  RunConfig config;
  config.model.preset = "2nn";
  const auto spec = model_spec_of(config, {28, 28, 1}, 7);
  REQUIRE(spec.ok());
  CHECK(spec->input_shape == std::vector<std::uint32_t>{784});
  CHECK(spec->layers.back().units == 7);
}

TEST_CASE("given layers keep the data's shape where they begin with an image layer") {
  const std::vector<LayerSpec> layers{
      {LayerKind::kConv2d, 4, 3}, {LayerKind::kFlatten, 0, 0}, {LayerKind::kDense, 10, 0}};
  const auto spec = model_spec_of(with_layers(layers), {28, 28, 1}, 10);
  REQUIRE(spec.ok());
  CHECK(spec->input_shape == std::vector<std::uint32_t>{28, 28, 1});
  CHECK(spec->layers == layers);
}

TEST_CASE("given layers that begin with a dense one take an example as one row") {
  const auto spec = model_spec_of(with_layers({{LayerKind::kDense, 10, 0}}), {28, 28, 1}, 10);
  REQUIRE(spec.ok());
  CHECK(spec->input_shape == std::vector<std::uint32_t>{784});
}

TEST_CASE("a last layer that does not fit the classes is refused") {
  const auto wrong = model_spec_of(with_layers({{LayerKind::kDense, 9, 0}}), {60}, 10);
  REQUIRE_FALSE(wrong.ok());
  CHECK_THAT(wrong.error().message, Catch::Contains("units = 9") && Catch::Contains("10 classes"));
  const auto relu =
      model_spec_of(with_layers({{LayerKind::kDense, 10, 0}, {LayerKind::kRelu, 0, 0}}), {60}, 10);
  REQUIRE_FALSE(relu.ok());
  CHECK_THAT(relu.error().message, Catch::Contains("\"relu\""));
}

TEST_CASE("the convolutional preset refuses examples that are not 28x28") {
  RunConfig config;
  config.model.preset = "cnn";
  CHECK_FALSE(model_spec_of(config, {60}, 10).ok());
  CHECK_FALSE(model_spec_of(config, {0}, 10).ok());
  CHECK_FALSE(model_spec_of(config, {65536, 65536}, 10).ok());
}

TEST_CASE("every example's run file is valid") {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  for (const auto& entry :
       fs::recursive_directory_iterator(fs::path(COVEY_SOURCE_DIR) / "examples")) {
    if (entry.path().extension() == ".toml") files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  CHECK(files.size() >= 10);
  for (const std::string& file : files) {
    const auto config = load_run_file(file, {});
    INFO(file << (config.ok() ? "" : ": " + config.error().message));
    CHECK(config.ok());
  }
}

}  // namespace covey
