// `covey sweep`: a grid of settings with several seeds becomes run folders, a table and a plot;
// what is done is not done again; a run that fails or is stopped hurts no other.

#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <map>
#include <sstream>
#include <thread>

#include "process.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;

namespace {

namespace fs = std::filesystem;

constexpr const char* kBase = R"(
[run]
name = "swept"
num-rounds = 4
[data]
source = "synthetic"
size-spread = 0.5
[partition]
scheme = "natural"
clients = 8
[strategy]
name = "fedprox"
[selection]
fraction-fit = 0.5
)";

constexpr const char* kSweep = R"(
run = "base.toml"
seeds = [1, 2]
[[case]]
name = "slow"
set = ["client.learning-rate=0.01"]
[[case]]
name = "fast, sure"
set = ["client.learning-rate=0.1"]
[grid]
"strategy.proximal-mu" = [0, 1]
[plot]
panel = "strategy.proximal-mu"
)";

struct Outcome {
  int code = -1;
  std::string output, error;
  nlohmann::json json;
};

Outcome run(const TemporaryFolder& folder, std::vector<std::string> arguments) {
  Process process(arguments, folder / "log");
  const auto code = process.wait(50s);
  const Outcome outcome{code.value_or(-1), process.standard_output(), process.standard_error(),
                        process.json()};
  fs::remove(folder / "log.err");  // which is appended to
  return outcome;
}

Outcome sweep(const TemporaryFolder& folder, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"sweep", folder / "sweep.toml", "--out", folder / "out",
                                        "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run(folder, arguments);
}

/// Time of the last change of every run's result.json: a run that is done again gets another one.
std::map<std::string, fs::file_time_type> results_in(const std::string& folder) {
  std::map<std::string, fs::file_time_type> results;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().filename() == "result.json") {
      results[entry.path().string()] = entry.last_write_time();
    }
  }
  return results;
}

void write_files(const TemporaryFolder& folder, const std::string& sweep_file = kSweep) {
  write_file(folder / "base.toml", kBase);
  write_file(folder / "sweep.toml", sweep_file);
}

/// What a sweep file is refused with.
std::string refusal(const TemporaryFolder& folder, const std::string& sweep_file) {
  write_files(folder, sweep_file);
  const auto outcome = sweep(folder);
  CHECK(outcome.code == 2);
  CHECK_FALSE(fs::exists(folder / "out"));  // nothing was begun
  CHECK(outcome.json["error"].is_string());
  return outcome.error;
}

}  // namespace

TEST_CASE("a sweep does every case with every seed and writes one table and one plot") {
  const TemporaryFolder folder("sweep");
  write_files(folder);
  const auto outcome = sweep(folder);
  INFO(outcome.error);
  REQUIRE(outcome.code == 0);
  CHECK(outcome.json["runs"] == 8);
  CHECK(outcome.json["done"] == 8);
  CHECK(results_in(folder / "out").size() == 8);
  CHECK(fs::exists(folder / "out/fast_sure_proximal-mu=1/seed-2/metrics.jsonl"));
  CHECK_FALSE(fs::exists(folder / "out/fast_sure_proximal-mu=1/seed-2.log"));
  for (const std::string name : {"plot.svg", "plot.png"})
    CHECK(fs::file_size(folder / ("out/" + name)) > 1000);

  // The mean and the deviation of two seeds a and b are (a + b) / 2 and |a - b| / sqrt(2).
  const auto accuracy = [&](int seed) {
    const auto path =
        folder / ("out/slow_proximal-mu=0/seed-" + std::to_string(seed) + "/result.json");
    return 100 * nlohmann::json::parse(read_file(path))["accuracy"].get<double>();
  };
  const auto& first = outcome.json["cases"][0];
  CHECK(first["case"] == "slow, proximal-mu=0");
  CHECK(first["accuracy"]["mean"].get<double>() == Approx((accuracy(1) + accuracy(2)) / 2));
  CHECK(first["accuracy"]["std"].get<double>() ==
        Approx(std::abs(accuracy(1) - accuracy(2)) / std::sqrt(2)));
  CHECK(first["accuracy"]["count"] == 2);

  std::istringstream table(read_file(folder / "out/table.csv"));
  std::vector<std::string> lines;
  for (std::string line; std::getline(table, line);) lines.push_back(line);
  REQUIRE(lines.size() == 5);
  CHECK(lines[0].starts_with("case,seeds,accuracy_mean,accuracy_std,accuracy_count,"));
  CHECK(lines[1].starts_with("\"slow, proximal-mu=0\",2,"));
  CHECK(count(lines[0], ",") == count(lines[4], ",") - 2);  // two commas more in the quoted name
}

TEST_CASE("a run of a sweep is what simulate makes of the same settings") {
  const TemporaryFolder folder("sweep-same");
  write_files(folder);
  REQUIRE(sweep(folder).code == 0);
  const auto alone = run(folder, {"simulate", folder / "base.toml", "--set",
                                  "client.learning-rate=0.1", "--set", "strategy.proximal-mu=1",
                                  "--seed", "2", "--out", folder / "alone", "--quiet", "--json"});
  REQUIRE(alone.code == 0);
  const auto swept =
      nlohmann::json::parse(read_file(folder / "out/fast_sure_proximal-mu=1/seed-2/result.json"));
  CHECK(swept["model_sha256"] == alone.json["model_sha256"]);
}

TEST_CASE("a sweep does only what is not done, also when seeds and settings were added") {
  const TemporaryFolder folder("sweep-again");
  write_files(folder);
  REQUIRE(sweep(folder).code == 0);
  const auto before = results_in(folder / "out");
  REQUIRE(before.size() == 8);

  // Half a run: killed before it wrote its result.
  fs::remove(folder / "out/slow_proximal-mu=0/seed-1/result.json");
  std::string more = kSweep;
  more.replace(more.find("[1, 2]"), 6, "[1, 2, 3]");
  write_file(folder / "sweep.toml", more);
  const auto listed = sweep(folder, {"--dry-run"});
  CHECK(listed.code == 0);
  CHECK(listed.json["runs"] == 12);
  CHECK(listed.json["done"] == 7);
  CHECK(count(listed.output, " is done: covey simulate ") == 7);
  CHECK(count(listed.output, "--set strategy.proximal-mu=1 --seed 3 --out ") == 2);
  CHECK(results_in(folder / "out").size() == 7);  // it only lists

  const auto outcome = sweep(folder);
  REQUIRE(outcome.code == 0);
  CHECK(outcome.error.find("7 of 12 runs are done already") != std::string::npos);
  const auto after = results_in(folder / "out");
  CHECK(after.size() == 12);
  for (const auto& [path, time] : before) {
    const bool half = path == folder / "out/slow_proximal-mu=0/seed-1/result.json";
    INFO(path);
    CHECK((after.at(path) == time) == !half);
  }
}

TEST_CASE("a sweep overwrites no run of other settings") {
  const TemporaryFolder folder("sweep-other");
  write_files(folder);
  REQUIRE(sweep(folder).code == 0);
  const auto outcome = sweep(folder, {"--set", "run.num-rounds=5"});
  CHECK(outcome.code == 2);
  CHECK_THAT(outcome.error, Catch::Contains("slow_proximal-mu=0/seed-1") &&
                                Catch::Contains("num-rounds = 4") &&
                                Catch::Contains("num-rounds = 5") && Catch::Contains("--out"));
  CHECK(results_in(folder / "out").size() == 8);
}

TEST_CASE("a run that fails is told with its last lines and ends no other") {
  const TemporaryFolder folder("sweep-fails");
  write_files(folder, R"(
run = "base.toml"
seeds = [1]
[[case]]
name = "well"
[[case]]
name = "broken"
set = ["strategy.plugin=no/such/strategy.so", "strategy.name=absent"]
)");
  const auto outcome = sweep(folder);
  CHECK(outcome.code == 1);
  CHECK(outcome.json["done"] == 1);
  CHECK(outcome.json["failed"] == 1);
  REQUIRE(outcome.json["failures"].size() == 1);
  CHECK(outcome.json["failures"][0]["case"] == "broken");
  CHECK_THAT(outcome.json["failures"][0]["problem"].get<std::string>(),
             Catch::Contains("no/such/strategy.so"));
  CHECK_THAT(outcome.error,
             Catch::Contains("failed broken, seed 1") && Catch::Contains("no/such/strategy.so"));
  CHECK(fs::exists(folder / "out/broken/seed-1.log"));
  CHECK_THAT(outcome.output, Catch::Contains("0 of 1"));  // its row of the table
}

TEST_CASE("Ctrl-C stops a sweep's runs, keeps what is done, and the same command goes on") {
  const TemporaryFolder folder("sweep-stop");
  write_files(folder, R"(
run = "base.toml"
seeds = [1]
[[case]]
name = "short"
[[case]]
name = "long"
set = ["run.num-rounds=2000000"]
)");
  const std::vector<std::string> arguments = {
      "sweep", folder / "sweep.toml", "--out", folder / "out", "--jobs", "1", "--json"};
  Process process(arguments, folder / "log");
  REQUIRE(eventually([&] { return fs::exists(folder / "out/long/seed-1/metrics.jsonl"); }, 30s));
  process.signal(SIGINT);
  const auto code = process.wait(30s);
  REQUIRE(code);
  CHECK(*code == 1);
  CHECK(process.json()["done"] == 1);
  CHECK(process.json()["stopped"] == 1);
  CHECK_THAT(process.standard_error(), Catch::Contains("the same command goes on"));
  CHECK(fs::exists(folder / "out/short/seed-1/result.json"));
  // Its process has ended: nobody writes there any more.
  const auto size = fs::file_size(folder / "out/long/seed-1/metrics.jsonl");
  std::this_thread::sleep_for(200ms);
  CHECK(fs::file_size(folder / "out/long/seed-1/metrics.jsonl") == size);
  const auto listed = sweep(folder, {"--dry-run"});
  CHECK(listed.json["done"] == 1);
  CHECK(listed.output.find("long, seed 1 is done") == std::string::npos);
}

TEST_CASE("a run that a sweep was stopped in goes on where it was, to the same model") {
  const TemporaryFolder folder("sweep-resume");
  write_files(folder, "run = \"base.toml\"\nseeds = [1]\nset = [\"run.num-rounds=6000\"]\n");
  const std::string metrics = folder / "out/run/seed-1/metrics.jsonl";
  {
    Process process({"sweep", folder / "sweep.toml", "--out", folder / "out"}, folder / "log");
    REQUIRE(eventually([&] { return count(read_file(metrics), "\n") > 100; }, 30s));
    process.signal(SIGINT);
    REQUIRE(process.wait(30s) == 1);
  }
  REQUIRE(count(read_file(metrics), "\n") < 6000);
  CHECK_THAT(sweep(folder, {"--dry-run"}).output,
             Catch::Contains("run, seed 1 goes on: covey simulate --resume "));
  const auto outcome = sweep(folder);
  INFO(outcome.error);
  REQUIRE(outcome.code == 0);
  CHECK(count(read_file(metrics), "\n") == 6000);
  CHECK(count(read_file(folder / "out/run/seed-1/metrics.csv"), "\n") == 6001);
  const auto whole = run(folder, {"simulate", folder / "base.toml", "--set", "run.num-rounds=6000",
                                  "--seed", "1", "--out", folder / "whole", "--quiet", "--json"});
  REQUIRE(whole.code == 0);
  const auto resumed = nlohmann::json::parse(read_file(folder / "out/run/seed-1/result.json"));
  CHECK(resumed["model_sha256"] == whole.json["model_sha256"]);
}

TEST_CASE("the runs of a sweep that is killed end with it") {
  const TemporaryFolder folder("sweep-killed");
  write_files(folder, "run = \"base.toml\"\nseeds = [1]\nset = [\"run.num-rounds=2000000\"]\n");
  Process process({"sweep", folder / "sweep.toml", "--out", folder / "out"}, folder / "log");
  const std::string metrics = folder / "out/run/seed-1/metrics.jsonl";
  REQUIRE(eventually([&] { return fs::exists(metrics) && fs::file_size(metrics) > 0; }, 30s));
  process.kill();
  CHECK(eventually(
      [&] {
        const auto size = fs::file_size(metrics);
        std::this_thread::sleep_for(300ms);
        return fs::file_size(metrics) == size;
      },
      20s));
}

TEST_CASE("a sweep file that asks for what cannot be is refused before anything runs") {
  const TemporaryFolder folder("sweep-refused");
  const std::string head = "run = \"base.toml\"\nseeds = [1]\n";
  struct Bad {
    std::string text;
    std::vector<std::string> named;
  };
  const std::vector<Bad> all{
      {"seeds = [1]\n", {"sweep.toml", "run", "missing"}},
      {"run = \"base.toml\"\n", {"sweep.toml", "seeds", "missing"}},
      {"run = \"base.toml\"\nseeds = []\n", {"sweep.toml:2", "seeds", "at least one"}},
      {"run = \"base.toml\"\nseeds = [1, -2]\n", {"sweep.toml:2", "seeds", "whole number"}},
      {"run = \"base.toml\"\nseeds = [1, 1]\n", {"sweep.toml:2", "1 is there twice"}},
      {"run = \"none.toml\"\nseeds = [1]\n", {"none.toml", "cannot open"}},
      {head + "grids = 3\n", {"sweep.toml:3", "grids", "unknown key"}},
      {head + "[grid]\n", {"sweep.toml:3", "grid", "lists"}},
      {head + "[grid]\n\"strategy.proximal-mu\" = []\n",
       {"sweep.toml:4", "grid.strategy.proximal-mu", "at least one value"}},
      {head + "[grid]\nstrategy.proximal-mu = [1]\n", {"sweep.toml:4", "quotes"}},
      {head + "[grid]\n\"client.learning-rat\" = [1]\n",
       {"sweep.toml", "learning-rat=1", "client.learning-rate"}},
      {head + "[grid]\n\"run.seed\" = [1]\n", {"sweep.toml:4", "seeds"}},
      {head + "[[case]]\nset = []\n", {"sweep.toml:3", "case.name", "missing"}},
      {head + "[[case]]\nname = \"a\"\nset = [\"client.batch-size=-1\"]\n",
       {"sweep.toml", "a", "client.batch-size"}},
      {head + "[[case]]\nname = \"a\"\n[[case]]\nname = \"a\"\n", {"sweep.toml:5", "twice"}},
      {head + "[[case]]\nname = \"a/b\"\n[[case]]\nname = \"a-b\"\n", {"sweep.toml", "folder a-b"}},
      {head + "[plot]\ny = \"acuracy\"\n", {"sweep.toml:3", "acuracy", "accuracy"}},
      {head + "[plot]\nx = \"loss\"\n", {"sweep.toml:3", "loss", "hours"}},
      {head + "[plot]\npanel = \"fleet.stragglers\"\n", {"sweep.toml:4", "plot.panel"}},
      {head + "[grid]\n\"strategy.proximal-mu\" = [0, 1]\n\"client.batch-size\" = [5, 10]\n[plot]\n"
              "group = \"client.batch-size\"\n",
       {"sweep.toml", "plot.group", "one curve"}},
      {head + "[grid\n", {"sweep.toml:3"}},
  };
  for (const Bad& bad : all) {
    const std::string error = refusal(folder, bad.text);
    INFO(bad.text);
    for (const std::string& name : bad.named) CHECK_THAT(error, Catch::Contains(name));
  }
}

TEST_CASE("plot draws any figure over rounds, hours, bytes or updates, and seeds as one mean") {
  const TemporaryFolder folder("sweep-plot");
  write_files(folder,
              "run = \"base.toml\"\nseeds = [1, 2]\n[grid]\n\"strategy.proximal-mu\" = [0, 1]\n");
  REQUIRE(sweep(folder).code == 0);
  std::vector<std::string> plot = {"plot", "--json"};
  for (const char* value : {"0", "1"}) {
    for (const char* seed : {"1", "2"}) {
      plot.push_back(folder / ("out/proximal-mu=" + std::string(value) + "/seed-" + seed));
    }
  }
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), plot.begin(), plot.end());
    return run(folder, more);
  };
  for (const char* x : {"round", "hours", "bytes", "updates"}) {
    for (const char* y : {"accuracy", "loss", "train_loss", "accepted"}) {
      INFO(x << " " << y);
      const auto outcome = with({"--x", x, "--y", y});
      REQUIRE(outcome.code == 0);
      REQUIRE(outcome.json["curves"].size() == 4);
      CHECK(outcome.json["curves"][3]["points"] == 4);
    }
  }
  const auto mean = with({"--mean", "--out", folder / "mean.svg"});
  REQUIRE(mean.code == 0);
  REQUIRE(mean.json["curves"].size() == 2);
  CHECK(mean.json["curves"][0]["folders"].size() == 2);
  CHECK_THAT(mean.output, Catch::Contains("proximal-mu=1 (2 runs)"));
  CHECK_THAT(read_file(folder / "mean.svg"), Catch::Contains("fill-opacity:0.18"));
  CHECK(with({"--y", "no_such_figure"}).code == 2);
  CHECK(with({"--x", "loss"}).code == 2);
  const auto unknown = with({"--y", "epsilon"});  // a figure, but not of these runs
  CHECK(unknown.code == 2);
  CHECK_THAT(unknown.error, Catch::Contains("epsilon"));
}

TEST_CASE("a run folder tells its rounds as JSON, CSV and TensorBoard events") {
  const TemporaryFolder folder("sweep-outputs");
  write_files(folder);
  REQUIRE(
      run(folder, {"simulate", folder / "base.toml", "--quiet", "--out", folder / "run"}).code ==
      0);
  CHECK(count(read_file(folder / "run/metrics.jsonl"), "\n") == 4);
  const std::string csv = read_file(folder / "run/metrics.csv");
  CHECK(count(csv, "\n") == 5);
  CHECK(csv.starts_with("round,committed,"));
  std::size_t events = 0;
  for (const auto& entry : fs::directory_iterator(folder.path() + "/run")) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("events.out.tfevents.") || !name.ends_with(".covey")) continue;
    ++events;
    CHECK(count(read_file(entry.path().string()), "train_loss") == 4);
  }
  CHECK(events == 1);
}
