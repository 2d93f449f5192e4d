#include <algorithm>
#include <cmath>
#include <covey/metrics.hpp>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>

namespace covey {
namespace {

double mean(std::vector<double>::const_iterator first, std::vector<double>::const_iterator last) {
  return std::accumulate(first, last, 0.0) / static_cast<double>(last - first);
}

}  // namespace

FairnessFigures fairness(std::vector<double> accuracies) {
  if (accuracies.empty()) return {};
  for (double& accuracy : accuracies) accuracy *= 100;
  std::ranges::sort(accuracies);
  // A tenth of the devices rounded down, as in the authors' code, but one device at least.
  const auto tenth = std::max<std::ptrdiff_t>(1, std::ssize(accuracies) / 10);
  FairnessFigures figures;
  figures.devices = static_cast<std::uint32_t>(accuracies.size());
  figures.average = mean(accuracies.begin(), accuracies.end());
  figures.worst10 = mean(accuracies.begin(), accuracies.begin() + tenth);
  figures.best10 = mean(accuracies.end() - tenth, accuracies.end());
  for (double& accuracy : accuracies) {
    accuracy = (accuracy - figures.average) * (accuracy - figures.average);
  }
  figures.variance = mean(accuracies.begin(), accuracies.end());
  return figures;
}

std::optional<double> rounds_to_target(const std::vector<std::pair<double, double>>& round_accuracy,
                                       double target) {
  std::optional<std::pair<double, double>> before;  // round and running maximum so far
  for (const auto& [round, accuracy] : round_accuracy) {
    if (accuracy >= target) {
      if (!before) return round;
      const auto [earlier, highest] = *before;
      return earlier + (round - earlier) * (target - highest) / (accuracy - highest);
    }
    before = {round, before ? std::max(before->second, accuracy) : accuracy};
  }
  return std::nullopt;
}

namespace {

void write_privacy(const RoundMetrics& metrics, nlohmann::ordered_json& line) {
  if (metrics.secure) {
    line["secagg_masked"] = metrics.masked;
    line["secagg_recovered"] = metrics.recovered;
  }
  if (metrics.secure && !metrics.private_figures) {  // private, these are not known
    line["clipped_coordinates"] = metrics.clipped_coordinates;
    line["clipped_weights"] = metrics.clipped_weights;
    if (metrics.rounding_error) line["rounding_error"] = *metrics.rounding_error;
  }
  // An epsilon without bound (no noise) is not finite: null.
  if (metrics.epsilon) line["epsilon"] = *metrics.epsilon;
  if (metrics.delta) line["delta"] = *metrics.delta;
  if (metrics.clip_norm) line["clip_norm"] = *metrics.clip_norm;
  if (metrics.noise_multiplier) line["noise_multiplier"] = *metrics.noise_multiplier;
}

}  // namespace

namespace {

/// What only a simulator knows, and how stale updates were.
void write_fleet(const RoundMetrics& metrics, nlohmann::ordered_json& line) {
  if (metrics.staleness) line["staleness"] = *metrics.staleness;
  if (metrics.energy_j) line["energy_j"] = *metrics.energy_j;
  if (metrics.wall_s) line["wall_s"] = *metrics.wall_s;
  if (metrics.wasted_s) line["wasted_s"] = *metrics.wasted_s;
  if (!metrics.devices) return;
  const FairnessFigures& devices = *metrics.devices;
  line["devices"] = {{"devices", devices.devices},
                     {"average", devices.average},
                     {"worst10", devices.worst10},
                     {"best10", devices.best10},
                     {"variance", devices.variance}};
}

nlohmann::ordered_json line_of(const RoundMetrics& metrics) {
  nlohmann::ordered_json line;
  line["round"] = value_of(metrics.round);
  line["committed"] = metrics.committed;
  line["started_s"] = seconds(metrics.started.time_since_epoch());
  line["ended_s"] = seconds(metrics.ended.time_since_epoch());
  line["selected"] = metrics.selected;
  line["accepted"] = metrics.accepted;
  line["rejected"] = metrics.rejected;
  line["dropped"] = metrics.dropped;
  line["declined"] = metrics.declined;
  line["lost"] = metrics.lost;
  line["late"] = metrics.late;
  if (!metrics.private_figures) {
    line["examples"] = metrics.examples;
    line["train_loss"] = metrics.train_loss;  // not finite: null
    line["train_steps"] = metrics.train_steps;
  }
  line["bytes_up"] = metrics.bytes_up;
  line["bytes_down"] = metrics.bytes_down;
  if (metrics.accuracy) line["accuracy"] = *metrics.accuracy;
  if (metrics.loss) line["loss"] = *metrics.loss;
  write_privacy(metrics, line);
  write_fleet(metrics, line);
  return line;
}

/// Columns of metrics.csv: the keys of metrics.jsonl, those of its object `devices` behind
/// "devices.".
constexpr std::string_view kColumns =
    "round,committed,started_s,ended_s,selected,accepted,rejected,dropped,declined,lost,late,"
    "examples,train_loss,train_steps,bytes_up,bytes_down,accuracy,loss,"
    "secagg_masked,secagg_recovered,clipped_coordinates,clipped_weights,rounding_error,"
    "epsilon,delta,clip_norm,noise_multiplier,staleness,energy_j,wall_s,wasted_s,"
    "devices.devices,devices.average,devices.worst10,devices.best10,devices.variance";

std::string cell(const nlohmann::ordered_json& value) {
  // A figure that is not finite is said as programs that read CSV know it, not as JSON's null.
  if (value.is_number_float() && std::isnan(value.get<double>())) return "nan";
  if (value.is_number_float() && std::isinf(value.get<double>())) {
    return value.get<double>() > 0 ? "inf" : "-inf";
  }
  if (value.is_boolean()) return value.get<bool>() ? "1" : "0";
  return value.dump();
}

}  // namespace

std::string to_json_line(const RoundMetrics& metrics) { return line_of(metrics).dump(); }

std::string csv_header() { return std::string(kColumns); }

std::string to_csv_line(const RoundMetrics& metrics) {
  nlohmann::ordered_json line = line_of(metrics);
  if (line.contains("devices")) {
    const auto devices = line["devices"];
    for (const auto& [key, value] : devices.items()) line["devices." + key] = value;
  }
  std::string text;
  for (std::size_t at = 0; at <= kColumns.size();) {
    const std::size_t end = std::min(kColumns.find(',', at), kColumns.size());
    const auto found = line.find(kColumns.substr(at, end - at));
    if (at > 0) text += ',';
    if (found != line.end()) text += cell(*found);
    at = end + 1;
  }
  return text;
}

}  // namespace covey
