#pragma once

#include <covey/client/trainer.hpp>
#include <covey/messages.hpp>
#include <covey/result.hpp>
#include <span>

namespace covey::client {

/// Error naming the precision or compressor of `plan` that this build does not have.
Result<void> check_encoding(const TrainingPlan& plan);

/// True if no value is infinite or not a number.
bool all_finite(std::span<const float> values);

}  // namespace covey::client
