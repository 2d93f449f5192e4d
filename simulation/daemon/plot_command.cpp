#include "plot_command.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>

#include <covey/simulation/plot.hpp>

#include "command_line.hpp"

namespace covey {
namespace {

struct PlotOptions {
  std::vector<std::string> folders;
  std::string out;
  std::string title = "test accuracy";
  bool json = false;
};

Result<simulation::Curve> read_curve(const std::string& folder) {
  const std::string path = folder + "/metrics.jsonl";
  std::ifstream file(path);
  if (!file) return not_found("no " + path + "; name folders that `covey simulate` or `server` wrote");
  simulation::Curve curve{std::filesystem::path(folder).lexically_normal().filename().string(), {}};
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("round") || !json["round"].is_number()) {
      return malformed(path + ":" + std::to_string(number) + ": not a line of metrics");
    }
    if (json.contains("accuracy") && json["accuracy"].is_number()) {
      curve.points.emplace_back(json["round"].get<double>(), 100 * json["accuracy"].get<double>());
    }
  }
  return curve;
}

Result<int> draw(const PlotOptions& options) {
  simulation::Plot plot{options.title, "round", "test accuracy (%)", {}};
  nlohmann::json summary = nlohmann::json::array();
  for (const std::string& folder : options.folders) {
    COVEY_ASSIGN(auto curve, read_curve(folder));
    summary.push_back({{"folder", folder}, {"points", curve.points.size()}});
    plot.curves.push_back(std::move(curve));
  }
  std::fputs(simulation::draw_in_terminal(plot).c_str(), stdout);
  if (!options.out.empty()) COVEY_TRY(simulation::write_picture(plot, options.out));
  if (options.json) print_json({{"curves", summary}, {"picture", options.out}});
  return kExitDone;
}

}  // namespace

void add_plot_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<PlotOptions>();
  CLI::App* command = app.add_subcommand("plot", "Draws the learning curves of runs into one picture");
  command->add_option("folders", options->folders, "Folders that runs wrote")->required();
  command->add_option("--out", options->out, "Picture to write: .svg or .png");
  command->add_option("--title", options->title, "Title of the picture");
  command->add_flag("--json", options->json, "Ends standard output with one JSON object");
  command->footer("Example: covey plot runs/q0 runs/q1 --out fairness.svg");
  command->callback([options, &run] {
    run = [options] {
      const auto code = draw(*options);
      return code.ok() ? *code : report_error(code.error(), options->json);
    };
  });
}

}  // namespace covey
