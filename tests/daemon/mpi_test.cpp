// `mpirun covey simulate`. Skipped, with a line that says so, where there is no mpirun or no MPI
// module.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "process.hpp"

using namespace covey::testing;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

const std::string kRunFile = R"(
[run]
name = "mpi"
seed = 3
num-rounds = 30
eval-every = 30
[data]
source = "synthetic"
[partition]
scheme = "natural"
clients = 40
[client]
learning-rate = 0.05
[selection]
fraction-fit = 0.5
)";

bool has_mpi() {
  const bool module = fs::exists(fs::path(COVEY_PROGRAM).parent_path() / "libcovey_mpi.so");
  const bool starter = std::system("command -v mpirun >/dev/null 2>&1") == 0;
  if (module && starter) return true;
  WARN("skipped: " << (module ? "there is no mpirun" : "this build has no MPI module"));
  return false;
}

struct Outcome {
  int code = -1;
  std::string output, errors;
  nlohmann::json json;
};

/// A shell that becomes mpirun (or another starter) with covey behind it. Its output goes to files.
class Ranks {
 public:
  Ranks(const std::string& starter, const std::string& arguments, const std::string& log)
      : log_(log) {
    const std::string line = "exec " + starter + " " COVEY_PROGRAM " " + arguments + " >" + log +
                             ".out 2>" + log + ".err </dev/null";
    pid_ = fork();
    if (pid_ == 0) {
      setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
      setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
      execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
      _exit(127);
    }
  }
  ~Ranks() {
    if (!code_) kill(pid_, SIGTERM);  // mpirun takes its ranks along
    if (!wait(10s) && pid_ > 0) kill(pid_, SIGKILL);
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  bool wait(std::chrono::seconds patience) {
    return code_.has_value() || eventually(
                                    [this] {
                                      int status = 0;
                                      if (waitpid(pid_, &status, WNOHANG) != pid_) return false;
                                      code_ = WIFEXITED(status) ? WEXITSTATUS(status)
                                                                : 128 + WTERMSIG(status);
                                      return true;
                                    },
                                    patience);
  }
  Outcome outcome(std::chrono::seconds patience = 50s) {
    Outcome outcome;
    REQUIRE(wait(patience));
    outcome.code = *code_;
    outcome.output = read_file(log_ + ".out");
    outcome.errors = read_file(log_ + ".err");
    std::istringstream lines(outcome.output);
    for (std::string line; std::getline(lines, line);) {
      auto parsed = nlohmann::json::parse(line, nullptr, false);
      if (parsed.is_object()) outcome.json = std::move(parsed);
    }
    return outcome;
  }
  void signal(int number) const { kill(pid_, number); }
  std::string errors() const { return read_file(log_ + ".err"); }

 private:
  std::string log_;
  pid_t pid_ = -1;
  std::optional<int> code_;
};

std::string mpirun(int ranks) {
  return "mpirun --oversubscribe --bind-to none -np " + std::to_string(ranks);
}

/// The process of one rank of this folder's run.
std::optional<pid_t> process_of(int rank, const std::string& folder) {
  const std::string wanted = "OMPI_COMM_WORLD_RANK=" + std::to_string(rank);
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string line = read_file(entry.path() / "cmdline");
    if (!line.starts_with(COVEY_PROGRAM) || line.find(folder) == std::string::npos) continue;
    const std::string environment = '\0' + read_file(entry.path() / "environ");
    if (environment.find('\0' + wanted + '\0') != std::string::npos) return std::stoi(name);
  }
  return std::nullopt;
}

std::size_t rounds_in(const std::string& folder) {
  return count(read_file(folder + "/metrics.jsonl"), "\n");
}

}  // namespace

TEST_CASE("ranks of mpirun give the bits of one process, and only rank 0 speaks and writes") {
  if (!has_mpi()) return;
  TemporaryFolder folder("mpi");
  write_file(folder / "run.toml", kRunFile);
  const std::string arguments = "simulate " + folder / "run.toml" + " --json --threads 1 --out ";
  const auto alone = Ranks("", arguments + folder / "alone", folder / "alone").outcome();
  REQUIRE(alone.code == 0);
  for (const int ranks : {2, 3}) {
    CAPTURE(ranks);
    const std::string out = folder / ("out" + std::to_string(ranks));
    const auto together = Ranks(mpirun(ranks), arguments + out, out).outcome();
    INFO(together.errors);
    REQUIRE(together.code == 0);
    CHECK(together.json["model_sha256"] == alone.json["model_sha256"]);
    CHECK(count(together.output, "model_sha256") == 1);
    CHECK(rounds_in(out) == 30);
  }
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) ==
        1 + 3 * 3);  // the run file; a folder and two files of output of each run
}

TEST_CASE("what is wrong with a run is told once, whatever the number of ranks") {
  if (!has_mpi()) return;
  TemporaryFolder folder("mpi-wrong");
  write_file(folder / "run.toml", kRunFile);
  const std::string file = folder / "run.toml";
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"simulate --no-such-option", "--no-such-option"},
      {"simulate " + file + " --set client.pace=1", "unknown key"},
      {"simulate " + file + " --set data.source=mnist --data " + folder / "none", "none"}};
  for (const auto& [arguments, message] : wrong) {
    CAPTURE(arguments);
    const auto outcome = Ranks(mpirun(3), arguments, folder / "log").outcome();
    INFO(outcome.errors);
    CHECK(outcome.code == 2);
    CHECK(count(outcome.errors, message) == 1);
  }
}

TEST_CASE("when a rank dies the run says which and how to go on, and goes on to the same bits") {
  if (!has_mpi()) return;
  TemporaryFolder folder("mpi-death");
  write_file(folder / "run.toml", kRunFile);
  const std::string rounds = " --set run.num-rounds=4000 --set run.eval-every=4000 ";
  const std::string arguments =
      "simulate " + folder / "run.toml" + rounds + "--threads 1 --quiet --json --out ";
  const std::string out = folder / "out";
  {
    Ranks ranks(mpirun(2), arguments + out, folder / "log");
    REQUIRE(eventually([&] { return rounds_in(out) >= 20; }, 40s));
    const auto victim = process_of(1, out);
    REQUIRE(victim);
    REQUIRE(kill(*victim, SIGKILL) == 0);
    const auto outcome = ranks.outcome(20s);
    INFO(outcome.errors);
    CHECK(outcome.code != 0);
    CHECK(count(outcome.errors, "covey: rank 1 (") == 1);
    CHECK_THAT(outcome.errors, Catch::Contains("is gone: its process has ended"));
    CHECK_THAT(outcome.errors, Catch::Contains("covey simulate --resume " + out));
  }
  REQUIRE(eventually([&] { return !process_of(0, out); }, 10s));
  REQUIRE(rounds_in(out) < 4000);
  const auto resumed =
      Ranks(mpirun(2), "simulate --resume " + out + " --threads 1 --quiet --json", folder / "again")
          .outcome();
  INFO(resumed.errors);
  REQUIRE(resumed.code == 0);
  CHECK(rounds_in(out) == 4000);
  const auto alone = Ranks("", arguments + folder / "alone", folder / "alone").outcome();
  REQUIRE(alone.code == 0);
  CHECK(resumed.json["model_sha256"] == alone.json["model_sha256"]);
}

TEST_CASE("when mpirun is stopped the run ends in order, and leaves no process behind") {
  if (!has_mpi()) return;
  TemporaryFolder folder("mpi-stop");
  write_file(folder / "run.toml", kRunFile);
  const std::string out = folder / "out";
  Ranks ranks(mpirun(3),
              "simulate " + folder / "run.toml" +
                  " --set run.num-rounds=1000000 --threads 1 --quiet --out " + out,
              folder / "log");
  REQUIRE(eventually([&] { return rounds_in(out) >= 10; }, 40s));
  ranks.signal(SIGINT);
  const auto outcome = ranks.outcome(20s);
  INFO(outcome.errors);
  CHECK(outcome.code == 1);
  CHECK_THAT(outcome.errors, Catch::Contains("covey: stopped after round"));
  CHECK_THAT(outcome.errors, !Catch::Contains("is gone"));
  for (const int rank : {0, 1, 2}) {
    CHECK(eventually([&] { return !process_of(rank, out); }, 10s));
  }
}
