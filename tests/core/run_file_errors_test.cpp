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

TEST_CASE("text in [strategy] that is no known key is refused") {
  CHECK(error_of("[strategy]\nnaem = \"fedavg\"\n") ==
        "run.toml:2: strategy.naem: expected a number (a strategy's parameter), found a string "
        "\"fedavg\"; did you mean strategy.name?");
}

TEST_CASE("a choice that does not exist is refused with those that do") {
  CHECK(error_of("[partition]\nscheme = \"random\"\n") ==
        "run.toml:2: partition.scheme: \"random\" is not one of iid, shards, dirichlet, power-law, "
        "natural");
  CHECK(error_of("[model]\npreset = \"\"\n") ==
        "run.toml:2: model.preset: \"\" is not one of logistic, 2nn, cnn");
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
      "run.toml:4: model.layers[1]: type must be one of dense, conv2d, max-pool2d, flatten, relu");
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

}  // namespace covey
