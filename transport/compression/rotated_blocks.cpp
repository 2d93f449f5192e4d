#include "rotated_blocks.hpp"

#include <fmt/format.h>

#include <cmath>
#include <covey/hadamard.hpp>
#include <cstring>

namespace covey::compression {
namespace {

constexpr float kLargestScale = 0x1p100f;

float orthonormal(std::size_t size) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(size)));
}

}  // namespace

const std::uint32_t* Rotation::next_signs(std::size_t size) {
  const std::size_t words = (size + 31) / 32;
  for (std::size_t i = 0; i < words; ++i) signs_[i] = random_.next_u32();
  return signs_.data();
}

void Rotation::rotate(float* values, std::size_t size) {
  const HadamardKernel& kernel = hadamard_kernels().front();
  kernel.signs_float(values, size, next_signs(size), orthonormal(size));
  kernel.transform_float(values, size);
}

// With H = H^T = H^-1 the inverse is the transform, then the signs.
void Rotation::rotate_back(float* values, std::size_t size) {
  const HadamardKernel& kernel = hadamard_kernels().front();
  kernel.transform_float(values, size);
  kernel.signs_float(values, size, next_signs(size), orthonormal(size));
}

float held_scale(double scale) {
  // not a number: where an update's squares are beyond single precision
  if (!(scale < static_cast<double>(kLargestScale))) return kLargestScale;
  return scale > 0 ? static_cast<float>(scale) : 0.0f;
}

bool is_scale(float scale) { return scale >= 0 && scale <= kLargestScale; }

Result<void> check_scales(std::string_view name, std::span<const std::byte> bytes,
                          std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    float scale;
    std::memcpy(&scale, bytes.data() + i * sizeof scale, sizeof scale);
    if (!is_scale(scale)) {
      return malformed(
          fmt::format("{}: scale {} is {}; scales are from 0 to 2^100", name, i, scale));
    }
  }
  return {};
}

}  // namespace covey::compression
