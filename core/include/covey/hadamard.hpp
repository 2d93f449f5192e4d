#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace covey {

/// The Walsh-Hadamard transform and random signs, which together are a rotation that costs d log2 d
/// additions (Ailon and Chazelle 2006; Suresh et al. 2017), for one instruction set. Every set does the
/// same additions in the same order (strides 1, 2, 4, ...), so gives the same bits.
struct HadamardKernel {
  const char* instruction_set;
  /// In place, `size` a power of two, natural order, not scaled.
  void (*transform_float)(float* values, std::size_t size);
  void (*transform_double)(double* values, std::size_t size);
  /// values[i] = -values[i] where bit i % 32 of signs[i / 32] is set, all times `scale`.
  void (*signs_float)(float* values, std::size_t size, const std::uint32_t* signs, float scale);
  void (*signs_double)(double* values, std::size_t size, const std::uint32_t* signs, double scale);
};

/// What this processor can run and the environment's COVEY_ISA ("sse2", "avx2") allows, fastest first; the
/// last one runs anywhere.
std::span<const HadamardKernel> hadamard_kernels();

}  // namespace covey
