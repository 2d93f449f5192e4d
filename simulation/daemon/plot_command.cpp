#include "plot_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/simulation/plot.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "command_line.hpp"
#include "run_curves.hpp"

namespace covey {
namespace {

namespace fs = std::filesystem;

struct PlotOptions {
  std::vector<std::string> folders;
  CurveAxes axes;
  std::string out;
  std::string title;
  bool mean = false;
  bool json = false;
};

/// The folder's name, with the one above where that alone says what was run (sweep/case/seed-3).
std::string name_of(const std::string& folder) {
  auto path = fs::path(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const std::string name = path.filename().string();
  return name.starts_with("seed-") ? (path.parent_path().filename() / name).string() : name;
}

/// Runs that differ only in the seed.
struct Group {
  std::string settings;
  std::vector<std::string> folders;
  std::vector<simulation::Curve> runs;
};

Result<std::vector<Group>> group_by_settings(const PlotOptions& options) {
  std::vector<Group> groups;
  for (const std::string& folder : options.folders) {
    COVEY_ASSIGN(const std::string settings, settings_of_run(folder));
    COVEY_ASSIGN(auto curve, read_curve(folder, options.axes));
    auto group = std::ranges::find(groups, settings, &Group::settings);
    if (group == groups.end()) group = groups.insert(groups.end(), {settings, {}, {}});
    group->folders.push_back(folder);
    if (!curve.points.empty()) group->runs.push_back(std::move(curve));
  }
  return groups;
}

/// Adds the curves to the plot and what they were made of to the summary.
Result<void> add_means(const PlotOptions& options, simulation::Plot& plot,
                       nlohmann::json& summary) {
  COVEY_ASSIGN(const auto groups, group_by_settings(options));
  for (const Group& group : groups) {
    const auto above = fs::path(group.folders.front()).lexically_normal().parent_path().filename();
    const std::string name = name_of(group.folders.front());
    // sweep/case/seed-1, seed-2, ... is the case; other runs have but the first one's name.
    const bool of_a_sweep = name.find("/seed-") != std::string::npos;
    const std::string label =
        fmt::format("{} ({} {})", of_a_sweep ? above.string() : name, group.runs.size(),
                    group.runs.size() == 1 ? "run" : "runs");
    plot.curves.push_back(simulation::mean_curve(group.runs, label));
    summary.push_back({{"folders", group.folders}, {"points", plot.curves.back().points.size()}});
  }
  return {};
}

Result<void> add_runs(const PlotOptions& options, simulation::Plot& plot, nlohmann::json& summary) {
  for (const std::string& folder : options.folders) {
    COVEY_ASSIGN(auto curve, read_curve(folder, options.axes));
    curve.label = name_of(folder);
    summary.push_back({{"folder", folder}, {"points", curve.points.size()}});
    plot.curves.push_back(std::move(curve));
  }
  return {};
}

Result<int> draw(const PlotOptions& options) {
  COVEY_TRY(check_axes(options.axes));
  simulation::Plot plot;
  plot.x_label = axis_label(options.axes.x);
  plot.y_label = axis_label(options.axes.y);
  plot.title = options.title.empty() ? plot.y_label : options.title;
  nlohmann::json summary = nlohmann::json::array();
  COVEY_TRY(options.mean ? add_means(options, plot, summary) : add_runs(options, plot, summary));
  if (std::ranges::all_of(plot.curves, [](const auto& curve) { return curve.points.empty(); })) {
    return not_found(
        fmt::format("no round of these runs tells {} over {}", options.axes.y, options.axes.x));
  }
  std::fputs(simulation::draw_in_terminal(plot).c_str(), stdout);
  if (!options.out.empty()) COVEY_TRY(simulation::write_picture(plot, options.out));
  if (options.json) print_json({{"curves", summary}, {"picture", options.out}});
  return kExitDone;
}

}  // namespace

void add_plot_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<PlotOptions>();
  CLI::App* command =
      app.add_subcommand("plot", "Draws the learning curves of runs into one picture");
  command->add_option("folders", options->folders, "Folders that runs wrote")->required();
  command
      ->add_option("--x", options->axes.x, "round, hours (virtual), bytes, updates, wall or energy")
      ->capture_default_str();
  command
      ->add_option("--y", options->axes.y,
                   "A key of metrics.jsonl, as accuracy, loss, train_loss, epsilon or worst10")
      ->capture_default_str();
  command->add_flag(
      "--mean", options->mean,
      "Runs that differ only in the seed become one curve: their mean, in a band of one "
      "standard deviation");
  command->add_option("--out", options->out, "Picture to write: .svg or .png");
  command->add_option("--title", options->title, "Title of the picture; default: what y is");
  command->add_flag("--json", options->json, "Ends standard output with one JSON object");
  command->footer("Example: covey plot runs/q0 runs/q1 --x hours --y loss --out loss.svg");
  command->callback([options, &run] {
    run = [options] {
      const auto code = draw(*options);
      return code.ok() ? *code : report_error(code.error(), options->json);
    };
  });
}

}  // namespace covey
