#include "learning_curve.hpp"

#include <fmt/format.h>

namespace covey {

simulation::Plot learning_curve(const RunConfig& config, const std::vector<RoundMetrics>& rounds) {
  simulation::Plot plot;
  plot.title = fmt::format("{}: {}, seed {}", config.name, config.strategy.name, config.seed);
  plot.x_label = "round";
  plot.y_label = "test accuracy (%)";
  simulation::Curve accuracy{config.name, {}};
  simulation::Curve loss{config.name, {}};
  for (const RoundMetrics& metrics : rounds) {
    const double round = value_of(metrics.round);
    if (metrics.committed && metrics.accuracy)
      accuracy.points.emplace_back(round, 100 * *metrics.accuracy);
    if (metrics.committed && metrics.loss) loss.points.emplace_back(round, *metrics.loss);
  }
  if (!accuracy.points.empty()) {
    plot.curves.push_back(std::move(accuracy));
  } else if (!loss.points.empty()) {  // an autoencoder's
    plot.y_label = "test loss";
    plot.curves.push_back(std::move(loss));
  }
  return plot;
}

std::string picture_name(const simulation::Plot& plot) {
  return plot.y_label == "test loss" ? "loss" : "accuracy";
}

std::optional<double> rounds_to_target(const RunConfig& config,
                                       const std::vector<RoundMetrics>& rounds) {
  if (config.target_accuracy <= 0) return std::nullopt;
  std::vector<std::pair<double, double>> accuracy;
  for (const RoundMetrics& metrics : rounds) {
    if (metrics.committed && metrics.accuracy) {
      accuracy.emplace_back(value_of(metrics.round), *metrics.accuracy);
    }
  }
  return rounds_to_target(accuracy, config.target_accuracy);
}

}  // namespace covey
