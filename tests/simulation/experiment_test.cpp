#include <catch2/catch.hpp>
#include <covey/digest.hpp>
#include <covey/simulation/experiment.hpp>
#include <string>
#include <vector>

#include "data_directory.hpp"

namespace covey::simulation {
namespace {

/// A play of two roles as a data directory, and a run that learns from it.
struct Play {
  test::ScratchDirectory directory;
  RunConfig config;

  Play() {
    directory.write("shakespeare/input.txt", "A:\nto be or not to be\n\nB:\nthat is it\n");
    config.data.source = "text";
    config.data.steps = 4;
    config.partition = {.scheme = "natural", .clients = 0};
    config.model.preset = "char-lstm";
  }
  Result<Experiment> load(const ModelSource& source = {}) const {
    return load_experiment(config, directory.path(), source);
  }
  std::string error(const ModelSource& source = {}) const {
    const auto experiment = load(source);
    return experiment.ok() ? "(no error)" : experiment.error().message;
  }
};

std::vector<LayerSpec> layers_on(std::uint32_t vocabulary, const LayerSpec& middle,
                                 std::uint32_t outputs) {
  return {{.kind = LayerKind::kEmbedding, .units = 2, .vocabulary = vocabulary},
          middle,
          {.kind = LayerKind::kDense, .units = outputs}};
}

}  // namespace

TEST_CASE("the character model is planned for the text's sequences") {
  const Play play;
  const auto experiment = play.load();
  if (!experiment.ok()) FAIL(experiment.error().message);
  CHECK(experiment->population() == 2);
  CHECK(experiment->plan.model.input_shape == std::vector<std::uint32_t>{4});
  // McMahan et al. 2017, section 3.
  CHECK(experiment->layout.size() == 866'578);
}

TEST_CASE("a run's optimiser, first rate and encoding are in its plan") {
  RunConfig config;
  config.partition.clients = 3;
  config.selection.fraction_fit = 1;
  config.client.learning_rate = 0.5;
  config.client.schedule = {.kind = ScheduleKind::kConstant, .warmup = 5};
  config.client.optimizer = {.kind = OptimizerKind::kAdam, .beta1 = 0.5f};
  config.client.compressors = {"bf16"};
  config.model.initialisation = Initialisation::kGlorotUniform;
  const auto experiment = load_experiment(config, "");
  if (!experiment.ok()) FAIL(experiment.error().message);
  CHECK(experiment->plan.learning_rate == 0.1f);  // round 1 of 5
  CHECK(experiment->plan.optimizer == config.client.optimizer);
  CHECK(experiment->plan.compressor == "bf16");
  CHECK(experiment->plan.model.initialisation == Initialisation::kGlorotUniform);
}

TEST_CASE("a network that cannot read the data is refused before any device is asked") {
  Play play;
  play.config.model.preset = "2nn";
  CHECK_THAT(play.error(), Catch::StartsWith("[model] takes numbers, the data are tokens of 258"));
  play.config.model.preset.clear();
  const LayerSpec lstm{.kind = LayerKind::kLstm, .units = 3};
  play.config.model.layers = layers_on(100, lstm, 258);
  CHECK_THAT(play.error(), Catch::StartsWith("[model] takes tokens of 100 symbols, the data are "
                                             "tokens of 258 symbols"));
  play.config.model.layers =
      layers_on(258, {.kind = LayerKind::kLstm, .units = 3, .last_only = true}, 258);
  CHECK_THAT(play.error(), Catch::StartsWith("[model] makes 1 predictions an example, the data "
                                             "have 4 labels an example"));
  play.config.model.layers = layers_on(258, lstm, 258);
  CHECK(play.error() == "(no error)");

  RunConfig numbers;
  numbers.model.preset.clear();
  numbers.model.layers = layers_on(258, lstm, 10);
  const auto refused = load_experiment(numbers, "");
  REQUIRE_FALSE(refused.ok());
  CHECK_THAT(refused.error().message, Catch::Contains("the data are numbers"));
}

TEST_CASE("a TorchScript file enters the plan by its SHA-256, from the data directory first") {
  Play play;
  const std::string content(100'000, 'x');
  play.directory.write("nets/a.pt", content);
  play.config.model.preset.clear();
  play.config.model.torchscript = "nets/a.pt";
  ModelSpec seen;
  const ModelSource source{.make_engine =
                               [&](const ModelSpec& spec, std::string_view) {
                                 seen = spec;
                                 return Result<std::unique_ptr<models::Engine>>(failed("seen"));
                               },
                           .torchscript_parameters = {}};
  CHECK(play.error(source) == "nets/a.pt: seen");
  CHECK(seen.torchscript == sha256(std::as_bytes(std::span(content))).hex());
  CHECK(seen.layers.empty());
  CHECK(seen.input_shape == std::vector<std::uint32_t>{4});

  play.config.model.torchscript = "nets/b.pt";
  CHECK(play.error(source) ==
        "model.torchscript: nets/b.pt cannot be opened; it must name the TorchScript file that "
        "every device has too");
  play.config.model.torchscript = "nets";
  CHECK_THAT(play.error(source), Catch::Contains("nets is a directory"));
}

TEST_CASE("text is not divided by label") {
  Play play;
  play.config.partition = {.scheme = "shards", .clients = 2};
  CHECK_THAT(play.error(), Catch::Contains("sequences have one for each step"));
}

}  // namespace covey::simulation
