#include "sweep_runner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <list>
#include <nlohmann/json.hpp>
#include <thread>

#include "child_process.hpp"
#include "command_line.hpp"

namespace covey {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJournal = "journal.bin";  // what `covey simulate --resume` goes on from
constexpr auto kPause = std::chrono::milliseconds(20);  // between two looks at the processes
constexpr std::size_t kLastLines = 6;                   // of a failed run's log that are told

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

bool is_finished(const std::string& folder) {
  const auto result = nlohmann::json::parse(content_of(folder + "/result.json"), nullptr, false);
  return result.is_object() && result.contains("finished") && result["finished"] == true;
}

/// The first line of the one that the other does not have.
std::string difference(const std::string& text, const std::string& other) {
  std::istringstream lines(text), others(other);
  for (std::string line, against; std::getline(lines, line);) {
    if (!std::getline(others, against) || line != against) return line;
  }
  return "fewer keys";
}

/// What there is of a run that is configured so.
Result<RunState> state_of(const std::string& folder, const std::string& run_toml) {
  std::error_code error;
  if (!fs::exists(folder, error) || fs::is_empty(folder, error)) return RunState::kStarts;
  const std::string path = folder + "/run.toml";
  if (!fs::exists(path, error)) {
    // Ended while it wrote its first file.
    const auto files =
        std::distance(fs::directory_iterator(folder, error), fs::directory_iterator());
    if (files == 1 && fs::exists(path + ".new", error)) return RunState::kStarts;
    return invalid_argument(folder +
                            " is not empty and holds no run; name another folder with --out");
  }
  const std::string there = content_of(path);
  if (there != run_toml) {
    return invalid_argument(
        fmt::format("{} holds a run of other settings (there: {}; here: {}); name another folder "
                    "with --out, or "
                    "remove it",
                    folder, difference(there, run_toml), difference(run_toml, there)));
  }
  if (is_finished(folder)) return RunState::kDone;
  return fs::exists(folder + "/" + kJournal, error) ? RunState::kResumes : RunState::kStarts;
}

std::vector<std::string> arguments_of(const SweepRun& run, const SweepRunOptions& options) {
  std::vector<std::string> arguments = run.arguments;
  if (run.state == RunState::kResumes) arguments = {"simulate", "--resume", run.folder};
  if (!options.data_directory.empty()) {
    arguments.insert(arguments.end(), {"--data", options.data_directory});
  }
  arguments.insert(arguments.end(),
                   {"--threads", std::to_string(options.threads), "--quiet", "--json"});
  return arguments;
}

/// The end of what a run printed, without the JSON that says the same.
std::string last_lines(const std::string& log) {
  std::deque<std::string> lines;
  std::ifstream file(log);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line.front() == '{') continue;
    lines.push_back(line);
    if (lines.size() > kLastLines) lines.pop_front();
  }
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + line;
  return text;
}

std::string problem_of(int code, const std::string& log) {
  const std::string said = last_lines(log);
  std::string how = fmt::format("exit code {}", code);
  if (code > 128) how = fmt::format("ended by signal {} ({})", code - 128, strsignal(code - 128));
  return said.empty() ? how + "; it said nothing" : fmt::format("{}; it said:\n{}", how, said);
}

/// A run under way.
struct Job {
  SweepRun* run;
  ChildProcess process;
};

/// Makes the run's folder ready and starts its process.
Result<ChildProcess> start(const SweepRun& run, const SweepRunOptions& options) {
  std::error_code error;
  if (run.state == RunState::kStarts)
    fs::remove_all(run.folder, error);  // half a run of these settings
  fs::create_directories(fs::path(run.folder).parent_path(), error);
  if (error) return failed("cannot make the folder of " + run.folder + ": " + error.message());
  return ChildProcess::start(arguments_of(run, options), run.log);
}

/// What became of a run whose process has ended.
void conclude(SweepRun& run, int code, bool stopping) {
  std::error_code ignored;
  if (code == kExitDone && is_finished(run.folder)) {
    run.state = RunState::kDone;
    fs::remove(run.log, ignored);
  } else if (stopping) {
    run.state = RunState::kStopped;
  } else if (run.state == RunState::kResumes && code == kExitUsage) {
    run.state = RunState::kStarts;  // its journal cannot be gone on from: from the beginning
  } else {
    run.state = RunState::kFailed;
    run.problem = problem_of(code, run.log);
  }
}

}  // namespace

Result<std::vector<SweepRun>> runs_of(const SweepPlan& plan, const SweepRunOptions& options) {
  std::vector<SweepRun> runs;
  // Seed by seed, so that an early look at the table compares all cases.
  for (const std::uint64_t seed : plan.seeds) {
    for (std::size_t i = 0; i < plan.cases.size(); ++i) {
      const SweepCase& sweep_case = plan.cases[i];
      SweepRun run;
      run.sweep_case = i;
      run.seed = seed;
      run.folder = fmt::format("{}/{}/seed-{}", options.out, sweep_case.folder, seed);
      run.log = run.folder + ".log";
      run.arguments = {"simulate", plan.run_file};
      for (const std::string& setting : sweep_case.overrides) {
        run.arguments.insert(run.arguments.end(), {"--set", setting});
      }
      run.arguments.insert(run.arguments.end(),
                           {"--seed", std::to_string(seed), "--out", run.folder});
      COVEY_ASSIGN(const RunConfig config, plan.config_of(sweep_case, seed));
      COVEY_ASSIGN(run.state, state_of(run.folder, to_toml(config)));
      runs.push_back(std::move(run));
    }
  }
  return runs;
}

std::string command_of(const SweepRun& run, const SweepRunOptions& options) {
  std::string command = "covey";
  for (const std::string& argument : arguments_of(run, options)) {
    const bool plain = argument.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                           "0123456789_-./=,+:") == std::string::npos;
    std::string quoted = argument;
    for (auto at = quoted.find('\''); at != std::string::npos; at = quoted.find('\'', at + 4)) {
      quoted.replace(at, 1, "'\\''");
    }
    command += plain ? " " + argument : " '" + quoted + "'";
  }
  return command;
}

void do_runs(std::vector<SweepRun>& runs, const SweepRunOptions& options,
             const std::atomic<bool>& stop, const std::function<void(const SweepRun&)>& ended) {
  std::deque<SweepRun*> waiting;
  for (SweepRun& run : runs) {
    if (run.state != RunState::kDone) waiting.push_back(&run);
  }
  std::list<Job> jobs;
  for (bool told = false; !jobs.empty() || !waiting.empty();) {
    if (stop && !told) {
      told = true;
      for (SweepRun* run : waiting) run->state = RunState::kStopped;
      waiting.clear();
      for (Job& job : jobs) job.process.signal(SIGINT);
    }
    while (!waiting.empty() && jobs.size() < options.jobs) {
      SweepRun& run = *waiting.front();
      waiting.pop_front();
      auto process = start(run, options);
      if (process.ok()) {
        jobs.push_back({&run, std::move(*process)});
      } else {
        run.state = RunState::kFailed;
        run.problem = process.error().message;
        ended(run);
      }
    }
    std::this_thread::sleep_for(kPause);
    for (auto job = jobs.begin(); job != jobs.end();) {
      const auto code = job->process.ended();
      if (!code) {
        ++job;
        continue;
      }
      conclude(*job->run, *code, told);
      if (job->run->state == RunState::kStarts) {
        waiting.push_front(job->run);
      } else {
        ended(*job->run);
      }
      job = jobs.erase(job);
    }
  }
}

}  // namespace covey
