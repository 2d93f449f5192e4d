#include "sweep_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "command_line.hpp"
#include "run_curves.hpp"
#include "run_summary.hpp"

namespace covey {
namespace {

std::string shown_bytes(double bytes) { return human_bytes(bytes); }
std::string shown_joules(double joules) { return human_joules(joules); }
std::string shown_hours(double hours) { return human_seconds(3600 * hours); }
std::string shown_seconds(double seconds) { return human_seconds(seconds); }
std::string shown_percent(double value) { return fmt::format("{:.2f}", value); }
std::string shown_rounds(double value) { return fmt::format("{:.1f}", value); }
std::string shown_loss(double value) { return fmt::format("{:.4f}", value); }

std::optional<double> at(const nlohmann::json& result, const char* path, double scale) {
  const nlohmann::json::json_pointer pointer(path);
  if (!result.contains(pointer) || !result[pointer].is_number()) return std::nullopt;
  return scale * result[pointer].get<double>();
}

/// A figure of result.json, in the table and for people.
struct Column {
  const char* key;      ///< in table.csv and JSON
  const char* heading;  ///< in the terminal
  const char* path;     ///< in result.json
  double scale;
  std::string (*shown)(double);
  bool spread;  ///< people see its deviation too
};

constexpr std::array kColumns{
    Column{"accuracy", "accuracy %", "/accuracy", 100, shown_percent, true},
    Column{"loss", "loss", "/loss", 1, shown_loss, true},
    Column{"rounds_to_target", "rounds to target", "/rounds_to_target", 1, shown_rounds, true},
    Column{"worst10", "worst 10% %", "/fairness/worst10", 1, shown_percent, true},
    Column{"epsilon", "epsilon", "/epsilon", 1, shown_loss, false},
    Column{"bytes_up", "up", "/bytes_up", 1, shown_bytes, false},
    Column{"bytes_down", "down", "/bytes_down", 1, shown_bytes, false},
    Column{"energy_j", "energy", "/energy_j", 1, shown_joules, false},
    Column{"virtual_hours", "virtual time", "/virtual_s", 1.0 / 3600, shown_hours, false},
    Column{"wall_s", "wall time", "/wall_s", 1, shown_seconds, false},
};

Result<nlohmann::json> read_result(const SweepRun& run) {
  std::ifstream file(run.folder + "/result.json");
  auto json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object()) return malformed(run.folder + "/result.json: not what a run writes");
  return json;
}

/// A cell of CSV: in quotes where it holds a comma or a quote.
std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string inner = text;
  for (auto at = inner.find('"'); at != std::string::npos; at = inner.find('"', at + 2)) {
    inner.insert(at, 1, '"');
  }
  return '"' + inner + '"';
}

std::string cell(const SweepRow& row, std::size_t column) {
  const auto& figures = row.figures[column];
  if (!figures) return "-";
  std::string text = kColumns[column].shown(figures->mean);
  if (kColumns[column].spread && figures->count > 1) {
    text += " +- " + kColumns[column].shown(figures->deviation);
  }
  // "reached by 2 of 3": a mean over those alone would flatter.
  if (figures->count < row.seeds) text += fmt::format(" ({} of {})", figures->count, row.seeds);
  return text;
}

}  // namespace

std::optional<SeedFigures> over_seeds(const std::vector<std::optional<double>>& values) {
  SeedFigures figures;
  for (const auto& value : values) {
    if (!value) continue;
    ++figures.count;
    figures.mean += *value;
  }
  if (figures.count == 0) return std::nullopt;
  figures.mean /= static_cast<double>(figures.count);
  if (figures.count == 1) return figures;
  for (const auto& value : values) {
    if (value) figures.deviation += std::pow(*value - figures.mean, 2);
  }
  figures.deviation = std::sqrt(figures.deviation / static_cast<double>(figures.count - 1));
  return figures;
}

Result<SweepTable> SweepTable::of(const SweepPlan& plan, const std::vector<SweepRun>& runs) {
  SweepTable table;
  for (std::size_t i = 0; i < plan.cases.size(); ++i) {
    SweepRow row{plan.cases[i].name, 0, plan.seeds.size(), {}};
    std::array<std::vector<std::optional<double>>, kColumns.size()> values;
    for (const SweepRun& run : runs) {
      if (run.sweep_case != i || run.state != RunState::kDone) continue;
      ++row.seeds;
      COVEY_ASSIGN(const auto result, read_result(run));
      for (std::size_t column = 0; column < kColumns.size(); ++column) {
        values[column].push_back(at(result, kColumns[column].path, kColumns[column].scale));
      }
    }
    for (const auto& column : values) row.figures.push_back(over_seeds(column));
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string SweepTable::csv() const {
  std::string text = "case,seeds";
  for (const Column& column : kColumns)
    text += fmt::format(",{0}_mean,{0}_std,{0}_count", column.key);
  for (const SweepRow& row : rows) {
    text += fmt::format("\n{},{}", quoted(row.name), row.seeds);
    for (const auto& figures : row.figures) {
      text += figures ? fmt::format(",{},{},{}", figures->mean, figures->deviation, figures->count)
                      : ",,,0";
    }
  }
  return text + '\n';
}

std::string SweepTable::for_people() const {
  std::vector<std::vector<std::string>> lines{{"case", "seeds"}};
  for (const SweepRow& row : rows) {
    lines.push_back({row.name, row.seeds == row.wanted
                                   ? std::to_string(row.seeds)
                                   : fmt::format("{} of {}", row.seeds, row.wanted)});
  }
  for (std::size_t column = 0; column < kColumns.size(); ++column) {
    const auto known = [&](const SweepRow& row) { return row.figures[column].has_value(); };
    if (std::ranges::none_of(rows, known)) continue;
    lines[0].push_back(kColumns[column].heading);
    for (std::size_t i = 0; i < rows.size(); ++i) lines[i + 1].push_back(cell(rows[i], column));
  }
  std::vector<std::size_t> widths(lines[0].size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    text += fmt::format("  {:<{}}", line[0], widths[0]);
    for (std::size_t i = 1; i < line.size(); ++i)
      text += fmt::format("  {:>{}}", line[i], widths[i]);
    text += '\n';
  }
  return text;
}

nlohmann::json SweepTable::json() const {
  nlohmann::json all = nlohmann::json::array();
  for (const SweepRow& row : rows) {
    nlohmann::json json{{"case", row.name}, {"seeds", row.seeds}};
    for (std::size_t column = 0; column < kColumns.size(); ++column) {
      const auto& figures = row.figures[column];
      if (!figures) continue;
      json[kColumns[column].key] = {
          {"mean", figures->mean}, {"std", figures->deviation}, {"count", figures->count}};
    }
    all.push_back(std::move(json));
  }
  return all;
}

Result<std::vector<simulation::Plot>> sweep_panels(const SweepPlan& plan,
                                                   const std::vector<SweepRun>& runs) {
  std::vector<simulation::Plot> panels;
  std::vector<std::string> labels;  // the same curves in every panel, so that colours mean the same
  for (const SweepCase& sweep_case : plan.cases) {
    if (std::ranges::find(labels, sweep_case.label) == labels.end())
      labels.push_back(sweep_case.label);
    if (std::ranges::find(panels, sweep_case.panel, &simulation::Plot::title) == panels.end()) {
      panels.push_back(
          {sweep_case.panel, axis_label(plan.plot.axes.x), axis_label(plan.plot.axes.y), {}});
    }
  }
  for (simulation::Plot& panel : panels) {
    for (const std::string& label : labels) panel.curves.push_back({label, {}});
  }
  for (std::size_t i = 0; i < plan.cases.size(); ++i) {
    std::vector<simulation::Curve> curves;
    for (const SweepRun& run : runs) {
      if (run.sweep_case != i || run.state != RunState::kDone) continue;
      COVEY_ASSIGN(auto curve, read_curve(run.folder, plan.plot.axes));
      if (!curve.points.empty()) curves.push_back(std::move(curve));
    }
    const std::string& label = plan.cases[i].label;
    auto& panel = *std::ranges::find(panels, plan.cases[i].panel, &simulation::Plot::title);
    *std::ranges::find(panel.curves, label, &simulation::Curve::label) =
        simulation::mean_curve(curves, label);
  }
  if (plan.plot.panel.empty()) panels.front().title = plan.plot.title;
  return panels;
}

}  // namespace covey
