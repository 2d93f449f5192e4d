// `covey export`: from a run's folder to an integer model, and what is refused on the way.

#include <catch2/catch.hpp>
#include <covey/models/quantised_model.hpp>
#include <filesystem>

#include "process.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

struct Outcome {
  int code = -1;
  std::string error;
  nlohmann::json json;
};

Outcome run(const TemporaryFolder& folder, const std::vector<std::string>& arguments) {
  Process process(arguments, folder / "log");
  const auto code = process.wait(50s);
  return {code.value_or(-1), process.standard_error(), process.json()};
}

bool names(const Outcome& outcome, const std::string& what) {
  return outcome.error.find(what) != std::string::npos;
}

constexpr const char* kTwoLayers =
    "layers = [{type = \"dense\", units = 24}, {type = \"relu\"}, {type = \"dense\", units = 10}]";

/// Trains on the synthetic data, which needs no files, and leaves the run in folder / "out".
void train(const TemporaryFolder& folder, const std::string& model, const std::string& precision) {
  write_file(folder / "run.toml",
             "[run]\nname = \"export\"\nseed = 3\nnum-rounds = 8\n[model]\n" + model +
                 "\n[data]\nsource = \"synthetic\"\nalpha = 0.0\nbeta = "
                 "0.0\niid = true\n[partition]\nscheme = \"natural\"\n"
                 "clients = 6\n[selection]\nfraction-fit = 1.0\n[client]\n"
                 "learning-rate = 0.1\nlocal-epochs = 5\nbatch-size = 10\nprecision = \"" +
                 precision + "\"\n");
  const auto outcome = run(folder, {"simulate", folder / "run.toml", "--quiet", "--threads", "1",
                                    "--out", folder / "out"});
  INFO(outcome.error);
  REQUIRE(outcome.code == 0);
}

}  // namespace

TEST_CASE("a run in fp32 is calibrated and exported as integers") {
  const TemporaryFolder folder("export-fp32");
  train(folder, kTwoLayers, "fp32");
  const auto outcome = run(folder, {"export", folder / "out", "--quantize", "int8", "--out",
                                    folder / "model.covey8", "--calibrate", "200", "--json"});
  INFO(outcome.error);
  REQUIRE(outcome.code == 0);
  CHECK(outcome.json["calibration_examples"] == 200);
  // 60 * 24 + 24 * 10 weights of one byte instead of four; scales, biases and the description
  // beside
  CHECK(outcome.json["fp32_bytes"] == 4 * (60 * 24 + 24 + 24 * 10 + 10));
  CHECK(outcome.json["int8_bytes"] < 2900);
  CHECK(outcome.json["int8_bytes"] == std::filesystem::file_size(folder / "model.covey8"));
  CHECK(outcome.json["ranges"].size() == 3);
  CHECK(outcome.json["ranges"]["dense1"] > 0.0);
  const double fp32 = outcome.json["fp32"]["accuracy"];
  const double int8 = outcome.json["int8"]["accuracy"];
  CHECK(fp32 > 0.5);  // of ten classes
  CHECK(std::abs(fp32 - int8) < 0.02);
  const auto model = covey::models::QuantisedModel::load(folder / "model.covey8");
  REQUIRE(model.ok());
  CHECK(model->num_parameters() == 60 * 24 + 24 + 24 * 10 + 10);
}

TEST_CASE("a run in qat-int8 brings its ranges, and its accuracy is the exported model's") {
  const TemporaryFolder folder("export-qat");
  train(folder, kTwoLayers, "qat-int8");
  const auto result = nlohmann::json::parse(read_file(folder / "out/result.json"));
  const auto outcome = run(folder, {"export", folder / "out/model.fp32", "--json"});
  INFO(outcome.error);
  REQUIRE(outcome.code == 0);
  CHECK(outcome.json["out"] == folder / "out/model.covey8");
  CHECK(outcome.json["calibration_examples"] == 0);
  CHECK(outcome.json["int8"]["accuracy"] == result["accuracy"]);
  CHECK(outcome.json["int8"]["loss"].get<double>() == Approx(result["loss"].get<double>()));
  const auto again =
      run(folder, {"export", folder / "out", "--calibrate", "100", "--coverage", "0.99", "--json"});
  REQUIRE(again.code == 0);
  CHECK(again.json["calibration_examples"] == 100);
  CHECK(again.json["ranges"] != outcome.json["ranges"]);
  const auto contradiction = run(folder, {"export", folder / "out", "--coverage", "0.99"});
  CHECK(contradiction.code == 2);
  CHECK(names(contradiction, "--calibrate"));
}

TEST_CASE("export refuses what is missing, damaged or cannot be quantised, by name") {
  const TemporaryFolder folder("export-bad");
  const auto absent = run(folder, {"export", folder / "none"});
  CHECK(absent.code == 2);
  CHECK(names(absent, folder / "none"));
  std::filesystem::create_directory(folder / "empty");
  const auto empty = run(folder, {"export", folder / "empty", "--json"});
  CHECK(empty.code == 2);
  CHECK(names(empty, "empty/run.toml"));
  CHECK(empty.json.contains("error"));

  train(folder, kTwoLayers, "fp32");
  const std::string path = folder / "out/model.fp32";
  const std::string content = read_file(path);
  std::string damaged = content;
  damaged[1000] = static_cast<char>(damaged[1000] ^ 1);
  write_file(path, damaged);
  const auto digest = run(folder, {"export", folder / "out"});
  CHECK(digest.code == 2);
  CHECK(names(digest, "model.fp32 is damaged"));
  write_file(path, content.substr(0, content.size() - 4));
  const auto cut = run(folder, {"export", folder / "out"});
  CHECK(cut.code == 2);
  CHECK(names(cut, "parameters of the network"));
  CHECK_FALSE(std::filesystem::exists(folder / "out/model.covey8"));
  write_file(path, content);
  const auto nowhere =
      run(folder, {"export", folder / "out", "--out", folder / "no/such/m.covey8"});
  CHECK(nowhere.code == 1);
  CHECK(names(nowhere, "no/such/m.covey8"));
  CHECK(run(folder, {"export", folder / "out", "--quantize", "int3"}).code == 2);
  CHECK(run(folder, {"export", folder / "out", "--calibrate", "0"}).code == 2);
}

TEST_CASE("export names a layer that integers do not know") {
  const TemporaryFolder folder("export-layer");
  train(folder,
        "layers = [{type = \"dense\", units = 8}, {type = \"tanh\"}, {type = \"dense\", units = "
        "10}]",
        "fp32");
  const auto outcome = run(folder, {"export", folder / "out"});
  CHECK(outcome.code == 2);
  CHECK(names(outcome, "layer 2 (tanh)"));
}

TEST_CASE("export says when the data to calibrate with is not there") {
  const TemporaryFolder folder("export-data");
  train(folder, kTwoLayers, "fp32");
  std::string text = read_file(folder / "out/run.toml");
  const auto replace = [&](const std::string& from, const std::string& to) {
    REQUIRE(text.find(from) != std::string::npos);
    text.replace(text.find(from), from.size(), to);
  };
  replace("source = \"synthetic\"", "source = \"mnist\"");
  replace("scheme = \"natural\"", "scheme = \"iid\"");
  replace("on-demand = \"auto\"\n", "");
  write_file(folder / "out/run.toml", text);
  std::filesystem::create_directory(folder / "nothing");
  const auto outcome = run(folder, {"export", folder / "out", "--data", folder / "nothing"});
  CHECK(outcome.code == 2);
  INFO(outcome.error);
  CHECK(names(outcome, "calibration needs the run's training examples"));
}
