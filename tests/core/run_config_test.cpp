#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/run_config.hpp>
#include <filesystem>
#include <string>
#include <vector>

namespace covey {
namespace {

RunConfig with_layers(std::vector<LayerSpec> layers) {
  RunConfig config;
  config.model.preset.clear();
  config.model.layers = std::move(layers);
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

TEST_CASE("with a squared or logistic error the last layer gives the label or one value a class") {
  for (const Loss loss : {Loss::kMeanSquaredError, Loss::kBinaryCrossEntropy}) {
    for (const std::uint32_t units : {1u, 10u}) {
      RunConfig config = with_layers({{LayerKind::kDense, units}});
      config.model.loss = loss;
      const auto spec = model_spec_of(config, {60}, 10);
      REQUIRE(spec.ok());
      CHECK(spec->loss == loss);
    }
    RunConfig config = with_layers({{LayerKind::kDense, 3}});
    config.model.loss = loss;
    const auto wrong = model_spec_of(config, {60}, 10);
    REQUIRE_FALSE(wrong.ok());
    CHECK_THAT(wrong.error().message,
               Catch::Contains("units = 3") && Catch::Contains("units = 10"));
  }
}

TEST_CASE("a network that rebuilds its input is free of the data's classes") {
  RunConfig config = with_layers({{LayerKind::kDense, 4}, {LayerKind::kDense, 60}});
  config.model.loss = Loss::kMeanSquaredError;
  config.model.target = Target::kInput;
  config.model.initialisation = Initialisation::kHeUniform;
  const auto spec = model_spec_of(config, {60}, 10);
  REQUIRE(spec.ok());
  CHECK(spec->target == Target::kInput);
  CHECK(spec->initialisation == Initialisation::kHeUniform);
}

TEST_CASE("a network of a TorchScript file has the data's shape and no layers") {
  RunConfig config;
  config.model.preset.clear();
  config.model.torchscript = "net.pt";
  const auto spec = model_spec_of(config, {28, 28, 1}, 10);
  REQUIRE(spec.ok());
  CHECK(*spec == ModelSpec{.input_shape = {28, 28, 1}});
}

TEST_CASE("learning rates follow their schedules") {
  RunConfig config;
  config.client.learning_rate = 0.8;
  config.num_rounds = 4;
  auto& schedule = config.client.schedule;
  schedule = {.kind = ScheduleKind::kConstant, .decay = 0.5, .step = 2, .warmup = 0};
  const auto rates = [&] {
    std::vector<double> all;
    for (std::uint32_t t = 1; t <= 5; ++t) all.push_back(learning_rate_of(config, t));
    return all;
  };
  const auto check = [&](const std::vector<double>& expected) {
    const auto found = rates();
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(found[i] == Approx(expected[i]));
  };
  check({0.8, 0.8, 0.8, 0.8, 0.8});
  schedule.kind = ScheduleKind::kStep;  // 0.5^floor((t - 1) / 2)
  check({0.8, 0.8, 0.4, 0.4, 0.2});
  schedule.kind = ScheduleKind::kExponential;
  check({0.8, 0.4, 0.2, 0.1, 0.05});
  schedule.kind = ScheduleKind::kInverse;  // 0.8 / (1 + (t - 1) / 2)
  check({0.8, 0.8 / 1.5, 0.4, 0.32, 0.8 / 3});
  schedule.kind = ScheduleKind::kCosine;  // angles 0, pi/4, pi/2, 3 pi/4, pi
  const double half_root = std::sqrt(0.5);
  check({0.8, 0.4 * (1 + half_root), 0.4, 0.4 * (1 - half_root), 0});
  schedule = {.kind = ScheduleKind::kConstant, .decay = 0.5, .step = 2, .warmup = 4};
  check({0.2, 0.4, 0.6, 0.8, 0.8});
}

TEST_CASE("updates travel in the precision's own encoding unless the run file says otherwise") {
  RunConfig config;
  const auto sent = [&](const char* precision, const char* compressor) {
    config.client.precision = precision;
    config.client.compressors = {compressor};
    return compressor_of(config);
  };
  CHECK(sent("fp32", "auto") == "fp32");
  CHECK(sent("bf16", "auto") == "bf16");
  CHECK(sent("qat-int8", "auto") == "fp32");
  CHECK(sent("int8", "auto") == "int8");
  CHECK(sent("fp32", "int8") == "int8");
}

TEST_CASE("what is masked or made private is sent in floating point") {
  for (const char* precision : {"fp32", "bf16", "qat-int8"}) {
    RunConfig secure;
    secure.client.precision = precision;
    secure.secure_aggregation.mode = "honest-but-curious";
    CHECK(compressor_of(secure) == "fp32");
    RunConfig noised;
    noised.client.precision = precision;
    noised.privacy.mechanism = "local-gaussian";
    CHECK(compressor_of(noised) == "fp32");
    noised.client.compressors = {"bf16"};
    CHECK(compressor_of(noised) == "bf16");
  }
}

TEST_CASE("every example's run file is valid") {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  for (const auto& entry :
       fs::recursive_directory_iterator(fs::path(COVEY_SOURCE_DIR) / "examples")) {
    const bool is_sweep = entry.path().parent_path().filename() == "11_sweep";  // of many runs
    const bool is_device = entry.path().filename() == "client.toml";  // what covey-client reads
    if (entry.path().extension() == ".toml" && !is_sweep && !is_device) files.push_back(entry.path().string());
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
