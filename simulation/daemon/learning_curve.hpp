#pragma once

#include <vector>

#include <covey/metrics.hpp>
#include <covey/run_config.hpp>
#include <covey/simulation/plot.hpp>

namespace covey {

/// Test accuracy in percent over rounds; no curve when no round was evaluated.
simulation::Plot learning_curve(const RunConfig& config, const std::vector<RoundMetrics>& rounds);
/// "accuracy", or "loss" for a model whose predictions are neither right nor wrong: what a run folder
/// names its pictures.
std::string picture_name(const simulation::Plot& plot);

/// What the target asks of the rounds so far: see rounds_to_target.
std::optional<double> rounds_to_target(const RunConfig& config, const std::vector<RoundMetrics>& rounds);

}  // namespace covey
