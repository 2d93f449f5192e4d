#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "network_plan.hpp"

namespace covey::models {

struct LossResult {
  double sum = 0;  ///< over the predictions counted
  std::size_t correct = 0;
};

/// Predictions that have a target: what the sum of the losses is divided by.
std::size_t count_targets(const NetworkPlan& plan, std::span<const std::int32_t> labels,
                          std::size_t batch);

/// 1 / targets, or 0 where a batch has none: then nothing is learnt from it.
inline float scale_of(std::size_t targets) {
  return targets == 0 ? 0.0f : 1.0f / static_cast<float>(targets);
}

/// The loss of `batch` examples' outputs; where `gradient` is not null it receives scale * d(sum) /
/// d(outputs). inputs: the examples themselves, for Target::kInput.
LossResult loss_of(const NetworkPlan& plan, std::size_t batch, const float* inputs,
                   const std::int32_t* labels, const float* outputs, float scale, float* gradient);

}  // namespace covey::models
