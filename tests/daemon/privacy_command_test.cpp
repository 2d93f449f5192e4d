// `covey privacy`: its answers, and what it refuses.

#include <catch2/catch.hpp>

#include "process.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

struct Outcome {
  int code = -1;
  std::string error;
  nlohmann::json json;
};

Outcome privacy(std::vector<std::string> arguments) {
  const TemporaryFolder folder("privacy");
  arguments.insert(arguments.begin(), "privacy");
  arguments.emplace_back("--json");
  Process process(arguments, folder / "log");
  const auto code = process.wait(50s);
  return {code.value_or(-1), process.standard_error(), process.json()};
}

bool names(const Outcome& outcome, const std::string& what) {
  INFO(outcome.error);
  CHECK(outcome.error.find(what) != std::string::npos);
  return outcome.error.find(what) != std::string::npos;
}

/// 100 devices, 10 of them a round, 100 rounds of the data that needs no files.
Outcome of_run_file(const std::string& keys, std::vector<std::string> arguments = {}) {
  const TemporaryFolder folder("privacy-run");
  write_file(folder / "run.toml",
             "[run]\nnum-rounds = 100\n[data]\nsource = \"synthetic\"\nmax-examples = 60\n"
             "[partition]\nscheme = \"natural\"\nclients = 100\n" +
                 keys);
  arguments.insert(arguments.begin(), folder / "run.toml");
  return privacy(arguments);
}

}  // namespace

TEST_CASE("of noise, epsilon and rounds any two give the third") {
  const std::vector<std::string> poisson{"--sampling-rate", "0.01", "--accountant", "pld"};
  const auto ask = [&](std::vector<std::string> given) {
    given.insert(given.end(), poisson.begin(), poisson.end());
    const Outcome outcome = privacy(given);
    INFO(outcome.error);
    REQUIRE(outcome.code == 0);
    return outcome.json;
  };
  // q = .01, z = 4, T = 10000, delta = 1e-5 has epsilon .9469 by privacy losses.
  const auto epsilon = ask({"--noise-multiplier", "4", "--rounds", "10000"});
  CHECK(epsilon["epsilon"]["pld"].get<double>() == Approx(0.9469).margin(2e-4).epsilon(0));
  CHECK(epsilon["unit"] == "one device more or less, in all rounds");
  const auto noise = ask({"--epsilon", "0.947", "--rounds", "10000"});
  CHECK(noise["noise_multiplier"]["pld"].get<double>() == Approx(4).epsilon(1e-3));
  const auto rounds = ask({"--epsilon", "0.947", "--noise-multiplier", "4"});
  CHECK(rounds["rounds"]["pld"].get<double>() == Approx(10000).epsilon(1e-3));
}

TEST_CASE("accountants that cannot answer say so beside those that can") {
  const auto outcome =
      privacy({"--noise-multiplier", "4", "--rounds", "10", "--sampling-rate", "0.1"});
  REQUIRE(outcome.code == 0);
  CHECK(outcome.json["epsilon"].size() == 2);
  CHECK(outcome.json["refused"].size() == 1);
  CHECK(outcome.json["refused"].contains("zcdp"));
  const auto alone = privacy({"--noise-multiplier", "4", "--rounds", "10", "--sampling-rate", "0.1",
                              "--accountant", "zcdp"});
  CHECK(alone.code == 2);
  names(alone, "use the accountant pld or rdp");
}

TEST_CASE("a question with too little or too much is refused") {
  CHECK(privacy({"--epsilon", "4"}).code == 2);
  CHECK(privacy({"--epsilon", "4", "--rounds", "3", "--noise-multiplier", "1"}).code == 2);
  names(privacy({"--epsilon", "4", "--rounds", "3", "--bits", "16"}), "has none");
  names(privacy({"--epsilon", "4", "--rounds", "3", "--mechanism", "skellam"}),
        "needs its lattice");
  names(privacy({"--epsilon", "4", "--rounds", "3", "--sampling", "fixed"}),
        "--sampling-rate goes");
  names(of_run_file("", {"--epsilon", "3"}), "--epsilon does not go with a run file");
}

TEST_CASE("a run file's keys are counted as the run will") {
  const auto none = of_run_file("");
  CHECK(none.code == 0);
  CHECK(none.json["mechanism"] == "none");
  const auto outcome = of_run_file(
      "[privacy]\nmechanism = \"central-gaussian\"\nepsilon = 8.0\n[selection]\n"
      "policy = \"poisson\"\nfraction-fit = 0.1\n");
  INFO(outcome.error);
  REQUIRE(outcome.code == 0);
  CHECK(outcome.json["sampling"] == "poisson");
  CHECK(outcome.json["sampling_rate"] == 0.1);
  CHECK(outcome.json["epsilon"].get<double>() == Approx(8).epsilon(1e-3));
  CHECK(outcome.json["epsilon"].get<double>() <= 8);
  CHECK(outcome.json["rounds"] == 100);
  CHECK(outcome.json["denominator"] == 10);
}

TEST_CASE("a run file that cannot give what it asks is refused") {
  const auto outcome = of_run_file("[privacy]\nmechanism = \"skellam\"\nepsilon = 8.0\n");
  CHECK(outcome.code == 2);
  names(outcome, "secure-aggregation.mode");
}
