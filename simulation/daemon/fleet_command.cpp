#include "fleet_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/simulation/plot.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "command_line.hpp"
#include "simulation/devices/fleet_day.hpp"

namespace covey {
namespace {

using simulation::DeviceModels;
using simulation::FleetDay;

// Enough for shares to within half a percent, in a fraction of a second.
constexpr std::uint32_t kMostCounted = 20000;
// Where the data say how many devices there are (every user one), which are not loaded here.
constexpr std::uint32_t kUnknownPopulation = 1000;

struct FleetOptions {
  RunFileOptions file;
  double hours = 24;
  std::uint32_t devices = 0;
  std::string out;
};

std::string range_text(double min, double max) {
  if (min == max) return fmt::format("{:g}", min);
  return fmt::format("{:g}-{:g}", min, max);
}

/// "-" where 0 says that there is no limit.
std::string limit_text(double min, double max) { return max > 0 ? range_text(min, max) : "-"; }

double total_share(const std::vector<DeviceClassConfig>& classes) {
  double total = 0;
  for (const DeviceClassConfig& one : classes) total += one.share;
  return total;
}

std::string class_table(const DeviceModels& models, const FleetConfig& fleet) {
  constexpr std::string_view kLine =
      "{:<12} {:>6} {:>10} {:>9} {:>10} {:>11} {:>11} {:>8} {:>6}  {}\n";
  std::string out = fmt::format(kLine, "class", "share", "GFLOP/s", "up Mb/s", "down Mb/s",
                                "latency ms", "memory MiB", "battery", "watts", "there");
  const double total = total_share(models.classes());
  const bool speeds_traced = !fleet.capacity_trace.empty();
  const auto traced = [&](std::string text) { return speeds_traced ? "trace" : text; };
  for (std::uint32_t i = 0; i < models.classes().size(); ++i) {
    const DeviceClassConfig& one = models.classes()[i];
    const std::string_view name = models.class_name(i);
    out += fmt::format(kLine, name.empty() ? "device" : name,
                       fmt::format("{:.3g}%", 100 * one.share / total),
                       traced(range_text(one.gflops_min, one.gflops_max)),
                       traced(limit_text(one.up_mbit_s_min, one.up_mbit_s_max)),
                       traced(limit_text(one.down_mbit_s_min, one.down_mbit_s_max)),
                       range_text(one.latency_ms_min, one.latency_ms_max),
                       limit_text(one.memory_mib_min, one.memory_mib_max),
                       one.battery_wh > 0 ? fmt::format("{:g} Wh", one.battery_wh) : "mains",
                       fmt::format("{:g}", one.compute_watts),
                       fleet.availability_trace.empty() ? one.availability : "trace");
  }
  if (speeds_traced) out += "speeds and bandwidths: " + fleet.capacity_trace + "\n";
  if (!fleet.availability_trace.empty()) out += "availability: " + fleet.availability_trace + "\n";
  return out;
}

nlohmann::json class_json(const DeviceModels& models) {
  nlohmann::json classes = nlohmann::json::array();
  const double total = total_share(models.classes());
  for (const DeviceClassConfig& one : models.classes()) {
    const auto range = [](double min, double max) { return nlohmann::json::array({min, max}); };
    classes.push_back({{"name", one.name},
                       {"share", one.share / total},
                       {"gflops", range(one.gflops_min, one.gflops_max)},
                       {"up_mbit_s", range(one.up_mbit_s_min, one.up_mbit_s_max)},
                       {"down_mbit_s", range(one.down_mbit_s_min, one.down_mbit_s_max)},
                       {"latency_ms", range(one.latency_ms_min, one.latency_ms_max)},
                       {"memory_mib", range(one.memory_mib_min, one.memory_mib_max)},
                       {"availability", one.availability},
                       {"battery_wh", one.battery_wh},
                       {"compute_watts", one.compute_watts},
                       {"radio_joules_per_mb", one.radio_joules_per_mb}});
  }
  return classes;
}

simulation::Plot share_plot(const FleetDay& day, const std::string& name, double start_hour) {
  simulation::Plot plot{name + ": devices there (%)", "hour, coordinated time", "%", {}};
  plot.curves = {{"online", {}}, {"charging and unmetered", {}}};
  for (std::size_t i = 0; i < day.online.size(); ++i) {
    const double hour = start_hour + static_cast<double>(i) * seconds(day.step) / 3600;
    plot.curves[0].points.emplace_back(hour, 100 * day.online[i]);
    plot.curves[1].points.emplace_back(hour, 100 * day.charging[i]);
  }
  return plot;
}

Result<std::vector<std::string>> write_pictures(const FleetDay& day, const DeviceModels& models,
                                                const RunConfig& config, const std::string& out) {
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) return failed("cannot make the folder " + out + ": " + error.message());
  std::vector<std::string> pictures;
  for (const char* name : {"fleet.svg", "fleet.png"}) {
    const std::string path = (std::filesystem::path(out) / name).string();
    COVEY_TRY(simulation::write_fleet_picture(day, models, config.name + ": who is there when",
                                              config.fleet.start_hour, path));
    pictures.push_back(path);
  }
  return pictures;
}

Result<int> show(const FleetOptions& options) {
  COVEY_ASSIGN(const RunConfig config, options.file.load());
  const std::uint32_t population = config.partition.clients > 0
                                       ? config.partition.clients
                                       : std::max(options.devices, kUnknownPopulation);
  if (options.devices > population) {
    return invalid_argument(fmt::format("--devices {}: the run file has {} (partition.clients)",
                                        options.devices, population));
  }
  COVEY_ASSIGN(const DeviceModels models,
               DeviceModels::make(config, options.file.data_directory, population));
  simulation::FleetDayOptions look;
  look.length = from_seconds(3600 * options.hours);
  // As fine as a picture shows, and no finer than surroundings change.
  look.step = std::max<Duration>(look.length / 400, std::chrono::minutes(1));
  look.population = population;
  look.devices = options.devices > 0 ? options.devices : std::min(population, kMostCounted);
  const FleetDay day = simulation::observe_day(models, look);

  std::fputs(class_table(models, config.fleet).c_str(), stdout);
  std::fputs("\n", stdout);
  const auto plot = share_plot(day, config.name, config.fleet.start_hour);
  std::fputs(simulation::draw_in_terminal(plot).c_str(), stdout);
  const auto [lowest, highest] = std::ranges::minmax_element(day.charging);
  std::printf("charging and unmetered: %.1f%% to %.1f%% of %llu devices\n", 100 * *lowest,
              100 * *highest, static_cast<unsigned long long>(look.devices));
  std::vector<std::string> pictures;
  if (!options.out.empty()) {
    COVEY_ASSIGN(pictures, write_pictures(day, models, config, options.out));
    for (const std::string& picture : pictures) std::printf("wrote %s\n", picture.c_str());
  }
  if (options.file.json) {
    print_json({{"run", config.name},
                {"population", population},
                {"devices", look.devices},
                {"classes", class_json(models)},
                {"start_hour", config.fleet.start_hour},
                {"step_s", seconds(day.step)},
                {"online", day.online},
                {"charging", day.charging},
                {"pictures", pictures}});
  }
  return kExitDone;
}

}  // namespace

void add_fleet_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<FleetOptions>();
  CLI::App* command =
      app.add_subcommand("fleet", "Shows the devices of a run file, and who of them is there when");
  add_run_file_options(*command, options->file);
  command->add_option("--hours", options->hours, "Virtual time to look at, in hours")
      ->check(CLI::Range(0.1, 10000.0))
      ->capture_default_str();
  command->add_option("--devices", options->devices,
                      "Devices to count, spread over the fleet; all, at most 20000, unless given");
  command->add_option("--out", options->out, "Folder for fleet.svg and fleet.png")
      ->type_name("DIR");
  command->footer("Example: covey fleet examples/12_phones/run.toml --out runs/phones");
  command->callback([options, &run] {
    run = [options] {
      const auto code = show(*options);
      return code.ok() ? *code : report_error(code.error(), options->file.json);
    };
  });
}

}  // namespace covey
