#include <catch2/catch.hpp>
#include <covey/run_config.hpp>
#include <string>
#include <vector>

#include "data_directory.hpp"

namespace covey {
namespace {

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const auto config = parse_run_text(text, "run.toml", overrides);
  if (config.ok()) return "(no error)";
  CHECK(config.error().code == ErrorCode::kInvalidArgument);
  return config.error().message;
}

}  // namespace

TEST_CASE("a value of the wrong type is refused naming line, key and what was found") {
  CHECK(error_of("[run]\nseed = 1\n[client]\nlearning-rate = \"fast\"\n") ==
        "run.toml:4: client.learning-rate: expected a number, found a string \"fast\"");
  CHECK(error_of("[run]\nnum-rounds = 2.5\n") ==
        "run.toml:2: run.num-rounds: expected a whole number, found the number 2.5");
  CHECK(error_of("[fleet]\ncodec = 1\n") ==
        "run.toml:2: fleet.codec: expected true or false, found the number 1");
  CHECK(error_of("[run]\nname = true\n") == "run.toml:2: run.name: expected a string, found true");
  CHECK(error_of("[data]\npath = [1]\n") ==
        "run.toml:2: data.path: expected a string, found a list");
  CHECK(error_of("[data]\npath = 2024-01-01\n") ==
        "run.toml:2: data.path: expected a string, found a date or time");
  CHECK(error_of("client = 3\n") == "run.toml:1: client: expected a table, found the number 3");
}

TEST_CASE("numbers out of range are refused with the range") {
  CHECK(
      error_of("[selection]\nfraction-fit = 1.5\n") ==
      "run.toml:2: selection.fraction-fit: 1.5 is out of range, it must be at least 0 and at most "
      "1");
  CHECK(error_of("[client]\nlearning-rate = 0\n") ==
        "run.toml:2: client.learning-rate: 0 is out of range, it must be more than 0 and at most "
        "1000000");
  CHECK(error_of("[data]\ntest-fraction = 1.0\n") ==
        "run.toml:2: data.test-fraction: 1 is out of range, it must be at least 0 and less than 1");
  CHECK(error_of("[run]\nnum-rounds = 0\n") ==
        "run.toml:2: run.num-rounds: 0 is out of range, it must be at least 1 and at most "
        "4294967295");
  CHECK(error_of("[run]\nseed = -1\n") ==
        "run.toml:2: run.seed: -1 is out of range, it must be at least 0");
  CHECK_THAT(error_of("[client]\nbatch-size = 4294967296\n"),
             Catch::Contains("at most 4294967295"));
}

TEST_CASE("numbers that are not finite are refused") {
  CHECK(error_of("[data]\nalpha = nan\n") == "run.toml:2: data.alpha: nan is not a finite number");
  CHECK(error_of("[fleet]\ngflops = [1, inf]\n") ==
        "run.toml:2: fleet.gflops: inf is not a finite number");
  CHECK(error_of("[strategy]\nq = inf\n") == "run.toml:2: strategy.q: inf is not a finite number");
}

TEST_CASE("unknown keys are refused with the nearest known one") {
  CHECK(error_of("[client]\nlearning_rate = 0.1\n") ==
        "run.toml:2: client.learning_rate: unknown key; did you mean client.learning-rate?");
  CHECK(error_of("[run]\nlearning-rate = 0.1\n") ==
        "run.toml:2: run.learning-rate: unknown key; did you mean client.learning-rate?");
  CHECK(error_of("[client]\nxyzzyxyzzy = 1\n") == "run.toml:2: client.xyzzyxyzzy: unknown key");
  CHECK(error_of("[clients]\nbatch-size = 1\n") ==
        "run.toml:1: clients: unknown table; did you mean [client]?");
  CHECK(error_of("seed = 1\n") ==
        "run.toml:1: seed: a key outside of a table; did you mean run.seed?");
}

TEST_CASE("text in the strategy table that is no known key is refused") {
  CHECK(error_of("[strategy]\nnaem = \"fedavg\"\n") ==
        "run.toml:2: strategy.naem: expected a number (a strategy's parameter), found a string "
        "\"fedavg\"; did you mean strategy.name?");
}

TEST_CASE("a choice that does not exist is refused with those that do") {
  CHECK(error_of("[partition]\nscheme = \"random\"\n") ==
        "run.toml:2: partition.scheme: \"random\" is not one of iid, shards, dirichlet, power-law, "
        "natural");
  CHECK(error_of("[model]\npreset = \"\"\n") ==
        "run.toml:2: model.preset: \"\" is not one of logistic, 2nn, cnn, char-lstm, dscnn, "
        "autoencoder");
  CHECK(error_of("[client]\noptimizer = \"adagrad\"\n") ==
        "run.toml:2: client.optimizer: \"adagrad\" is not one of sgd, momentum, nesterov, adam, "
        "adamw");
  CHECK(error_of("[client]\nlr-schedule = 3\n") ==
        "run.toml:2: client.lr-schedule: expected a string, found the number 3");
  CHECK(error_of("[client]\nprecision = \"fp16\"\n") ==
        "run.toml:2: client.precision: \"fp16\" is not one of fp32, bf16, qat-int8, int8");
}

TEST_CASE("text that is not TOML is refused naming line and column") {
  CHECK_THAT(error_of("[run]\nseed = = 1\n"), Catch::StartsWith("run.toml:2:8: "));
  CHECK_THAT(error_of("[run\n"), Catch::StartsWith("run.toml:1:"));
  CHECK_THAT(error_of("[run]\nseed = 1\nseed = 2\n"), Catch::StartsWith("run.toml:3:"));
  CHECK_THAT(error_of("[run]\nname = \"\xff\"\n"), Catch::StartsWith("run.toml:2:"));
  CHECK_THAT(error_of("x = " + std::string(100000, '[')), Catch::StartsWith("run.toml:1:"));
}

TEST_CASE("traits are numbers or pairs in order") {
  CHECK(error_of("[fleet]\nlatency-ms = [20, 10]\n") ==
        "run.toml:2: fleet.latency-ms: [20, 10]: the first number must not be larger");
  CHECK(error_of("[fleet]\nlatency-ms = [1, 2, 3]\n") ==
        "run.toml:2: fleet.latency-ms: expected a number or [min, max], found 3 values");
  CHECK(error_of("[fleet]\nlatency-ms = [1, \"x\"]\n") ==
        "run.toml:2: fleet.latency-ms: expected a number, found a string \"x\"");
  CHECK_THAT(error_of("[fleet]\ngflops = [0, 1]\n"), Catch::Contains("more than 0"));
  CHECK_THAT(error_of("[fleet]\nup-mbit-s = -1\n"), Catch::Contains("at least 0"));
}

TEST_CASE("layers that do not make sense are refused by number and line") {
  const auto layers = [](const std::string& text) {
    return error_of("[model]\nlayers = [\n  {type=\"relu\"},\n  " + text + "\n]\n");
  };
  CHECK(
      layers("{type=\"dens\", units=3}") ==
      "run.toml:4: model.layers[1]: type must be one of dense, conv2d, depthwise-conv2d, "
      "max-pool2d, "
      "average-pool2d, global-average-pool, flatten, embedding, lstm, gru, batch-norm, group-norm, "
      "layer-norm, dropout, relu, gelu, tanh, sigmoid, add");
  CHECK(layers("{type=\"gru\", units=3, peephole=true}") ==
        "run.toml:4: model.layers[1]: a gru layer has no \"peephole\"");
  CHECK(layers("{type=\"conv2d\", units=3, kernel=3, padding=\"full\"}") ==
        "run.toml:4: model.layers[1].padding: expected \"same\" or \"valid\", found a string "
        "\"full\"");
  CHECK(layers("{type=\"dropout\", rate=1.0}") ==
        "run.toml:4: model.layers[1].rate: expected a number that is at least 0 and less than 1, "
        "found the number 1");
  CHECK_THAT(layers("{type=\"dropout\", rate=nan}"), Catch::Contains("less than 1"));
  CHECK_THAT(layers("{type=\"dropout\", rate=0.99999999999}"), Catch::Contains("less than 1"));
  CHECK(layers("{type=\"lstm\", units=3, peephole=1}") ==
        "run.toml:4: model.layers[1].peephole: expected true or false, found the number 1");
  CHECK(layers("{type=\"add\"}") == "run.toml:4: model.layers[1]: back is missing");
  CHECK(layers("{type=\"add\", back=0}") ==
        "run.toml:4: model.layers[1].back: expected a whole number from 1 to 256, found the number "
        "0");
  CHECK(layers("{type=\"conv2d\", units=3, filters=3, kernel=3}") ==
        "run.toml:4: model.layers[1]: units and filters are the same number");
  CHECK(layers("{type=\"dense\"}") == "run.toml:4: model.layers[1]: units is missing");
  CHECK(layers("{type=\"dense\", units=0}") ==
        "run.toml:4: model.layers[1].units: expected a whole number from 1 to 1048576, found the "
        "number 0");
  CHECK(layers("{type=\"conv2d\", filters=3}") == "run.toml:4: model.layers[1]: kernel is missing");
  CHECK(layers("{type=\"relu\", units=3}") ==
        "run.toml:4: model.layers[1]: a relu layer has no \"units\"");
  CHECK(layers("7") ==
        "run.toml:4: model.layers[1]: expected {type = \"dense\", units = 10}, found the number 7");
  CHECK(error_of("[model]\nlayers = []\n") == "run.toml:2: model.layers: needs at least one layer");
}

TEST_CASE("a preset and layers exclude each other in one file") {
  CHECK(error_of("[model]\npreset = \"2nn\"\nlayers = [{type=\"dense\", units=10}]\n") ==
        "run.toml:3: model.layers: a model is given by preset or by layers, not by both");
}

TEST_CASE("what a preset or a TorchScript file brings itself is not given beside it") {
  const std::string preset = "goes with model.layers or model.torchscript; a preset brings its own";
  CHECK(error_of("[model]\npreset = \"2nn\"\nloss = \"mse\"\n") ==
        "run.toml:3: model.loss: " + preset);
  CHECK(error_of("[model]\ntarget = \"input\"\n") == "run.toml:2: model.target: " + preset);
  CHECK(error_of("", {"model.loss=mse"}) == "--set model.loss=mse: model.loss: " + preset);
  CHECK(error_of("[model]\ntorchscript = \"a.pt\"\npreset = \"2nn\"\n") ==
        "run.toml:2: model.torchscript: a model is given by torchscript or by preset, not by both");
  for (const char* other : {"", "preset = \"2nn\"\n"}) {
    CHECK_THAT(error_of(std::string("[model]\ndevice = \"cuda\"\n") + other),
               Catch::Contains("model.device: goes with model.torchscript"));
  }
  CHECK(error_of("[model]\ntorchscript = \"a.pt\"\ninitialisation = \"fan-in\"\n") ==
        "run.toml:3: model.initialisation: goes with model.preset or model.layers; a TorchScript "
        "file brings its initial parameters");
}

TEST_CASE("updates are sent as the precision keeps its weights") {
  CHECK(error_of("[client]\nprecision = \"int8\"\ncompressor = \"fp32\"\n") ==
        "run.toml:3: client.compressor: \"fp32\" does not go with client.precision = \"int8\", "
        "whose devices hold no weights in it; use \"auto\" or \"int8\"");
  CHECK_THAT(error_of("[client]\nprecision = \"bf16\"\ncompressor = \"int8\"\n"),
             Catch::Contains("use \"auto\" or \"bf16\""));
  for (const char* compressor : {"auto", "fp32", "bf16", "int8", "eden-1"}) {
    CHECK(error_of("", {"client.precision=qat-int8",
                        "client.compressor=" + std::string(compressor)}) == "(no error)");
  }
}

TEST_CASE("only a model that rebuilds its input learns from a table without labels") {
  const std::string table = "[data]\nsource = \"csv\"\npath = \"a.csv\"\nlabel = \"\"\n";
  CHECK_THAT(error_of(table), Catch::StartsWith("run.toml:4: data.label: may be empty only"));
  CHECK(error_of(table, {"model.preset=autoencoder"}) == "(no error)");
  CHECK(error_of("[model]\ntarget = \"input\"\nlayers = [{type=\"dense\", units=2}]\n") ==
        "run.toml:2: model.target: \"input\" needs model.loss = \"mse\" or \"bce\"; cross-entropy "
        "is over classes");
}

TEST_CASE("numbers of the optimiser are refused where single precision rounds them out of range") {
  CHECK_THAT(error_of("[client]\nbeta2 = 0.99999999999\n"),
             Catch::StartsWith("run.toml:2: client.beta2: 1 is out of range"));
  CHECK_THAT(error_of("[client]\nepsilon = 1e-60\n"),
             Catch::StartsWith("run.toml:2: client.epsilon: 0 is out of range"));
  CHECK_THAT(error_of("[client]\nclip-norm = -1\n"), Catch::Contains("at least 0"));
}

TEST_CASE("keys that contradict each other are refused at the line of one of them") {
  CHECK(error_of("[selection]\nretry-min-s = 5\n") ==
        "run.toml:2: selection.retry-min-s: 5 is more than selection.retry-max-s (0)");
  CHECK(error_of("[server]\nchunk-bytes = 1048576\n") ==
        "run.toml:2: server.chunk-bytes: 1048576 leaves no room in server.max-frame-bytes "
        "(1048576), at most 1047552 do");
  CHECK(error_of("[partition]\nclients = 5\n[selection]\nmin-fit-clients = 6\n") ==
        "run.toml:4: selection.min-fit-clients: 6 cannot be selected from 5 clients "
        "(partition.clients)");
  CHECK(error_of("[run]\nstop-at-target = true\n") ==
        "run.toml:2: run.stop-at-target: needs run.target-accuracy");
  CHECK(error_of("[data]\nsource = \"csv\"\n") ==
        "run.toml:2: data.source: \"csv\" needs data.path");
  CHECK(error_of("[data]\nsource = \"mnist\"\n[partition]\nscheme = \"natural\"\n") ==
        "run.toml:4: partition.scheme: \"natural\" needs data with owners, mnist has none");
  CHECK(
      error_of("[partition]\nclients = 0\n") ==
      "run.toml:2: partition.clients: must be at least 1 for synthetic data in the iid partition");
  CHECK(error_of("[run]\nname = \"../x\"\n") ==
        "run.toml:2: run.name: \"../x\" names a folder: no '/' and no '.' in front");
}

TEST_CASE("errors of overrides name the override") {
  CHECK(error_of("", {"client.learning-rate=fast"}) ==
        "--set client.learning-rate=fast: client.learning-rate: expected a number, found a string "
        "\"fast\"");
  CHECK(error_of("", {"client.lerning-rate=1"}) ==
        "--set client.lerning-rate=1: client.lerning-rate: unknown key; did you mean "
        "client.learning-rate?");
  CHECK(error_of("", {"cliet.batch-size=1"}) ==
        "--set cliet.batch-size=1: cliet: unknown table; did you mean [client]?");
  CHECK_THAT(error_of("", {"learning-rate=1"}), Catch::Contains("expected table.key=value"));
  CHECK_THAT(error_of("", {"client.learning-rate"}), Catch::Contains("expected table.key=value"));
  CHECK_THAT(error_of("", {"run.seed="}), Catch::StartsWith("--set run.seed=: not a value"));
  CHECK_THAT(error_of("", {"run.seed=1\nrun.name=\"x\""}), Catch::Contains("not a value"));
  CHECK_THAT(error_of("", {"fleet.latency-ms=[1,"}), Catch::Contains("not a value"));
  CHECK_THAT(error_of("", {"run.=1"}), Catch::Contains("missing"));
  CHECK_THAT(error_of("", {"selection.retry-min-s=5"}),
             Catch::StartsWith("--set selection.retry-min-s=5: "));
}

TEST_CASE("a run file that is not there is said not to be found") {
  const auto config = load_run_file("/nowhere/run.toml", {});
  REQUIRE_FALSE(config.ok());
  CHECK(config.error().code == ErrorCode::kNotFound);
  CHECK_THAT(config.error().message, Catch::Contains("/nowhere/run.toml"));
}

TEST_CASE("a directory is no run file") {
  const test::ScratchDirectory directory;
  const auto config = load_run_file(directory.path(), {});
  REQUIRE_FALSE(config.ok());
  CHECK_THAT(config.error().message, Catch::Contains("is a directory"));
}

TEST_CASE("a run file on disk is read with its path in errors") {
  const test::ScratchDirectory directory;
  const std::string path = directory.write("a.toml", "[run]\nnum-rounds = 5\n");
  CHECK(load_run_file(path, {"run.seed=4"})->num_rounds == 5);
  const std::string bad = directory.write("b.toml", "[run]\n\nseed = \"x\"\n");
  CHECK_THAT(load_run_file(bad, {}).error().message, Catch::StartsWith(bad + ":3: run.seed: "));
}

TEST_CASE("a key that says nothing under the optimiser or the schedule is refused") {
  const auto refusal = [](const std::string& client) {
    const auto config = parse_run_text("[client]\n" + client, "run.toml", {});
    return config.ok() ? std::string() : config.error().message;
  };
  CHECK(refusal("momentum = 0.5\n") ==
        "run.toml:2: client.momentum: says nothing without client.optimizer = \"momentum\" or "
        "\"nesterov\"");
  CHECK(refusal("optimizer = \"momentum\"\nbeta1 = 0.5\n").find("run.toml:3: client.beta1") == 0);
  CHECK(refusal("lr-step = 5\n").find("client.lr-schedule = \"step\"") != std::string::npos);
  CHECK(refusal("lr-schedule = \"cosine\"\nlr-decay = 0.5\n").find("client.lr-decay") !=
        std::string::npos);
  CHECK(refusal("optimizer = \"nesterov\"\nmomentum = 0.5\n").empty());
  CHECK(refusal("lr-schedule = \"exponential\"\nlr-decay = 0.5\n").empty());
}

}  // namespace covey
