#include <algorithm>
#include <cmath>
#include <covey/metrics.hpp>
#include <nlohmann/json.hpp>
#include <numeric>

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

std::string to_json_line(const RoundMetrics& metrics) {
  nlohmann::ordered_json line;
  line["round"] = value_of(metrics.round);
  line["committed"] = metrics.committed;
  line["started_s"] = seconds(metrics.started.time_since_epoch());
  line["ended_s"] = seconds(metrics.ended.time_since_epoch());
  line["selected"] = metrics.selected;
  line["accepted"] = metrics.accepted;
  line["rejected"] = metrics.rejected;
  line["dropped"] = metrics.dropped;
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
  return line.dump();
}

}  // namespace covey
