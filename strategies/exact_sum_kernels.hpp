#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace covey::strategies {

/// The two loops of ExactSum::add, compiled for one instruction set. Every set gives the same bits:
/// they use only correctly rounded double operations, and this file is built without contraction of
/// a * b + c into one operation.
struct ExactSumKernels {
  const char* instruction_set;
  /// The largest |values[i]| as the bits of a float; 0x7f800000 or more if one is not finite.
  std::uint32_t (*max_magnitude)(const float* values, std::size_t size);
  /// high[i] += nearest(t * 2^17), low[i] += nearest((t - that) * 2^69), t = weight * values[i].
  /// Needs |t| < 2^26.
  void (*accumulate)(const float* values, double weight, std::size_t size, std::int64_t* high,
                     std::int64_t* low);
};

/// What this processor can run, fastest first; the last one runs anywhere.
std::span<const ExactSumKernels> exact_sum_kernels();

}  // namespace covey::strategies
