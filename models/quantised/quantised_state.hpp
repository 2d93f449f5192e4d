#pragma once

#include <covey/models/quantised_model.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "int8_scratch.hpp"

namespace covey::models {

/// What turns the sums of a layer with weights into the next layer's int8 values.
struct Requantisation {
  std::vector<std::int32_t> initial;     ///< [padded outputs]: biases, and what operands add
  std::vector<std::int32_t> multiplier;  ///< [padded outputs], 2^30 <= m < 2^31 or 0
  std::vector<std::int32_t> shift;       ///< [padded outputs], 1 to 62
  float input_scale = 1;
};

struct QuantisedState {
  Int8Plan plan;
  std::vector<float> ranges;
  Int8Storage storage;
  std::vector<Requantisation> layers;  ///< of each stage; empty without weights
  AlignedBytes buffers;
  std::size_t activations[2] = {0, 0};  ///< offsets in buffers
  std::size_t logits = 0;
  std::size_t scratch = 0;

  /// blob: checked by check_int8. activation_ranges: one more than layers with weights.
  QuantisedState(Int8Plan made, std::span<const std::byte> blob,
                 std::span<const float> activation_ranges);
  std::int8_t* activation(std::size_t i) const {
    return reinterpret_cast<std::int8_t*>(buffers.data() + activations[i % 2]);
  }
  float* scores() const { return reinterpret_cast<float*>(buffers.data() + logits); }

 private:
  void plan_layers();
  void plan_buffers();
};

struct QuantisedModel::State : QuantisedState {
  using QuantisedState::QuantisedState;
};

/// Examples that go through an integer model together.
inline constexpr std::size_t kInferenceBatch = 16;

/// real = multiplier * 2^-shift to 31 bits. Zero where real is below 2^-33, the largest where it is
/// not below 2^30: neither leaves anything of a sum but 0 and the clipped ends.
struct FixedPoint {
  std::int32_t multiplier = 0;
  std::int32_t shift = 1;
};
FixedPoint fixed_point(double real);

}  // namespace covey::models
