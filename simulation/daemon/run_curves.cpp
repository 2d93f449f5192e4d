#include "run_curves.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <covey/metrics.hpp>
#include <covey/run_config.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string_view>

namespace covey {
namespace {

/// What all rounds up to one add up to.
struct Progress {
  double hours = 0;  ///< virtual time in the simulator; a server's since its first round began
  double megabytes = 0;
  double updates = 0;
  std::optional<double> wall_s;
  std::optional<double> energy_kj;
};

struct Axis {
  std::string_view name, label;
  std::optional<double> (*value)(const Progress&);
};

constexpr std::array kProgressAxes{
    Axis{"hours", "virtual time (h)", [](const Progress& p) { return std::optional(p.hours); }},
    Axis{"bytes", "sent and received (MB)",
         [](const Progress& p) { return std::optional(p.megabytes); }},
    Axis{"updates", "updates of devices",
         [](const Progress& p) { return std::optional(p.updates); }},
    Axis{"wall", "wall time (s)", [](const Progress& p) { return p.wall_s; }},
    Axis{"energy", "energy of devices (kJ)", [](const Progress& p) { return p.energy_kj; }},
};

struct Label {
  std::string_view name, label;
};
constexpr std::array kLabels{
    Label{"accuracy", "test accuracy (%)"},
    Label{"loss", "test loss"},
    Label{"train_loss", "training loss"},
    Label{"average", "mean accuracy of devices (%)"},
    Label{"worst10", "accuracy of the worst 10% of devices (%)"},
    Label{"best10", "accuracy of the best 10% of devices (%)"},
    Label{"variance", "variance of devices' accuracy"},
};

const Axis* progress_axis(const std::string& name) {
  const auto* found = std::ranges::find(kProgressAxes, name, &Axis::name);
  return found == kProgressAxes.end() ? nullptr : found;
}

/// Keys of metrics.jsonl, with those of its object `devices` as they are asked for.
std::vector<std::string> metric_names() {
  std::vector<std::string> names;
  std::istringstream columns(csv_header());
  for (std::string name; std::getline(columns, name, ',');) {
    const std::string_view devices = "devices.";
    names.push_back(name.starts_with(devices) ? name.substr(devices.size()) : name);
  }
  return names;
}

void advance(Progress& progress, const nlohmann::json& line, std::optional<double>& last_ended_s) {
  const double started_s = line.value("started_s", 0.0), ended_s = line.value("ended_s", 0.0);
  progress.megabytes += (line.value("bytes_up", 0.0) + line.value("bytes_down", 0.0)) / 1e6;
  progress.updates += line.value("accepted", 0.0);
  if (line.contains("wall_s")) {  // the simulator's: its clock began with the run
    progress.wall_s = line.value("wall_s", 0.0);
    progress.hours = ended_s / 3600;
  } else {  // a server's clock began at any time, and begins anew with its machine
    const bool goes_on = last_ended_s && *last_ended_s <= started_s;
    progress.hours += (ended_s - (goes_on ? *last_ended_s : started_s)) / 3600;
  }
  last_ended_s = ended_s;
  if (line.contains("energy_j")) {
    progress.energy_kj = progress.energy_kj.value_or(0) + line.value("energy_j", 0.0) / 1e3;
  }
}

std::optional<double> number_at(const nlohmann::json& line, const std::string& key) {
  const auto found = line.find(key);
  if (found == line.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::optional<double> value_on(const std::string& name, const nlohmann::json& line,
                               const Progress& progress) {
  if (const Axis* axis = progress_axis(name)) return axis->value(progress);
  if (name == "accuracy") {
    const auto share = number_at(line, name);
    return share ? std::optional(100 * *share) : std::nullopt;
  }
  if (const auto value = number_at(line, name)) return value;
  const auto devices = line.find("devices");
  return devices != line.end() && devices->is_object() ? number_at(*devices, name) : std::nullopt;
}

/// A number, where there is one, is a number.
bool is_line(const nlohmann::json& line) {
  if (!line.is_object() || !line.contains("round") || !line["round"].is_number()) return false;
  if (line.contains("committed") && !line["committed"].is_boolean()) return false;
  return std::ranges::all_of(
      std::array{"started_s", "ended_s", "bytes_up", "bytes_down", "accepted", "wall_s",
                 "energy_j"},
      [&](const char* key) { return !line.contains(key) || line[key].is_number(); });
}

}  // namespace

Result<void> check_axes(const CurveAxes& axes) {
  std::string shared = "round";
  for (const Axis& axis : kProgressAxes) shared += fmt::format(", {}", axis.name);
  if (axes.x != "round" && progress_axis(axes.x) == nullptr) {
    return invalid_argument(fmt::format("x cannot be \"{}\"; it is one of {}", axes.x, shared));
  }
  const auto names = metric_names();
  if (progress_axis(axes.y) != nullptr || std::ranges::find(names, axes.y) != names.end())
    return {};
  std::string all = shared;
  for (const std::string& name : names) {
    if (name != "round") all += ", " + name;
  }
  return invalid_argument(fmt::format("y cannot be \"{}\"; it is one of {}", axes.y, all));
}

std::string axis_label(const std::string& name) {
  if (const Axis* axis = progress_axis(name)) return std::string(axis->label);
  const auto* found = std::ranges::find(kLabels, name, &Label::name);
  return found == kLabels.end() ? name : std::string(found->label);
}

Result<simulation::Curve> read_curve(const std::string& folder, const CurveAxes& axes) {
  const std::string path = folder + "/metrics.jsonl";
  std::ifstream file(path);
  if (!file)
    return not_found("no " + path + "; name folders that `covey simulate` or `server` wrote");
  simulation::Curve curve;
  Progress progress;
  std::optional<double> last_ended_s;
  std::string text;
  for (int number = 1; std::getline(file, text); ++number) {
    const auto line = nlohmann::json::parse(text, nullptr, false);
    if (file.eof() && line.is_discarded()) break;  // it has no end yet
    if (!is_line(line)) {
      return malformed(path + ":" + std::to_string(number) + ": not a line of metrics");
    }
    advance(progress, line, last_ended_s);
    if (!line.value("committed", true)) continue;
    const auto x = value_on(axes.x, line, progress), y = value_on(axes.y, line, progress);
    if (x && y) curve.points.emplace_back(*x, *y);
  }
  return curve;
}

Result<std::string> settings_of_run(const std::string& folder) {
  COVEY_ASSIGN(RunConfig config, load_run_file(folder + "/run.toml", {}));
  config.seed = 1;
  config.name = "run";
  return to_toml(config);
}

}  // namespace covey
