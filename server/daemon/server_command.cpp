#include "server/daemon/server_command.hpp"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <cstring>
#include <random>
#include <sstream>
#include <thread>

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <covey/server/fleet_record.hpp>
#include <covey/server/standing.hpp>
#include <covey/simulation/evaluation.hpp>
#include <covey/simulation/experiment.hpp>

#include "server/daemon/driver.hpp"
#include "server/daemon/kit.hpp"
#include "server/daemon/provision_files.hpp"
#include "simulation/daemon/command_line.hpp"
#include "simulation/daemon/learning_curve.hpp"
#include "simulation/daemon/model_source.hpp"
#include "simulation/daemon/run_folder.hpp"

namespace covey {
namespace {

struct ServerOptions {
  RunFileOptions run_file;
  std::string kit;
  std::string state;
  std::string listen;
  bool verbose = false;
};

/// The first line in which two configurations differ, apart from what a restart may change: where the
/// server listens and keeps things, how long the run is, and when it is evaluated.
std::string first_difference(const std::string& stored, const std::string& now) {
  const auto significant = [](const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    std::string line, table;
    while (std::getline(in, line)) {
      if (line.starts_with("[")) table = line;
      const bool may_change = table == "[server]" || line.starts_with("num-rounds") ||
                              line.starts_with("eval-every") || line.starts_with("stop-at-target") ||
                              line.starts_with("target-accuracy");
      if (!may_change && !line.empty()) lines.push_back(line);
    }
    return lines;
  };
  const auto a = significant(stored), b = significant(now);
  for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    const std::string was = i < a.size() ? a[i] : "", is = i < b.size() ? b[i] : "";
    if (was != is) return "it has \"" + was + "\", the run file \"" + is + "\"";
  }
  return "";
}

/// Where the run in the store stands; a new one is put there.
Result<server::StoredStanding> open_run(server::Store& store, const simulation::Experiment& experiment,
                                        const std::string& state) {
  const std::string config = to_toml(experiment.config);
  COVEY_ASSIGN(auto standing, server::restore(store, [&] {
    server::StoredRun fresh;
    std::random_device device;
    fresh.run = static_cast<RunId>((static_cast<std::uint64_t>(device()) << 32) | device());
    fresh.config_toml = config;
    fresh.model = encode_fp32(experiment.initial_model().span());
    return fresh;
  }));
  const std::string difference = first_difference(standing.run.config_toml, config);
  if (!difference.empty()) {
    return invalid_argument(state + " holds a run with another configuration: " + difference +
                            "; use that run file or another --state");
  }
  return standing;
}

AggregationId fresh_aggregation_id() {
  AggregationId id;
  std::random_device device;
  for (std::size_t i = 0; i < id.bytes.size(); i += 4) {
    const std::uint32_t word = device();
    std::memcpy(&id.bytes[i], &word, sizeof word);
  }
  return id;
}

Result<simulation::ServerParts> make_parts(const simulation::Experiment& experiment,
                                           std::unique_ptr<strategies::Strategy> strategy,
                                           const server::StoredRun& run) {
  simulation::ServerStart start;
  start.model = ParameterVector(experiment.layout.size());
  const auto decoded = decode_fp32(run.model.span(), start.model.span());
  if (!decoded.ok()) return with_context("the stored model does not fit the run file", decoded.error());
  start.state = run.strategy_state;
  start.secrets = privacy::system_secrets();
  start.make_aggregation_id = fresh_aggregation_id;
  start.threads = std::max(1u, std::thread::hardware_concurrency());
  return simulation::make_server_parts(experiment, std::move(strategy), std::move(start));
}

void log_privacy(const std::optional<server::PrivacyStatus>& privacy) {
  if (!privacy) return;
  spdlog::info("differential privacy: noise multiplier {:.4g}, delta {:.3g}, {}",
               privacy->noise_multiplier, privacy->spent.delta, privacy->guarantee);
}

/// What a deployed coordinator has beside the run file: a secret draw, and the authority of identities.
Result<void> arm_coordinator(const RunConfig& config, const transport::TlsFiles& tls,
                             server::CoordinatorOptions& coordinator) {
  if (config.privacy.mechanism != "none" && config.privacy.amplification) {
    const auto secrets = privacy::system_secrets();
    std::uint64_t seed = 0;
    COVEY_TRY(secrets->fill(std::as_writable_bytes(std::span(&seed, 1))));
    coordinator.selection_seed = seed;
  }
  if (config.secure_aggregation.mode != "off") {
    COVEY_ASSIGN(const std::string certificate, provision::read_file(tls.ca));
    COVEY_ASSIGN(coordinator.authority,
                 privacy::AuthorityKey::from_certificate_pem(certificate));
  }
  return {};
}

nlohmann::json result_json(const RunConfig& config, const server::Driver& driver,
                           const std::vector<RoundMetrics>& rounds, double wall_s) {
  nlohmann::json json = {{"rounds", value_of(driver.coordinator().committed_round())},
                         {"finished", driver.finished() && driver.finished()->ok &&
                                          driver.finished()->reason != "stopped"},
                         {"reason", driver.finished() ? driver.finished()->reason : ""},
                         {"seed", config.seed},
                         {"model_sha256", driver.coordinator().model().digest().hex()},
                         {"wall_s", wall_s},
                         {"bytes_up", driver.bytes_received()},
                         {"bytes_down", driver.bytes_sent()},
                         {"peak_rss_mib", peak_rss_mib()},
                         {"accuracy", nullptr},
                         {"loss", nullptr},
                         {"target", nullptr},
                         {"rounds_to_target", nullptr}};
  if (const auto privacy = driver.coordinator().privacy_status()) {
    json["epsilon"] = privacy->spent.epsilon;
    json["delta"] = privacy->spent.delta;
    json["guarantee"] = privacy->guarantee;
  }
  for (const RoundMetrics& metrics : rounds) {
    if (metrics.accuracy) json["accuracy"] = *metrics.accuracy;
    if (metrics.loss) json["loss"] = *metrics.loss;
  }
  if (config.target_accuracy > 0) json["target"] = config.target_accuracy;
  if (const auto reached = rounds_to_target(config, rounds)) json["rounds_to_target"] = *reached;
  return json;
}

void start_logging(bool verbose) {
  auto logger = spdlog::stderr_color_mt("covey");
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
  logger->set_level(verbose ? spdlog::level::debug : spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

server::Driver::Options driver_options(const RunConfig& config, const ServerOptions& options,
                                       transport::TlsFiles tls) {
  server::Driver::Options result;
  result.listener.address = options.listen.empty() ? config.server.listen : options.listen;
  result.listener.tls = std::move(tls);
  result.listener.max_connections = config.server.max_connections;
  constexpr std::uint64_t kOwnFiles = 64;  // store, spool, logs
  const std::uint64_t files = raise_file_limit();
  if (files < config.server.max_connections) {
    result.listener.max_connections = static_cast<std::uint32_t>(files > 2 * kOwnFiles ? files - kOwnFiles : files / 2);
    spdlog::warn("this process may open {} files (ulimit -n): at most {} connections instead of {}",
                 files, result.listener.max_connections, config.server.max_connections);
  }
  result.listener.limits.max_frame_bytes = config.server.max_frame_bytes;
  // A peer may leave unread what it asked for, and a little more.
  result.listener.limits.max_queued_bytes =
      (kMaxOutstandingRequests + 1) * std::uint64_t{config.server.chunk_bytes} + (64 << 10);
  // A waiting device checks in again every five minutes; one that says nothing for three of them is gone.
  result.listener.limits.idle_timeout = std::chrono::minutes(15);
  result.keep_snapshots = config.server.keep_snapshots;
  return result;
}

double unix_now_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Result<int> serve(const ServerOptions& options) {
  COVEY_ASSIGN(const RunConfig config, options.run_file.load());
  COVEY_ASSIGN(auto tls, load_server_kit(options.kit));
  COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto models, model_source(config, options.run_file.data_directory));
  COVEY_ASSIGN(const auto experiment,
               simulation::load_server_experiment(config, options.run_file.data_directory, models));
  COVEY_ASSIGN(auto strategy, registry.make(config.strategy.name, config.strategy.parameters));
  const std::string state = options.state.empty() ? "runs/" + config.name + "-server" : options.state;
  std::error_code error;
  std::filesystem::create_directories(state, error);
  if (error) return failed("cannot make the folder " + state + ": " + error.message());
  COVEY_ASSIGN(auto store, server::Store::open(state + "/store.sqlite"));
  COVEY_ASSIGN(const auto found, open_run(store, experiment, state));
  const server::StoredRun& run = found.run;
  COVEY_ASSIGN(auto parts, make_parts(experiment, std::move(strategy), run));
  auto& [pipeline, coordinator_options] = parts;
  server::RunState standing = server::run_state(found, pipeline);
  COVEY_TRY(arm_coordinator(config, tls, coordinator_options));
  auto rounds = server::published_rounds(found, config, coordinator_options.evaluates);
  COVEY_ASSIGN(auto folder, RunFolder::reopen(state, config, rounds));
  COVEY_ASSIGN(auto spool, server::make_file_spool(state + "/spool"));

  start_logging(options.verbose);
  if (!coordinator_options.evaluates) {
    if (config.stop_at_target) {
      return invalid_argument("run.stop-at-target needs test data, and there is none; name it with --data");
    }
    spdlog::warn("no test data: models are not evaluated (name it with --data or COVEY_DATA)");
  }
  transport::EventLoop loop;
  std::optional<simulation::Evaluator> evaluator;  // its workspaces are many times the model
  auto driving = driver_options(config, options, std::move(tls));
  if (coordinator_options.evaluates) {
    COVEY_ASSIGN(evaluator,
                 simulation::Evaluator::make(experiment.plan, experiment.make_engine,
                                             std::max(1u, std::thread::hardware_concurrency())));
    driving.evaluate = [&](std::span<const float> model) {
      const auto figures = evaluator->evaluate(experiment.data.test, model);
      return std::pair{figures.accuracy(), figures.loss()};
    };
  }
  driving.on_round = [&](const RoundMetrics& metrics) {
    rounds.push_back(metrics);
    const auto written = folder.append(metrics);
    if (!written.ok()) spdlog::error("{}", written.error().message);
  };
  COVEY_ASSIGN(auto record, server::FleetRecord::open({state, loop.now(), unix_now_s()}));
  driving.record = &record;
  const auto began = std::chrono::steady_clock::now();
  server::Driver driver(loop, std::move(driving), std::move(coordinator_options),
                        std::move(standing), std::move(pipeline), std::move(spool),
                        std::move(store));
  loop.on_termination([&](int) {
    spdlog::info("stopping");
    driver.stop();
  });
  log_privacy(driver.privacy_status());
  COVEY_TRY(driver.start());
  spdlog::info("listening port={} run={:016x} round={} state={}", driver.port(), value_of(run.run),
               value_of(run.round), state);
  loop.run();

  if (driver.finished()) {
    spdlog::log(driver.finished()->ok ? spdlog::level::info : spdlog::level::err,
                "run over reason=\"{}\"", driver.finished()->reason);
  }
  if (record.problem()) spdlog::warn("no record for `covey replay`: {}", record.problem()->message);
  const double wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const auto json = result_json(config, driver, rounds, wall_s);
  COVEY_TRY(folder.write_model(driver.coordinator().model(), experiment.layout));
  COVEY_TRY(folder.write_result(json));
  COVEY_TRY(folder.write_pictures(config, rounds));
  spdlog::info("model {} in {}/", driver.coordinator().model().digest().hex(), state);
  if (options.run_file.json) print_json(json);
  return driver.finished() && driver.finished()->ok ? kExitDone : kExitFailed;
}

}  // namespace

void add_server_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<ServerOptions>();
  CLI::App* command = app.add_subcommand("server", "Aggregates the updates of devices over TLS");
  add_run_file_options(*command, options->run_file);
  command->add_option("--kit", options->kit, "The server's kit, made by `covey provision create`")
      ->required()
      ->type_name("DIR");
  command->add_option("--state", options->state,
                      "Folder of the store and the results; a run in it goes on. Default "
                      "runs/<run.name>-server");
  command->add_option("--listen", options->listen, "HOST:PORT instead of server.listen; port 0 picks one");
  command->add_flag("--verbose", options->verbose, "Logs connections as well");
  command->footer("Example: covey server examples/03_tls_fleet/run.toml --kit kits/server");
  command->callback([options, &run] {
    run = [options] {
      const auto code = serve(*options);
      return code.ok() ? *code : report_error(code.error(), options->run_file.json);
    };
  });
}

}  // namespace covey
