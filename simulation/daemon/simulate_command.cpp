#include "simulate_command.hpp"

#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include <covey/models/network.hpp>
#include <covey/simulation/plot.hpp>
#include <covey/simulation/simulate.hpp>

#include "command_line.hpp"
#include "fault_options.hpp"
#include "learning_curve.hpp"
#include "model_source.hpp"
#include "progress_line.hpp"
#include "run_folder.hpp"
#include "run_summary.hpp"
#include "simulation_ranks.hpp"

namespace covey {
namespace {

struct SimulateOptions {
  RunFileOptions run_file;
  std::string out;
  std::string resume;  ///< folder of the run that goes on; "": a new run
  unsigned threads = 0;
  bool quiet = false;
  bool check_sums = false;
  FaultOptions faults;
};

nlohmann::json result_json(const RunConfig& config, const simulation::SimulationResult& result) {
  nlohmann::json json = {
      {"rounds", result.committed},
      {"finished", result.finished},
      {"seed", config.seed},
      {"model_sha256", result.model.digest().hex()},
      {"virtual_s", result.virtual_s},
      {"wall_s", result.wall_s},
      {"train_steps", result.train_steps},
      {"train_steps_per_s",
       result.wall_s > 0 ? static_cast<double>(result.train_steps) / result.wall_s : 0},
      {"bytes_up", result.bytes_up},
      {"bytes_down", result.bytes_down},
      {"peak_rss_mib", peak_rss_mib()},
      {"fairness",
       {{"devices", result.fairness.devices},
        {"average", result.fairness.average},
        {"worst10", result.fairness.worst10},
        {"best10", result.fairness.best10},
        {"variance", result.fairness.variance}}},
      {"backdoor", nullptr},
      {"accuracy", nullptr},
      {"loss", nullptr},
      {"target", nullptr},
      {"rounds_to_target", nullptr}};
  for (const RoundMetrics& metrics : result.rounds) {
    if (metrics.accuracy) json["accuracy"] = *metrics.accuracy;
    if (metrics.loss) json["loss"] = *metrics.loss;
  }
  if (config.target_accuracy > 0) json["target"] = config.target_accuracy;
  if (const auto rounds = rounds_to_target(config, result.rounds)) json["rounds_to_target"] = *rounds;
  if (result.backdoor) json["backdoor"] = *result.backdoor;
  json["reason"] = result.reason;
  if (const auto energy_j = fleet_totals(result.rounds).energy_j) json["energy_j"] = *energy_j;
  if (!result.rounds.empty() && result.rounds.back().epsilon) {
    json["epsilon"] = *result.rounds.back().epsilon;
    json["delta"] = result.rounds.back().delta.value_or(0);
    json["guarantee"] = result.guarantee;
  }
  return json;
}

/// How coarse the fixed point was for the updates that came.
void print_rounding(double error) {
  constexpr double kWorthAWord = 0.1;  // of the sum's norm: learning begins to feel it
  fmt::print("  rounding to secure-aggregation.bits adds {:.3g}% to the last sum's norm{}\n", 100 * error,
             error > kWorthAWord
                 ? "; a clip or max-weight nearer to what updates have, or more bits, make it less"
                 : "");
}

/// What secure aggregation and differential privacy did over the run.
void print_privacy(const RunConfig& config, const simulation::SimulationResult& result) {
  if (result.rounds.empty()) return;
  const RoundMetrics& last = result.rounds.back();
  if (config.secure_aggregation.mode != "off") {
    std::uint64_t masked = 0, recovered = 0, coordinates = 0, weights = 0;
    for (const RoundMetrics& metrics : result.rounds) {
      masked += metrics.masked;
      recovered += metrics.recovered;
      coordinates += metrics.clipped_coordinates;
      weights += metrics.clipped_weights;
    }
    fmt::print("  secure sums of {} updates, {} devices' masks reconstructed", masked, recovered);
    if (!last.private_figures) {
      fmt::print("; {} coordinates and {} weights clipped", coordinates, weights);
    }
    fmt::print("\n");
    if (last.rounding_error) print_rounding(*last.rounding_error);
  }
  if (last.epsilon && last.delta) {
    fmt::print("  differential privacy: epsilon {:.4g}, delta {:.3g}, {}\n", *last.epsilon, *last.delta,
               result.guarantee);
  }
  if (result.finished && result.committed < config.num_rounds) fmt::print("  {}\n", result.reason);
}

void print_summary(const RunConfig& config, const simulation::SimulationResult& result,
                   const simulation::Plot& plot, const std::string& folder) {
  if (!plot.curves.empty() && !plot.curves.front().points.empty()) {
    const int columns = isatty(STDOUT_FILENO) == 1 ? 90 : 76;
    std::fputs(simulation::draw_in_terminal(plot, columns).c_str(), stdout);
    const double last = plot.curves.front().points.back().second;
    fmt::print("\n  {} after {} rounds",
               picture_name(plot) == "loss" ? fmt::format("loss {:.4f}", last)
                                            : fmt::format("accuracy {:.2f}%", last),
               result.committed);
    if (config.target_accuracy > 0) {
      const auto rounds = rounds_to_target(config, result.rounds);
      fmt::print("; {:.4g}% {}", 100 * config.target_accuracy,
                 rounds ? fmt::format("reached after {:.1f}", *rounds) : "not reached");
    }
    fmt::print("\n");
  }
  if (result.fairness.devices > 1) {
    fmt::print("  over {} devices: average {:.1f}%, worst tenth {:.1f}%, best tenth {:.1f}%, variance {:.0f}\n",
               result.fairness.devices, result.fairness.average, result.fairness.worst10,
               result.fairness.best10, result.fairness.variance);
  }
  if (result.backdoor) {
    fmt::print("  the backdoor works on {:.1f}% of the test examples with its trigger\n", 100 * *result.backdoor);
  }
  print_privacy(config, result);
  if (const std::string faults = fault_summary(result.faults); !faults.empty()) {
    fmt::print("  survived: {}\n", faults);
  }
  std::fputs(fleet_summary(fleet_totals(result.rounds)).c_str(), stdout);
  fmt::print("  {} up, {} down, {} of virtual time\n", human_bytes(static_cast<double>(result.bytes_up)),
             human_bytes(static_cast<double>(result.bytes_down)), human_seconds(result.virtual_s));
  fmt::print("  {} training steps in {}: {:.0f} steps/s with {} kernels; {:.0f} MiB at most\n",
             result.train_steps, human_seconds(result.wall_s),
             result.wall_s > 0 ? static_cast<double>(result.train_steps) / result.wall_s : 0,
             models::kernel_instruction_set(), peak_rss_mib());
  fmt::print("  model {}\n  in {}/: metrics.jsonl, metrics.csv, TensorBoard events, model.fp32, result.json{}\n",
             result.model.digest().hex().substr(0, 16), folder,
             plot.curves.empty() ? "" : fmt::format(", {0}.svg, {0}.png", picture_name(plot)));
}

/// The run file: as given, or the one in the folder of the run that goes on.
Result<RunConfig> load_config(const SimulateOptions& options) {
  if (options.resume.empty()) {
    if (!options.run_file.path.empty()) return load_with_faults(options.run_file, options.faults);
    return invalid_argument("name a run file, or with --resume the folder of a run that was stopped");
  }
  std::ifstream result(options.resume + "/result.json");
  const auto json = nlohmann::json::parse(result, nullptr, false);
  if (json.is_object() && json.value("finished", false)) {
    return invalid_argument("--resume " + options.resume + ": this run is finished; its results are there");
  }
  RunFileOptions stored = options.run_file;
  stored.path = options.resume + "/run.toml";
  return stored.load();
}

Result<LoadedRun> load(const SimulateOptions& options) {
  COVEY_ASSIGN(RunConfig config, load_config(options));
  COVEY_ASSIGN(auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto models, model_source(config, options.run_file.data_directory));
  COVEY_ASSIGN(auto experiment,
               simulation::load_experiment(config, options.run_file.data_directory, models));
  return LoadedRun{std::move(config), std::move(registry), std::move(experiment)};
}

Result<int> simulate(const SimulateOptions& options) {
  COVEY_ASSIGN(auto ranks, SimulationRanks::join());
  const unsigned threads = options.threads > 0 ? options.threads : ranks.default_threads();
  if (ranks.trains_for_rank_0()) return ranks.train([&] { return load(options); }, threads);
  COVEY_ASSIGN(const LoadedRun run, load(options));
  const auto& [config, registry, experiment] = run;

  const SelectionConfig& selection = config.selection;
  const bool devices_go_away = !config.fleet.mix.empty() || !config.fleet.classes.empty() ||
                               !config.fleet.availability_trace.empty() ||
                               config.fleet.traits.availability != "always" || config.fleet.dropout > 0;
  if (!options.quiet && devices_go_away && selection.quorum == 1 && selection.over_selection == 1 &&
      !config.asynchronous.enabled()) {
    std::fprintf(stderr,
                 "covey: every selected device has to report (selection.quorum = 1), and devices of this fleet "
                 "may go away or fail: rounds will be abandoned; a quorum of 0.8 or selection.over-selection = "
                 "1.3 goes on without them\n");
  }
  if (!options.quiet) {
    for (const std::string& notice : experiment.notices) std::fprintf(stderr, "covey: %s\n", notice.c_str());
  }
  simulation::SimulationOptions simulation_options;
  simulation_options.threads = threads;
  COVEY_TRY(ranks.gather(experiment, simulation_options));
  // What a stopped run wrote is not touched before its journal was found in order.
  std::optional<RunFolder> folder;
  const auto open_folder = [&, &config = config]() -> Result<void> {
    if (folder) return {};
    COVEY_ASSIGN(folder, options.resume.empty() ? RunFolder::create(options.out, config)
                                                : RunFolder::reopen(options.resume, config, {}));
    return {};
  };
  if (options.resume.empty()) COVEY_TRY(open_folder());
  simulation_options.resume = !options.resume.empty();
  simulation_options.journal_folder = folder ? folder->path() : options.resume;
  ranks.advise("; covey simulate --resume " + simulation_options.journal_folder +
               " goes on from the last committed round, should mpirun end the run");
  simulation_options.stop = &stop_on_signal();
  simulation_options.check_sums = options.check_sums;
  simulation_options.check_invariants = options.faults.check;
  simulation_options.replay = replay_command(options.run_file, options.faults);
  simulation_options.data_directory = options.run_file.data_directory;
  std::optional<Error> write_error;
  auto result = [&] {
    ProgressLine progress(config.num_rounds, options.quiet);
    simulation_options.on_round = [&](const RoundMetrics& metrics) {
      progress.show(metrics);
      auto written = open_folder();
      if (written.ok()) written = folder->append(metrics);
      if (!written.ok() && !write_error) write_error = written.error();
    };
    return simulation::simulate(experiment, registry, simulation_options);
  }();
  if (!result.ok()) return result.error();
  if (write_error) return *write_error;
  COVEY_TRY(open_folder());
  const nlohmann::json json = result_json(config, *result);
  COVEY_TRY(folder->write_model(result->model, experiment.layout));
  COVEY_TRY(folder->write_result(json));
  COVEY_TRY(folder->write_pictures(config, result->rounds));
  if (!options.quiet) {
    print_summary(config, *result, learning_curve(config, result->rounds), folder->path());
  }
  if (!result->finished) {
    const bool written_down = config.faults.seed == 0;
    std::fprintf(stderr, "covey: stopped after round %u of %u; what was learnt is in %s%s%s\n",
                 result->committed, config.num_rounds, folder->path().c_str(),
                 written_down ? "; it goes on with: covey simulate --resume " : "",
                 written_down ? folder->path().c_str() : "");
  }
  if (options.run_file.json) print_json(json);
  return result->finished ? kExitDone : kExitFailed;
}

}  // namespace

void add_simulate_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<SimulateOptions>();
  CLI::App* command = app.add_subcommand(
      "simulate", "Runs an experiment in virtual time with the code that is deployed");
  add_run_file_options(*command, options->run_file);
  command->add_option("--out", options->out, "Folder for the results; default runs/<run.name>");
  CLI::Option* resume =
      command
          ->add_option("--resume", options->resume,
                       "Goes on with the run in this folder, which was stopped or killed, to the same bits")
          ->type_name("FOLDER");
  command->get_option("run-file")->required(false);
  add_fault_options(*command, options->faults);
  for (const char* other : {"run-file", "--set", "--seed", "--out", "--faults", "--check"}) {
    resume->excludes(command->get_option(other));  // the folder says all of it
  }
  command->add_option("--threads", options->threads, "Threads, of each rank under mpirun; the result does not depend on it")
      ->check(CLI::Range(1u, 1024u));
  command->add_flag("--quiet", options->quiet, "No progress, no summary");
  command->add_flag("--check-sums", options->check_sums,
                    "Ends with an error where an unmasked secure sum is not what the devices put in");
  command->footer("Example: covey simulate examples/01_quickstart/run.toml --set run.num-rounds=20");
  command->callback([options, &run] {
    run = [options] {
      const auto code = simulate(*options);
      return code.ok() ? *code : report_error(code.error(), options->run_file.json);
    };
  });
}

}  // namespace covey
