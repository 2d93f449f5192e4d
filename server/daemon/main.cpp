#include <algorithm>
#include <csignal>
#include <functional>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "client/daemon/bench_command.hpp"
#include "client/daemon/client_command.hpp"
#include "models/daemon/export_command.hpp"
#include "models/daemon/inspect_command.hpp"
#include "privacy/daemon/bench_keystream_command.hpp"
#include "privacy/daemon/bench_secagg_command.hpp"
#include "privacy/daemon/privacy_command.hpp"
#include "server/daemon/provision_command.hpp"
#include "server/daemon/server_command.hpp"
#include "server/daemon/status_command.hpp"
#include "simulation/daemon/command_line.hpp"
#include "simulation/daemon/mpi_ranks.hpp"
#include "simulation/daemon/fleet_command.hpp"
#include "simulation/daemon/plot_command.hpp"
#include "simulation/daemon/replay_command.hpp"
#include "simulation/daemon/simulate_command.hpp"
#include "simulation/daemon/sweep_command.hpp"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app{"Covey: federated learning. Models learn from data that stays where it was born."};
  app.set_version_flag("--version", "covey " COVEY_VERSION);
  app.require_subcommand(1);
  app.footer("Start with: covey simulate examples/01_quickstart/run.toml");
  std::function<int()> run;
  covey::add_simulate_command(app, run);
  covey::add_sweep_command(app, run);
  covey::add_server_command(app, run);
  covey::add_client_command(app, run);
  covey::add_provision_command(app, run);
  covey::add_status_command(app, run);
  covey::add_plot_command(app, run);
  covey::add_replay_command(app, run);
  covey::add_fleet_command(app, run);
  covey::add_export_command(app, run);
  covey::add_inspect_command(app, run);
  covey::add_privacy_command(app, run);
  covey::add_bench_command(app, run);
  CLI::App& bench = *app.get_subcommand("bench");
  covey::add_keystream_bench(bench, run);
  covey::add_secagg_bench(bench, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (argc > 1 && covey::trains_for_rank_0(argv[1])) return covey::kExitDone;  // rank 0 tells
    if (app.exit(error) == 0) return covey::kExitDone;
    const std::vector<std::string_view> arguments(argv + 1, argv + argc);
    if (std::ranges::find(arguments, "--json") != arguments.end()) {
      covey::print_json({{"error", error.what()}});
    }
    return covey::kExitUsage;
  }
  return run();
}
