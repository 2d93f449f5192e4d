#include "layers/recurrent.hpp"

#include <algorithm>

#include "planner.hpp"

namespace covey::models {

Result<void> check_recurrent(const Planner& planner, std::uint64_t gates, std::uint64_t biases) {
  COVEY_TRY(planner.need_sequence());
  const LayerSpec& layer = planner.layer();
  if (layer.units == 0) return planner.refuse("has no units");
  const auto& shape = planner.shape();
  const std::uint64_t units = layer.units;
  // Units alone first: then their square times the gates fits 64 bits.
  COVEY_TRY(planner.check_sizes(units, shape[0] * units));
  COVEY_TRY(planner.check_sizes((shape[1] + units) * gates * units + biases * units,
                                (layer.last_only ? 1 : shape[0]) * units));
  // What the backward pass needs of an example: four gates' values, the cells, and every h.
  return planner.check_sizes(
      0, shape[0] * (padded_row(static_cast<std::size_t>(4 * units)) + 2 * units));
}

void copy_last_steps(const float* hidden, std::size_t batch, std::size_t steps, std::size_t units,
                     float* outputs) {
  for (std::size_t b = 0; b < batch; ++b) {
    std::copy_n(hidden + ((b + 1) * steps - 1) * units, units, outputs + b * units);
  }
}

void clear_first_steps(float* gates, std::size_t batch, std::size_t steps, std::size_t row) {
  for (std::size_t b = 0; b < batch; ++b) std::fill_n(gates + b * steps * row, row, 0.0f);
}

}  // namespace covey::models
