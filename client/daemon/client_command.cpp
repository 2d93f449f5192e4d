#include "client/daemon/client_command.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <covey/simulation/experiment.hpp>
#include <covey/simulation/misfortune.hpp>

#include "client/daemon/device_fleet.hpp"
#include "simulation/daemon/command_line.hpp"
#include "simulation/daemon/model_source.hpp"

namespace covey {
namespace {

struct ClientOptions {
  RunFileOptions run_file;
  std::string kit;
  std::string kits = "kits";
  std::uint32_t devices = 0;
  std::uint32_t first_device = 0;
  std::string server;
  std::string torchscript;
  unsigned threads = 1;
  bool echo = false;
  bool verbose = false;
  bool on_battery = false;
  bool metered = false;
  std::string device_class;
  bool drop_out = false;
  std::string require = "run-file";
  client::RequiredPrivacy required_privacy;
};

Result<std::vector<Kit>> load_kits(const ClientOptions& options) {
  std::vector<std::string> folders;
  if (options.devices == 0) {
    if (options.kit.empty()) return invalid_argument("give --kit DIR, or --devices N with --kits DIR");
    folders.push_back(options.kit);
  }
  for (std::uint32_t i = 0; i < options.devices; ++i) {
    folders.push_back(fmt::format("{}/device-{:04}", options.kits, options.first_device + i));
  }
  std::vector<Kit> kits;
  for (const std::string& folder : folders) {
    COVEY_ASSIGN(Kit kit, load_device_kit(folder));
    if (!options.server.empty()) kit.address = options.server;
    kits.push_back(std::move(kit));
  }
  return kits;
}

int conclude(const client::FleetResult& result, bool json) {
  const bool ok = result.finished_ok == result.devices;
  if (!ok) spdlog::error("{}", result.first_problem);
  spdlog::info("done devices={} updates_accepted={} sent={} received={} in {}", result.devices,
               result.rounds_accepted, human_bytes(static_cast<double>(result.bytes_sent)),
               human_bytes(static_cast<double>(result.bytes_received)), human_seconds(result.wall_s));
  if (json) {
    print_json({{"devices", result.devices},
                {"finished_ok", result.finished_ok},
                {"updates_accepted", result.rounds_accepted},
                {"bytes_sent", result.bytes_sent},
                {"bytes_received", result.bytes_received},
                {"wall_s", result.wall_s},
                {"peak_rss_mib", peak_rss_mib()},
                {"problem", result.first_problem}});
  }
  return ok ? kExitDone : kExitFailed;
}

/// The run file, with the network that --torchscript puts in the place of its own.
Result<RunConfig> run_config_of(const ClientOptions& options) {
  RunFileOptions run_file = options.run_file;
  if (!options.torchscript.empty()) {
    // Absolute, so that it is not looked for below the data directory. A JSON string is a TOML one.
    const std::string path = std::filesystem::absolute(options.torchscript).string();
    run_file.overrides.push_back("model.torchscript=" + nlohmann::json(path).dump());
  }
  return run_file.load();
}

ThreatModel threat_model(const std::string& mode) {
  if (mode == to_string(ThreatModel::kMaliciousServer)) return ThreatModel::kMaliciousServer;
  return mode == to_string(ThreatModel::kHonestButCurious) ? ThreatModel::kHonestButCurious
                                                           : ThreatModel::kNone;
}

/// A device takes part in nothing weaker than what its own run file says, and tells how many examples it
/// has only where that decides something.
void keep_private(const RunConfig& config, const ClientOptions& options, client::FleetOptions& fleet) {
  const bool secure = config.secure_aggregation.mode != "off";
  if (options.require == "run-file" && secure) {
    fleet.required_privacy.threat_model = threat_model(config.secure_aggregation.mode);
    fleet.required_privacy.corruption =
        std::max(fleet.required_privacy.corruption, config.secure_aggregation.corruption);
  }
  fleet.hides_num_examples = (secure || config.privacy.mechanism != "none") &&
                             config.selection.policy != "by-examples";
}

/// With room for examples that are generated when they are needed.
struct LocalTrainer : client::SgdTrainer {
  using SgdTrainer::SgdTrainer;
  simulation::Experiment::Scratch scratch;
};

/// Trains on this device's share of the run file's data.
Result<client::FleetResult> train_and_take_part(const ClientOptions& options,
                                                client::FleetOptions fleet) {
  if (options.run_file.path.empty()) {
    return invalid_argument("give the run file whose data this device holds, or --echo for a load test");
  }
  COVEY_ASSIGN(const RunConfig config, run_config_of(options));
  COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto models, model_source(config, options.run_file.data_directory));
  COVEY_ASSIGN(const auto experiment,
               simulation::load_experiment(config, options.run_file.data_directory, models));
  fleet.num_examples = [&](ClientId client) -> std::uint64_t {
    return value_of(client) < experiment.population() ? experiment.num_examples(client) : 0;
  };
  keep_private(config, options, fleet);
  if (options.drop_out) {
    fleet.drop_out.away = from_seconds(config.selection.round_deadline_s);
    fleet.drop_out.leaves_at = [&](ClientId client, const ServerMessage& message) {
      const RoundNumber round = simulation::round_of(message);
      return simulation::begins(simulation::leaves_in(config, round, client, 0), message);
    };
  }
  fleet.make_trainer = [&] {
    return std::make_unique<LocalTrainer>(experiment.data.train, registry, experiment.make_engine);
  };
  fleet.prepare = [&](client::Trainer& trainer, ClientId client) {
    auto& local = static_cast<LocalTrainer&>(trainer);
    const auto examples = experiment.training_examples(client, local.scratch);
    local.use_examples(*examples.data, examples.indices);
  };
  return client::take_part(fleet);
}

Result<client::FleetResult> take_part(const ClientOptions& options) {
  client::FleetOptions fleet;
  COVEY_ASSIGN(fleet.kits, load_kits(options));
  fleet.threads = options.threads;
  fleet.charging = !options.on_battery;
  fleet.metered = options.metered;
  fleet.device_class = options.device_class;
  fleet.required_privacy = options.required_privacy;
  if (options.require != "run-file") fleet.required_privacy.threat_model = threat_model(options.require);
  raise_file_limit();
  if (!options.echo) return train_and_take_part(options, std::move(fleet));
  fleet.num_examples = [](ClientId) { return 1; };
  fleet.make_trainer = [] { return std::make_unique<client::EchoTrainer>(); };
  fleet.prepare = [](client::Trainer&, ClientId) {};
  return client::take_part(fleet);
}

}  // namespace

void add_client_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<ClientOptions>();
  CLI::App* command = app.add_subcommand("client", "Takes part in a run as a device, over TLS");
  add_run_file_options(*command, options->run_file);
  command->get_option("run-file")->required(false)->description(
      "Run file whose data and partition this device holds");
  command->add_option("--kit", options->kit, "This device's kit")->type_name("DIR");
  command->add_option("--devices", options->devices, "So many devices in this process, for load tests");
  command->add_option("--kits", options->kits, "With --devices: folder of their kits")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("--first-device", options->first_device, "With --devices: number of the first one")
      ->capture_default_str();
  command->add_option("--server", options->server, "HOST:PORT instead of the kit's");
  command->add_option("--torchscript", options->torchscript,
                      "TorchScript file to train, instead of the run file's; the server's plan names its "
                      "SHA-256 and no other is trained")
      ->type_name("FILE");
  command->add_option("--threads", options->threads, "Threads that train")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  command->add_flag("--echo", options->echo, "No training: a random update of the model's length");
  command->add_flag("--on-battery", options->on_battery, "Says that this device is not charging");
  command->add_flag("--metered", options->metered, "Says that this device's network is metered");
  command->add_option("--device-class", options->device_class,
                      "Kind of device this is; the server may have a plan of its own for it "
                      "([client.class.NAME])")
      ->type_name("NAME");
  command->add_flag("--drop-out", options->drop_out,
                    "For tests: fails where the run file's fleet.dropout would make a simulated device fail");
  command->add_option("--require-secure-aggregation", options->require,
                      "Declines rounds whose sum is not secure against such a server; run-file: as the run "
                      "file's secure-aggregation.mode says")
      ->check(CLI::IsMember({"run-file", "none", "honest-but-curious", "malicious-server"}))
      ->capture_default_str();
  command->add_option("--min-corruption", options->required_privacy.corruption,
                      "Declines sums that reckon with a smaller share of devices working with the server")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--min-sum", options->required_privacy.min_devices,
                      "Declines sums of fewer devices")
      ->capture_default_str();
  command->add_flag("--verbose", options->verbose, "Logs every step of each device");
  command->footer("Example: covey client examples/03_tls_fleet/run.toml --kit kits/device-0000");
  command->callback([options, &run] {
    run = [options] {
      auto logger = spdlog::stderr_color_mt("covey");
      logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
      // Hundreds of devices that each tell of their rounds drown whatever matters.
      logger->set_level(options->verbose        ? spdlog::level::debug
                        : options->devices <= 1 ? spdlog::level::info
                                                : spdlog::level::warn);
      spdlog::set_default_logger(std::move(logger));
      const auto result = take_part(*options);
      return result.ok() ? conclude(*result, options->run_file.json)
                         : report_error(result.error(), options->run_file.json);
    };
  });
}

}  // namespace covey
