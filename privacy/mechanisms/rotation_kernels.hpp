#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace covey::privacy {

/// The Walsh-Hadamard transform and the signs, for one instruction set. Every set does the same
/// additions in the same order (strides 1, 2, 4, ...), so gives the same bits.
struct RotationKernel {
  const char* instruction_set;
  /// In place, `size` a power of two, natural order, not scaled.
  void (*hadamard_float)(float* values, std::size_t size);
  void (*hadamard_double)(double* values, std::size_t size);
  /// values[i] = -values[i] where bit i % 32 of signs[i / 32] is set, all times `scale`.
  void (*signs_float)(float* values, std::size_t size, const std::uint32_t* signs, float scale);
  void (*signs_double)(double* values, std::size_t size, const std::uint32_t* signs, double scale);
};

/// What this processor can run and COVEY_ISA allows, fastest first; the last one runs anywhere.
std::span<const RotationKernel> rotation_kernels();

}  // namespace covey::privacy
