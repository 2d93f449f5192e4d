// What a user sees when something is wrong: the exit code and the sentence.

#include <filesystem>

#include <catch2/catch.hpp>

#include "process.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

struct Outcome {
  int code = -1;
  std::string error;
};

Outcome run(const TemporaryFolder& folder, const std::vector<std::string>& arguments) {
  std::filesystem::remove(folder / "run.err");
  Process process(arguments, folder / "run");
  const auto code = process.wait(60s);
  return {code.value_or(-1), process.standard_error()};
}

Outcome simulate(const TemporaryFolder& folder, const std::string& run_file,
                 const std::vector<std::string>& more = {}) {
  write_file(folder / "run.toml", run_file);
  std::vector<std::string> arguments = {"simulate", folder / "run.toml", "--quiet", "--out", folder / "out"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run(folder, arguments);
}

bool names(const Outcome& outcome, const std::string& what) {
  return outcome.error.find(what) != std::string::npos;
}

}  // namespace

TEST_CASE("a run file's mistakes are named with file, line and key") {
  const TemporaryFolder folder("run-file");
  const auto unknown = simulate(folder, "[client]\nlearning-rat = 0.1\n");
  CHECK(unknown.code == 2);
  CHECK(names(unknown, "run.toml:2"));
  CHECK(names(unknown, "learning-rat"));
  const auto type = simulate(folder, "[run]\n\nseed = \"one\"\n");
  CHECK(type.code == 2);
  CHECK(names(type, "run.toml:3"));
  CHECK(names(type, "run.seed"));
  const auto syntax = simulate(folder, "[run\nseed = 1\n");
  CHECK(syntax.code == 2);
  CHECK(names(syntax, "run.toml:1"));
  const auto absent = run(folder, {"simulate", folder / "no.toml"});
  CHECK(absent.code == 2);
  CHECK(names(absent, "no.toml"));
  const auto strategy = simulate(folder, "[strategy]\nname = \"fedavgg\"\n");
  CHECK(strategy.code == 2);
  CHECK(names(strategy, "fedavgg"));
  CHECK(names(strategy, "fedprox"));
  const auto parameter = simulate(folder, "[strategy]\nname = \"fedprox\"\nproximal-mue = 1.0\n");
  CHECK(parameter.code == 2);
  CHECK(names(parameter, "proximal-mue"));
}

TEST_CASE("data that is missing or damaged is named with its place") {
  const TemporaryFolder folder("data");
  const std::string mnist = "[data]\nsource = \"mnist\"\n[model]\npreset = \"2nn\"\n";
  const auto missing = simulate(folder, mnist, {"--data", folder / "nowhere"});
  CHECK(missing.code == 2);
  CHECK(names(missing, "train-images-idx3-ubyte"));
  CHECK(names(missing, "--data"));

  std::filesystem::create_directories(folder / "mnist");
  for (const char* name : {"train-images-idx3-ubyte", "t10k-images-idx3-ubyte"}) {
    write_file(folder / ("mnist/" + std::string(name)), std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x1c", 12));
  }
  for (const char* name : {"train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"}) {
    write_file(folder / ("mnist/" + std::string(name)), std::string("\0\0\x08\x01\0\0\0\x02\1\2", 10));
  }
  const auto truncated = simulate(folder, mnist, {"--data", folder.path()});
  CHECK(truncated.code == 2);
  CHECK(names(truncated, "train-images-idx3-ubyte"));

  write_file(folder / "table.csv", "a,b,label\n1,2,0\n3,nan,1\n");
  const auto nan = simulate(folder, "[data]\nsource = \"csv\"\npath = \"" + folder / "table.csv\"\n");
  CHECK(nan.code == 2);
  CHECK(names(nan, "table.csv:3"));
}

TEST_CASE("wrong usage of the program exits with 2 and says how") {
  const TemporaryFolder folder("usage");
  CHECK(run(folder, {}).code == 2);
  CHECK(run(folder, {"simulat"}).code == 2);
  CHECK(run(folder, {"simulate"}).code == 2);
  const auto set = simulate(folder, "", {"--set", "client.learning-rate=fast"});
  CHECK(set.code == 2);
  CHECK(names(set, "client.learning-rate"));
  std::filesystem::create_directories(folder / "taken");
  write_file(folder / "taken/something", "x");
  const auto taken = simulate(folder, "", {"--out", folder / "taken"});
  CHECK(taken.code == 2);
}
