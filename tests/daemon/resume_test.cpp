// `covey simulate` is killed or stopped, and goes on.

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <sstream>

#include "fleet.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

constexpr const char* kRunFile = R"(
[run]
name = "resume"
seed = 8
num-rounds = 80
[data]
source = "synthetic"
[partition]
scheme = "natural"
clients = 60
[client]
learning-rate = 0.02
local-epochs = 20
[selection]
fraction-fit = 0.5
over-selection = 1.2
)";

std::vector<std::string> simulate(std::vector<std::string> more) {
  std::vector<std::string> arguments = {"simulate", "--quiet", "--json", "--threads", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::size_t rounds_in(const std::string& folder) {
  return count(read_file(folder + "/metrics.jsonl"), "\n");
}

/// The lines of metrics.jsonl without what the wall clock says.
std::vector<nlohmann::json> rounds_of(const std::string& folder) {
  std::vector<nlohmann::json> rounds;
  std::istringstream lines(read_file(folder + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    rounds.push_back(nlohmann::json::parse(line));
    CHECK(rounds.back().erase("wall_s") == 1);
  }
  return rounds;
}

}  // namespace

TEST_CASE("a simulation that was killed twice and stopped once ends with the same bits") {
  TemporaryFolder folder("resume-killed");
  write_file(folder / "run.toml", kRunFile);
  Process whole(simulate({folder / "run.toml", "--out", folder / "whole"}), folder / "whole-log");
  REQUIRE(whole.wait(120s) == 0);

  const std::string out = folder / "killed";
  const auto start = [&](bool first) {
    return first ? Process(simulate({folder / "run.toml", "--out", out}), folder / "log")
                 : Process(simulate({"--resume", out}), folder / "log");
  };
  std::size_t killed_at = 0;
  for (const int signal : {SIGKILL, SIGKILL, SIGINT}) {
    Process process = start(killed_at == 0);
    REQUIRE(eventually([&] { return rounds_in(out) >= killed_at + 8 || !process.running(); }, 60s));
    REQUIRE(process.running());
    process.signal(signal);
    CHECK(process.wait(60s) == (signal == SIGINT ? 1 : 128 + SIGKILL));
    killed_at = rounds_in(out);
    if (signal == SIGINT) {
      CHECK(process.standard_error().find("covey simulate --resume " + out) != std::string::npos);
    }
  }
  Process last = start(false);
  const auto code = last.wait(120s);
  INFO(last.standard_error());
  REQUIRE(code == 0);
  CHECK(last.json()["model_sha256"] == whole.json()["model_sha256"]);
  CHECK(last.json()["train_steps"] == whole.json()["train_steps"]);
  CHECK(rounds_of(out) == rounds_of(folder / "whole"));
  CHECK(read_file(out + "/model.fp32") == read_file((folder / "whole") + "/model.fp32"));
  CHECK_FALSE(std::filesystem::exists(out + "/journal.bin"));

  Process again = start(false);
  CHECK(again.wait(20s) == 2);
  CHECK(again.standard_error().find("finished") != std::string::npos);
}

TEST_CASE("what --resume cannot go on with is refused, and nothing is lost") {
  TemporaryFolder folder("resume-refused");
  const std::string out = folder / "run";
  Process absent(simulate({"--resume", out}), folder / "absent");
  CHECK(absent.wait(20s) == 2);
  CHECK(absent.standard_error().find("run.toml") != std::string::npos);
  Process nothing(simulate({}), folder / "nothing");
  CHECK(nothing.wait(20s) == 2);
  Process both(simulate({folder / "run.toml", "--resume", out}), folder / "both");
  CHECK(both.wait(20s) == 2);

  write_file(folder / "run.toml", kRunFile);
  {
    Process process(simulate({folder / "run.toml", "--out", out}), folder / "log");
    REQUIRE(eventually([&] { return rounds_in(out) >= 10; }, 60s));
    process.kill();
  }
  const std::string metrics = read_file(out + "/metrics.jsonl");
  const std::string journal = read_file(out + "/journal.bin");
  write_file(out + "/journal.bin", journal.substr(0, 60));
  Process damaged(simulate({"--resume", out}), folder / "damaged");
  CHECK(damaged.wait(20s) == 2);
  CHECK(damaged.standard_error().find("journal.bin is damaged") != std::string::npos);
  CHECK(read_file(out + "/metrics.jsonl") == metrics);
  write_file(out + "/journal.bin", journal);
  Process mended(simulate({"--resume", out}), folder / "mended");
  CHECK(mended.wait(120s) == 0);
}
