#include "sweep_command.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "command_line.hpp"
#include "sweep_report.hpp"

namespace covey {
namespace {

namespace fs = std::filesystem;

struct SweepOptions {
  std::string path;
  std::string out;
  std::string data_directory;
  std::vector<std::string> overrides;
  unsigned jobs = 0;
  bool dry_run = false;
  bool quiet = false;
  bool json = false;
};

std::size_t count(const std::vector<SweepRun>& runs, RunState state) {
  return static_cast<std::size_t>(std::ranges::count(runs, state, &SweepRun::state));
}

/// Tells how the sweep goes: a line for each run that ends and, on a terminal, one that rewrites
/// itself.
class SweepProgress {
 public:
  SweepProgress(const SweepPlan& plan, const std::vector<SweepRun>& runs, bool quiet)
      : plan_(plan),
        runs_(runs),
        quiet_(quiet),
        terminal_(isatty(STDERR_FILENO) == 1),
        before_(count(runs, RunState::kDone)),
        began_(std::chrono::steady_clock::now()) {
    if (before_ > 0) say(fmt::format("{} of {} runs are done already", before_, runs.size()));
  }
  ~SweepProgress() {
    if (terminal_ && !quiet_) std::fputs("\r\033[K", stderr);
  }

  void ended(const SweepRun& run) {
    const std::string name = fmt::format("{}, seed {}", plan_.cases[run.sweep_case].name, run.seed);
    ++ended_;
    if (run.state == RunState::kFailed) failed_ += 1;
    const std::size_t done = before_ + ended_;
    const char* what = run.state == RunState::kDone     ? "done"
                       : run.state == RunState::kFailed ? "failed"
                                                        : "stopped";
    std::string line = fmt::format("{}/{} {} {}", done, runs_.size(), what, name);
    if (run.state == RunState::kFailed) line += ": " + run.problem;
    say(line);
    const double elapsed =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
    const auto left = static_cast<double>(runs_.size() - done);
    if (terminal_ && !quiet_ && left > 0) {
      fmt::print(stderr, "{} of {} runs, {} failed, {} left", done, runs_.size(), failed_,
                 human_seconds(elapsed / static_cast<double>(ended_) * left));
      std::fflush(stderr);
    }
  }

 private:
  void say(const std::string& line) const {
    if (quiet_) return;
    fmt::print(stderr, "{}{}\n", terminal_ ? "\r\033[K" : "", line);
    std::fflush(stderr);
  }

  const SweepPlan& plan_;
  const std::vector<SweepRun>& runs_;
  bool quiet_, terminal_;
  std::size_t before_, ended_ = 0, failed_ = 0;
  std::chrono::steady_clock::time_point began_;
};

/// jobs x threads is at most what the machine has.
SweepRunOptions run_options(const SweepOptions& options, const SweepPlan& plan) {
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  SweepRunOptions run_options;
  run_options.out = options.out.empty() ? "runs/" + plan.name : options.out;
  run_options.data_directory = options.data_directory;
  const auto runs =
      static_cast<unsigned>(std::min<std::size_t>(plan.cases.size() * plan.seeds.size(), cores));
  run_options.jobs = options.jobs > 0 ? std::min(options.jobs, cores) : runs;
  if (options.jobs > cores) {
    fmt::print(stderr, "covey: {} jobs at a time: this machine has no more cores\n", cores);
  }
  run_options.threads = std::max(1u, cores / run_options.jobs);
  return run_options;
}

Result<void> write(const std::string& path, const std::string& content) {
  std::ofstream file(path + ".new", std::ios::trunc);
  file << content << std::flush;
  std::error_code error;
  if (file) fs::rename(path + ".new", path, error);
  if (!file || error) return failed("cannot write " + path);
  return {};
}

bool has_points(const simulation::Plot& plot) {
  return std::ranges::any_of(plot.curves, [](const auto& curve) { return !curve.points.empty(); });
}

/// table.csv, plot.svg and plot.png of what is done, and what of them is for people and programs.
Result<void> report(const SweepPlan& plan, const std::vector<SweepRun>& runs,
                    const std::string& out, bool quiet, nlohmann::json& json) {
  COVEY_ASSIGN(const SweepTable table, SweepTable::of(plan, runs));
  COVEY_ASSIGN(const auto panels, sweep_panels(plan, runs));
  COVEY_TRY(write(out + "/table.csv", table.csv()));
  json["cases"] = table.json();
  json["table"] = out + "/table.csv";
  json["plot"] = nullptr;
  const bool drawn = std::ranges::any_of(panels, has_points);
  if (drawn) {
    json["plot"] = out + "/plot.svg";
    COVEY_TRY(simulation::write_picture(panels, plan.plot.title, out + "/plot.svg"));
    COVEY_TRY(simulation::write_picture(panels, plan.plot.title, out + "/plot.png"));
  } else {
    fmt::print(stderr, "covey: no round told {} over {}: there is no plot\n", plan.plot.axes.y,
               plan.plot.axes.x);
  }
  if (quiet) return {};
  for (const simulation::Plot& panel : panels) {
    if (has_points(panel)) fmt::print("{}\n", simulation::draw_in_terminal(panel));
  }
  fmt::print("{}\n  in {}/: table.csv{}, and a run folder for each seed of each case\n",
             table.for_people(), out, drawn ? ", plot.svg, plot.png" : "");
  return {};
}

void print_runs(const SweepPlan& plan, const std::vector<SweepRun>& runs,
                const SweepRunOptions& options) {
  for (const SweepRun& run : runs) {
    const char* state = run.state == RunState::kDone      ? "is done"
                        : run.state == RunState::kResumes ? "goes on"
                                                          : "starts";
    fmt::print("{}, seed {} {}: {}\n", plan.cases[run.sweep_case].name, run.seed, state,
               command_of(run, options));
  }
  fmt::print("{} runs, {} done; {} at a time, {} {} each\n", runs.size(),
             count(runs, RunState::kDone), options.jobs, options.threads,
             options.threads == 1 ? "thread" : "threads");
}

nlohmann::json failures_of(const SweepPlan& plan, const std::vector<SweepRun>& runs) {
  nlohmann::json failures = nlohmann::json::array();
  for (const SweepRun& run : runs) {
    if (run.state != RunState::kFailed) continue;
    failures.push_back({{"case", plan.cases[run.sweep_case].name},
                        {"seed", run.seed},
                        {"problem", run.problem},
                        {"log", run.log}});
  }
  return failures;
}

Result<int> sweep(const SweepOptions& options) {
  COVEY_ASSIGN(const SweepPlan plan, load_sweep_file(options.path, options.overrides));
  const SweepRunOptions how = run_options(options, plan);
  COVEY_ASSIGN(auto runs, runs_of(plan, how));
  if (options.dry_run) {
    print_runs(plan, runs, how);
    if (options.json) print_json({{"runs", runs.size()}, {"done", count(runs, RunState::kDone)}});
    return kExitDone;
  }
  std::error_code error;
  fs::create_directories(how.out, error);
  if (error) return failed("cannot make the folder " + how.out + ": " + error.message());
  {
    SweepProgress progress(plan, runs, options.quiet);
    do_runs(runs, how, stop_on_signal(), [&](const SweepRun& run) { progress.ended(run); });
  }
  nlohmann::json json = {{"runs", runs.size()},
                         {"done", count(runs, RunState::kDone)},
                         {"failed", count(runs, RunState::kFailed)},
                         {"stopped", count(runs, RunState::kStopped)},
                         {"failures", failures_of(plan, runs)}};
  COVEY_TRY(report(plan, runs, how.out, options.quiet, json));
  if (json["stopped"] > 0) {
    fmt::print(stderr, "covey: stopped with {} of {} runs done; the same command goes on\n",
               count(runs, RunState::kDone), runs.size());
  }
  if (json["failed"] > 0) {
    fmt::print(stderr, "covey: {} of {} runs failed; their output is in {}/*/seed-*.log\n",
               count(runs, RunState::kFailed), runs.size(), how.out);
  }
  if (options.json) print_json(json);
  return json["done"] == runs.size() ? kExitDone : kExitFailed;
}

}  // namespace

void add_sweep_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<SweepOptions>();
  CLI::App* command = app.add_subcommand(
      "sweep", "Runs a grid or list of settings with several seeds, in parallel");
  command
      ->add_option("sweep-file", options->path,
                   "Sweep file (TOML): run, seeds, [grid], [[case]], [plot]")
      ->required();
  command->add_option(
      "--out", options->out,
      "Folder for the results; default runs/<name>. What is done there is not done again");
  command
      ->add_option(
          "--jobs", options->jobs,
          "Runs at a time, each a process with its share of the cores; default: one per core")
      ->check(CLI::Range(1u, 1024u));
  command
      ->add_option("--set", options->overrides,
                   "Overrides a key of every run, as in --set run.num-rounds=5")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--data", options->data_directory, "Directory with the data sets")
      ->envname("COVEY_DATA")
      ->type_name("DIR");
  command->add_flag("--dry-run", options->dry_run, "Only lists the runs, as commands");
  command->add_flag("--quiet", options->quiet, "No progress, no table, no plot in the terminal");
  command->add_flag("--json", options->json, "Ends standard output with one JSON object");
  command->footer("Example: covey sweep examples/11_sweep/fedprox.toml --jobs 2");
  command->callback([options, &run] {
    run = [options] {
      const auto code = sweep(*options);
      return code.ok() ? *code : report_error(code.error(), options->json);
    };
  });
}

}  // namespace covey
