#pragma once

#include <covey/result.hpp>
#include <covey/simulation/experiment.hpp>

#include "devices/device_models.hpp"

namespace covey::simulation {

/// The least time from an assignment to its report: the model down, local training, the update up,
/// and no waiting for anybody. A lower bound, in seconds.
double shortest_round_s(const Experiment& experiment, const DeviceModels& models, ClientId client);

/// Error where not even the fastest device can report within selection.round-deadline-s, naming the
/// time that it takes: every round would be abandoned.
Result<void> check_deadline(const Experiment& experiment, const DeviceModels& models);

/// Error where no device has the memory for the model's weights.
Result<void> check_memory(const Experiment& experiment, const DeviceModels& models);

}  // namespace covey::simulation
