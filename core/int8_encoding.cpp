#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/int8_encoding.hpp>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

namespace covey {

namespace {

static_assert(std::endian::native == std::endian::little, "int8 blobs are little-endian");

constexpr int kMost = 127;
/// Scale of a tensor without any magnitude: a range of +-0.124.
constexpr float kScaleOfZeros = 0x1p-10f;
/// A float's significand has 24 bits; 16 stay.
constexpr std::uint32_t kDroppedBits = 0xFF;

/// Quantised tensors have an output channel per value of their last dimension.
bool quantised(const TensorLayout& tensor) { return tensor.shape.size() >= 2; }
std::size_t channels_of(const TensorLayout& tensor) { return tensor.shape.back(); }

std::size_t encoded_size(const TensorLayout& tensor) {
  if (!quantised(tensor)) return tensor.size() * sizeof(float);
  return channels_of(tensor) * sizeof(float) + tensor.size();
}

/// scales[c] from the largest magnitudes of the channels; NaN where a value is not finite.
void find_scales(std::span<const float> values, std::span<float> scales, float headroom) {
  std::fill(scales.begin(), scales.end(), 0.0f);
  for (std::size_t i = 0; i < values.size();) {
    for (float& scale : scales) {
      const float magnitude = std::abs(values[i++]);
      if (!(magnitude <= scale) && !std::isnan(scale)) scale = magnitude;
    }
  }
  float largest = 0;
  for (const float scale : scales) {
    if (std::isfinite(scale)) largest = std::max(largest, scale);
  }
  for (float& scale : scales) {
    const float magnitude = scale == 0 ? largest : scale;
    if (!std::isfinite(magnitude)) {
      scale = std::numeric_limits<float>::quiet_NaN();
    } else {
      scale = magnitude > 0 ? round_up_to_int8_scale(magnitude / kMost * headroom) : kScaleOfZeros;
    }
  }
}

std::int8_t clipped(double steps) {
  if (!(std::abs(steps) <= kMost)) return steps > 0 ? kMost : steps < 0 ? -kMost : 0;
  return static_cast<std::int8_t>(steps);
}

template <typename Round>
SharedBytes encode(std::span<const float> values, const ModelLayout& layout, float headroom,
                   Round round) {
  COVEY_ASSERT(values.size() == layout.size());
  COVEY_ASSERT(headroom >= 1 && std::isfinite(headroom));
  std::vector<std::byte> bytes(int8_encoded_size(layout));
  std::vector<float> scales;
  std::byte* out = bytes.data();
  for (const TensorLayout& tensor : layout.tensors()) {
    const auto part = values.subspan(tensor.offset, tensor.size());
    if (part.empty()) continue;
    if (!quantised(tensor)) {
      std::memcpy(out, part.data(), part.size_bytes());
      out += part.size_bytes();
      continue;
    }
    scales.resize(channels_of(tensor));
    find_scales(part, scales, headroom);
    std::memcpy(out, scales.data(), scales.size() * sizeof(float));
    out += scales.size() * sizeof(float);
    for (std::size_t i = 0; i < part.size();) {
      for (const float scale : scales) {
        // the quotient in double: within half a unit of the last place it decides the rounding
        const double steps = round(static_cast<double>(part[i++]) / static_cast<double>(scale));
        *out++ = static_cast<std::byte>(clipped(steps));
      }
    }
  }
  return SharedBytes(std::move(bytes));
}

Result<void> check_tensor(const TensorLayout& tensor, const std::byte* bytes) {
  if (!quantised(tensor)) {
    for (std::size_t i = 0; i < tensor.size(); ++i) {
      float value;
      std::memcpy(&value, bytes + i * sizeof value, sizeof value);
      if (!std::isfinite(value)) {
        return malformed(fmt::format("int8 blob: {}[{}] is {}", tensor.name, i, value));
      }
    }
    return {};
  }
  const std::size_t channels = channels_of(tensor);
  for (std::size_t c = 0; c < channels; ++c) {
    float scale;
    std::memcpy(&scale, bytes + c * sizeof scale, sizeof scale);
    if (!is_int8_scale(scale)) {
      return malformed(fmt::format(
          "int8 blob: the scale of channel {} of {} is {}; scales are positive and have "
          "at most 16 significant bits",
          c, tensor.name, scale));
    }
  }
  const std::byte* values = bytes + channels * sizeof(float);
  for (std::size_t i = 0; i < tensor.size(); ++i) {
    if (values[i] == std::byte{0x80}) {
      return malformed(
          fmt::format("int8 blob: value {} of {} is -128; values are -127 to 127", i, tensor.name));
    }
  }
  return {};
}

}  // namespace

std::size_t int8_encoded_size(const ModelLayout& layout) {
  std::size_t size = 0;
  for (const TensorLayout& tensor : layout.tensors()) size += encoded_size(tensor);
  return size;
}

bool is_int8_scale(float scale) {
  return std::isnormal(scale) && scale > 0 &&
         (std::bit_cast<std::uint32_t>(scale) & kDroppedBits) == 0 &&
         scale <= std::numeric_limits<float>::max() / kMost;
}

float round_up_to_int8_scale(float value) {
  // the largest scale: FLT_MAX / 128 cut to 16 bits, so that 127 times it is finite
  constexpr float kLargest = 0x1.fffep+120f;
  const float bounded = std::clamp(value, std::numeric_limits<float>::min(), kLargest);
  const auto bits = std::bit_cast<std::uint32_t>(bounded);
  // adding in the bit pattern carries into the exponent as it should
  return std::bit_cast<float>((bits + kDroppedBits) & ~kDroppedBits);
}

SharedBytes encode_int8(std::span<const float> values, const ModelLayout& layout,
                        const Int8Encoding& encoding) {
  return encode(values, layout, encoding.headroom, [](double x) { return std::nearbyint(x); });
}

SharedBytes encode_int8(std::span<const float> values, const ModelLayout& layout,
                        RandomStream& random, const Int8Encoding& encoding) {
  return encode(values, layout, encoding.headroom,
                [&](double x) { return std::floor(x + random.uniform()); });
}

Result<void> check_int8(std::span<const std::byte> bytes, const ModelLayout& layout) {
  if (bytes.size() != int8_encoded_size(layout)) {
    return malformed(fmt::format("int8 blob: {} bytes where this model's {} parameters take {}",
                                 bytes.size(), layout.size(), int8_encoded_size(layout)));
  }
  const std::byte* at = bytes.data();
  for (const TensorLayout& tensor : layout.tensors()) {
    COVEY_TRY(check_tensor(tensor, at));
    at += encoded_size(tensor);
  }
  return {};
}

Result<void> decode_int8(std::span<const std::byte> bytes, const ModelLayout& layout,
                         std::span<float> out) {
  COVEY_ASSERT(out.size() == layout.size());
  COVEY_TRY(check_int8(bytes, layout));
  const std::byte* at = bytes.data();
  std::vector<float> scales;
  for (const TensorLayout& tensor : layout.tensors()) {
    const auto part = out.subspan(tensor.offset, tensor.size());
    if (part.empty()) continue;
    if (!quantised(tensor)) {
      std::memcpy(part.data(), at, part.size_bytes());
      at += part.size_bytes();
      continue;
    }
    scales.resize(channels_of(tensor));
    std::memcpy(scales.data(), at, scales.size() * sizeof(float));
    at += scales.size() * sizeof(float);
    for (std::size_t i = 0; i < part.size();) {
      for (const float scale : scales) {
        part[i++] = scale * static_cast<float>(static_cast<std::int8_t>(*at++));
      }
    }
  }
  return {};
}

}  // namespace covey
