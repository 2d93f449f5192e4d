#include "int8_parameters.hpp"

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/int8_encoding.hpp>
#include <covey/models/int8_network.hpp>
#include <cstring>
#include <utility>
#include <vector>

namespace covey::models {

namespace {

/// f(index in storage, index in the blob's values, output) for every weight.
template <typename F>
void for_each_weight(const Int8Weights& weights, F f) {
  std::size_t in_blob = 0;
  for (std::size_t r = 0; r < weights.rows; ++r) {
    for (std::size_t j = 0; j < weights.run; ++j) {
      const std::size_t first = weights.index(r, j, 0);
      for (std::size_t o = 0; o < weights.outputs; ++o) f(first + o * kQuad, in_blob++, o);
    }
  }
}

/// f(weights) for every stage that has some.
template <typename F>
void for_each_layer(const Int8Plan& plan, F f) {
  for (const Int8Stage& stage : plan.stages) {
    if (const Int8Weights* weights = stage_weights(stage)) f(*weights);
  }
}

float float_at(std::span<const std::byte> blob, std::size_t offset, std::size_t i) {
  float value;
  std::memcpy(&value, blob.data() + offset + i * sizeof value, sizeof value);
  return value;
}

int int8_at(std::span<const std::byte> blob, std::size_t offset) {
  return static_cast<std::int8_t>(blob[offset]);
}

}  // namespace

void load_int8(const Int8Plan& plan, const Int8Storage& storage, std::span<const std::byte> blob) {
  for_each_layer(plan, [&](const Int8Weights& weights) {
    std::memcpy(storage.scales(weights), blob.data() + weights.blob_scales,
                weights.outputs * sizeof(float));
    std::memcpy(storage.biases(weights), blob.data() + weights.blob_biases,
                weights.outputs * sizeof(float));
    std::int8_t* values = storage.values(weights);
    for_each_weight(weights, [&](std::size_t at, std::size_t in_blob, std::size_t) {
      values[at] = static_cast<std::int8_t>(blob[weights.blob_values + in_blob]);
    });
  });
}

SharedBytes store_int8(const Int8Plan& plan, const Int8Storage& storage,
                       std::span<const std::byte> initial) {
  std::vector<std::byte> blob(plan.blob_bytes);
  for_each_layer(plan, [&](const Int8Weights& weights) {
    const float* scales = storage.scales(weights);
    const float* biases = storage.biases(weights);
    std::memcpy(blob.data() + weights.blob_scales, scales, weights.outputs * sizeof(float));
    for (std::size_t o = 0; o < weights.outputs; ++o) {
      const float bias =
          biases[o] - (initial.empty() ? 0.0f : float_at(initial, weights.blob_biases, o));
      std::memcpy(blob.data() + weights.blob_biases + o * sizeof bias, &bias, sizeof bias);
    }
    const std::int8_t* values = storage.values(weights);
    for_each_weight(weights, [&](std::size_t at, std::size_t in_blob, std::size_t) {
      const std::size_t to = weights.blob_values + in_blob;
      const int steps = values[at] - (initial.empty() ? 0 : int8_at(initial, to));
      blob[to] = static_cast<std::byte>(static_cast<std::int8_t>(std::clamp(steps, -127, 127)));
    });
  });
  return SharedBytes(std::move(blob));
}

Int8Parameters::Int8Parameters(const Int8Network& network)
    : storage_(std::make_unique<Storage>(network.plan_->storage_bytes)) {
  constexpr float kScaleOfZeros = 0x1p-10f;  // as encode_int8 gives a tensor of zeros
  for_each_layer(*network.plan_, [&](const Int8Weights& weights) {
    std::fill_n(storage_->scales(weights), weights.outputs, kScaleOfZeros);
  });
}
Int8Parameters::Int8Parameters(Int8Parameters&&) noexcept = default;
Int8Parameters& Int8Parameters::operator=(Int8Parameters&&) noexcept = default;
Int8Parameters::~Int8Parameters() = default;

std::size_t Int8Parameters::bytes() const { return storage_->bytes.size(); }

Result<void> Int8Network::load(Int8Parameters& parameters, std::span<const std::byte> blob) const {
  COVEY_ASSERT(parameters.bytes() == plan_->storage_bytes);
  COVEY_TRY(check_int8(blob, plan_->layout));
  load_int8(*plan_, *parameters.storage_, blob);
  return {};
}

SharedBytes Int8Network::encode(const Int8Parameters& parameters) const {
  COVEY_ASSERT(parameters.bytes() == plan_->storage_bytes);
  return store_int8(*plan_, *parameters.storage_, {});
}

SharedBytes Int8Network::encode_difference(const Int8Parameters& parameters,
                                           std::span<const std::byte> initial) const {
  COVEY_ASSERT(parameters.bytes() == plan_->storage_bytes);
  COVEY_ASSERT(initial.size() == plan_->blob_bytes);
  return store_int8(*plan_, *parameters.storage_, initial);
}

double Int8Network::difference_squared_norm(const Int8Parameters& parameters,
                                            std::span<const std::byte> initial) const {
  COVEY_ASSERT(parameters.bytes() == plan_->storage_bytes);
  COVEY_ASSERT(initial.size() == plan_->blob_bytes);
  double total = 0;
  const Int8Storage& storage = *parameters.storage_;
  for_each_layer(*plan_, [&](const Int8Weights& weights) {
    const std::int8_t* values = storage.values(weights);
    const float* scales = storage.scales(weights);
    const float* biases = storage.biases(weights);
    for_each_weight(weights, [&](std::size_t at, std::size_t in_blob, std::size_t o) {
      const int steps = values[at] - int8_at(initial, weights.blob_values + in_blob);
      const double difference = static_cast<double>(scales[o]) * std::clamp(steps, -127, 127);
      total += difference * difference;
    });
    for (std::size_t o = 0; o < weights.outputs; ++o) {
      const float bias = biases[o] - float_at(initial, weights.blob_biases, o);
      total += static_cast<double>(bias) * static_cast<double>(bias);
    }
  });
  return total;
}

}  // namespace covey::models
