#include "replay_command.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <covey/simulation/recorded_fleet.hpp>
#include <covey/simulation/simulate.hpp>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "command_line.hpp"
#include "model_source.hpp"

namespace covey {
namespace {

using simulation::RecordedFleet;
using simulation::RecordedRound;

struct ReplayOptions {
  RunFileOptions run_file;  ///< `path` is the server's folder
  std::string export_folder;
  unsigned threads = 0;
};

/// A folder for traces that nobody asked to keep.
class TraceFolder {
 public:
  TraceFolder()
      : path_((std::filesystem::temp_directory_path() /
               ("covey-replay-" + std::to_string(::getpid())))
                  .string()) {}
  ~TraceFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TraceFolder(const TraceFolder&) = delete;
  TraceFolder& operator=(const TraceFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// A recorded round beside the simulated one.
struct Comparison {
  const RecordedRound* recorded = nullptr;
  const RecordedRound* simulated = nullptr;

  /// |A and B| / |A or B| of the cohorts.
  double overlap() const {
    std::vector<ClientId> both;
    std::ranges::set_intersection(recorded->cohort, simulated->cohort, std::back_inserter(both));
    const std::size_t either = recorded->cohort.size() + simulated->cohort.size() - both.size();
    return either == 0 ? 1 : static_cast<double>(both.size()) / static_cast<double>(either);
  }
};

std::vector<const RecordedRound*> committed(const RecordedFleet& fleet) {
  std::vector<const RecordedRound*> rounds;
  for (const RecordedRound& round : fleet.rounds()) {
    if (round.committed) rounds.push_back(&round);
  }
  return rounds;
}

/// The run file in the server's folder.
Result<RunConfig> load_config(const ReplayOptions& options) {
  RunFileOptions stored = options.run_file;
  stored.path += "/run.toml";
  return stored.load();
}

/// The run as it is simulated: the recorded rounds with the recorded devices. A simulation draws
/// its devices' classes, and a trace names none, so devices keep a class's plan only where all are
/// of that class.
RunConfig simulated_config(RunConfig config, std::uint32_t rounds,
                           const std::set<std::string>& plans) {
  config.num_rounds = rounds;
  config.eval_every = rounds;  // what is learnt is not what is compared
  config.fairness_every = 0;
  config.stop_at_target = false;
  config.faults = {};
  const DeviceClassConfig traits = config.fleet.traits;
  const bool codec = config.fleet.codec;
  config.fleet = {};
  config.fleet.traits = traits;
  config.fleet.codec = codec;
  const std::string common = plans.size() == 1 ? *plans.begin() : "";
  std::erase_if(config.client.classes,
                [&](const ClientClassConfig& one) { return one.name != common; });
  if (!common.empty()) {
    config.fleet.classes = {traits};
    config.fleet.classes.front().name = common;
    config.fleet.classes.front().share = 1;
  }
  return config;
}

/// What a simulation did, as a server would have recorded it; without times, which nobody asks for.
Result<RecordedFleet> simulate(const simulation::Experiment& experiment,
                               const strategies::Registry& registry, const ReplayOptions& options) {
  std::vector<server::FleetEvent> events;
  simulation::SimulationOptions simulating;
  simulating.threads =
      options.threads > 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  simulating.stop = &stop_on_signal();
  simulating.data_directory = options.run_file.data_directory;
  simulating.on_sent = [&events](ClientId client, const ServerMessage& message) {
    if (const auto* assignment = std::get_if<Assignment>(&message)) {
      events.push_back({0, server::FleetEventKind::kAssigned, client, assignment->round});
    } else if (const auto* accepted = std::get_if<ReportAccepted>(&message)) {
      events.push_back({0, server::FleetEventKind::kAccepted, client, accepted->round});
    }
  };
  simulating.on_round = [&events](const RoundMetrics& metrics) {
    server::FleetEvent event{
        0,
        metrics.committed ? server::FleetEventKind::kCommitted : server::FleetEventKind::kAbandoned,
        std::nullopt, metrics.round};
    event.seconds = seconds(metrics.ended - metrics.started);
    events.push_back(event);
  };
  const auto result = simulation::simulate(experiment, registry, simulating);
  if (!result.ok()) return with_context("the recorded devices in the simulator", result.error());
  if (!result->finished) return failed("stopped before all recorded rounds were simulated");
  return RecordedFleet::make(events, experiment.config);
}

nlohmann::json compare(const std::vector<Comparison>& rounds, const RecordedFleet& fleet) {
  nlohmann::json json = {{"devices", fleet.devices().size()},
                         {"complete", fleet.complete()},
                         {"rounds", nlohmann::json::array()}};
  double recorded_s = 0, simulated_s = 0, overlap = 0;
  std::size_t recorded_accepted = 0, simulated_accepted = 0;
  for (const Comparison& round : rounds) {
    json["rounds"].push_back({{"round", value_of(round.recorded->round)},
                              {"recorded_s", round.recorded->duration_s},
                              {"simulated_s", round.simulated->duration_s},
                              {"recorded_accepted", round.recorded->accepted.size()},
                              {"simulated_accepted", round.simulated->accepted.size()},
                              {"cohort_overlap", round.overlap()}});
    recorded_s += round.recorded->duration_s;
    simulated_s += round.simulated->duration_s;
    recorded_accepted += round.recorded->accepted.size();
    simulated_accepted += round.simulated->accepted.size();
    overlap += round.overlap();
  }
  json["recorded_s"] = recorded_s;
  json["simulated_s"] = simulated_s;
  json["recorded_accepted"] = recorded_accepted;
  json["simulated_accepted"] = simulated_accepted;
  json["cohort_overlap"] = rounds.empty() ? 0 : overlap / static_cast<double>(rounds.size());
  return json;
}

void print(const nlohmann::json& json) {
  fmt::print("{:>6}  {:>12} {:>12}  {:>9} {:>9}  {:>8}\n", "round", "recorded", "simulated",
             "accepted", "simulated", "cohort");
  const auto line = [](const std::string& name, const nlohmann::json& row) {
    fmt::print("{:>6}  {:>10.3f} s {:>10.3f} s  {:>9} {:>9}  {:>6.1f} %\n", name,
               row["recorded_s"].get<double>(), row["simulated_s"].get<double>(),
               row["recorded_accepted"].get<std::size_t>(),
               row["simulated_accepted"].get<std::size_t>(),
               100 * row["cohort_overlap"].get<double>());
  };
  for (const auto& round : json["rounds"]) {
    line(std::to_string(round["round"].get<std::uint32_t>()), round);
  }
  line("all", json);
}

/// In what the simulation is not what the record tells of.
std::vector<std::string> caveats(const RecordedFleet& recorded, const FleetConfig& fleet) {
  std::vector<std::string> sentences;
  if (!recorded.complete()) {
    const auto& rounds = recorded.rounds();
    sentences.push_back(fmt::format(
        "the record begins in the middle of the run{}: rounds before that are missing, and what "
        "devices did then; cohorts are drawn anew for each round's number and need not agree",
        rounds.empty() ? "" : fmt::format(", at round {}", value_of(rounds.front().round))));
  }
  if (recorded.plans().size() > 1) {
    std::vector<std::string> names;
    for (const std::string& name : recorded.plans()) {
      names.push_back(name.empty() ? "none" : name);
    }
    sentences.push_back(fmt::format(
        "devices followed the plans of several classes ({}), and a simulation cannot be told which "
        "device is of which: all follow [client], at speeds that make up for their local-epochs; "
        "their models and updates have the size of [client]'s",
        fmt::join(names, ", ")));
  }
  if (fleet.capacity_trace.empty()) {
    sentences.push_back(
        "the record has no training times (devices do not tell them under secure aggregation or "
        "differential privacy): speeds are those of [fleet]");
  }
  return sentences;
}

Result<int> export_traces(const ReplayOptions& options, const RecordedFleet& fleet,
                          RunConfig config) {
  if (fleet.devices().empty())
    return failed("no device was ever connected: there is nothing to export");
  const auto last = static_cast<std::uint32_t>(value_of(fleet.devices().rbegin()->first));
  COVEY_TRY(simulation::write_traces(fleet, std::max(config.partition.clients, last + 1),
                                     RecordedFleet::Plans::kOwn, options.export_folder,
                                     config.fleet));
  fmt::print(
      "  {} devices over {}; in a run file:\n\n[fleet]\n{}availability-trace = \"{}\"\n",
      fleet.devices().size(), human_seconds(fleet.duration_s()),
      config.fleet.capacity_trace.empty()
          ? ""
          : fmt::format("latency-ms = 0\ncapacity-trace = \"{}\"\n", config.fleet.capacity_trace),
      config.fleet.availability_trace);
  if (!fleet.complete()) {
    fmt::print(
        "\n  the record begins in the middle of the run: what devices did before is missing\n");
  }
  if (options.run_file.json) {
    print_json({{"devices", fleet.devices().size()},
                {"complete", fleet.complete()},
                {"capacity_trace", config.fleet.capacity_trace},
                {"availability_trace", config.fleet.availability_trace}});
  }
  return kExitDone;
}

Result<int> replay(const ReplayOptions& options) {
  COVEY_ASSIGN(RunConfig config, load_config(options));
  COVEY_ASSIGN(const auto events, server::read_fleet_record(options.run_file.path));
  const RecordedFleet recorded = RecordedFleet::make(events, config);
  if (!options.export_folder.empty()) return export_traces(options, recorded, std::move(config));
  const auto before = committed(recorded);
  if (before.empty() || recorded.devices().empty()) {
    return failed(options.run_file.path + "/fleet.csv tells of no committed round yet");
  }
  const auto plans = recorded.plans();
  config = simulated_config(std::move(config), static_cast<std::uint32_t>(before.size()), plans);
  COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto models, model_source(config, options.run_file.data_directory));
  COVEY_ASSIGN(auto experiment,
               simulation::load_experiment(config, options.run_file.data_directory, models));
  const std::uint32_t population = experiment.population();
  if (value_of(recorded.devices().rbegin()->first) >= population) {
    return malformed(fmt::format("{}/fleet.csv tells of device {}, the run file has {} of them",
                                 options.run_file.path,
                                 value_of(recorded.devices().rbegin()->first), population));
  }
  const TraceFolder traces;
  FleetConfig& fleet = experiment.config.fleet;
  COVEY_TRY(simulation::write_traces(
      recorded, population,
      plans.size() > 1 ? RecordedFleet::Plans::kCommon : RecordedFleet::Plans::kOwn, traces.path(),
      fleet));
  COVEY_ASSIGN(const RecordedFleet simulated, simulate(experiment, registry, options));
  const auto after = committed(simulated);
  std::vector<Comparison> rounds;
  for (std::size_t i = 0; i < std::min(before.size(), after.size()); ++i) {
    rounds.push_back({before[i], after[i]});
  }
  nlohmann::json json = compare(rounds, recorded);
  print(json);
  json["caveats"] = caveats(recorded, fleet);
  for (const auto& sentence : json["caveats"]) {
    fmt::print("  note: {}\n", sentence.get<std::string>());
  }
  if (options.run_file.json) print_json(json);
  return kExitDone;
}

}  // namespace

void add_replay_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<ReplayOptions>();
  CLI::App* command = app.add_subcommand(
      "replay", "Simulates a server's recorded run with the devices that it had");
  command->add_option("state", options->run_file.path, "The server's folder (covey server --state)")
      ->required();
  command
      ->add_option(
          "--export-traces", options->export_folder,
          "Writes the devices as capacity.json and availability.json, and simulates nothing")
      ->type_name("DIR");
  command->add_option("--data", options->run_file.data_directory, "Directory with the data sets")
      ->envname("COVEY_DATA")
      ->type_name("DIR");
  command->add_option("--threads", options->threads, "Threads; the result does not depend on it")
      ->check(CLI::Range(1u, 1024u));
  command->add_flag("--json", options->run_file.json, "Ends standard output with one JSON object");
  command->footer("Example: covey replay runs/fleet-server");
  command->callback([options, &run] {
    run = [options] {
      const auto code = replay(*options);
      return code.ok() ? *code : report_error(code.error(), options->run_file.json);
    };
  });
}

}  // namespace covey
