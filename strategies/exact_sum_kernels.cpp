#include "exact_sum_kernels.hpp"

#include <algorithm>
#include <bit>
#include <vector>

#ifdef __FAST_MATH__
#error "exact sums need IEEE arithmetic: build without -ffast-math"
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define COVEY_X86_KERNELS 1
#ifdef __clang__
#define COVEY_AVX512 "avx512f"
#else
#define COVEY_AVX512 "avx512f,prefer-vector-width=512"  // g++ 12 prefers half of it
#endif
#endif

namespace covey::strategies {
namespace {

// Adding 1.5 * 2^(52-k) to |v| <= 2^(51-k) rounds v to the nearest multiple of 2^-k (ties to even),
// and leaves that multiple, as a whole number, in the low bits of the sum: a conversion to int64
// that every instruction set can do in vectors.
constexpr double kHighMagic = 0x1.8p35;  // k = 17
constexpr double kLowMagic = 0x1.8p-17;  // k = 69
constexpr std::int64_t kHighMagicBits = std::bit_cast<std::int64_t>(kHighMagic);
constexpr std::int64_t kLowMagicBits = std::bit_cast<std::int64_t>(kLowMagic);

[[gnu::always_inline]] inline std::uint32_t max_magnitude_body(const float* values,
                                                               std::size_t size) {
  // Of non-negative floats the larger has the larger bits, and infinities and NaNs lie above all.
  std::int32_t largest = 0;
  for (std::size_t i = 0; i < size; ++i) {
    largest = std::max(largest, std::bit_cast<std::int32_t>(values[i]) & 0x7fffffff);
  }
  return static_cast<std::uint32_t>(largest);
}

[[gnu::always_inline]] inline void accumulate_body(const float* __restrict values, double weight,
                                                   std::size_t size, std::int64_t* __restrict high,
                                                   std::int64_t* __restrict low) {
  for (std::size_t i = 0; i < size; ++i) {
    const double term = weight * static_cast<double>(values[i]);
    const double shifted = term + kHighMagic;
    // Exact: the remainder is a multiple of term's last bit and at most 2^-18.
    const double remainder = term - (shifted - kHighMagic);
    high[i] += std::bit_cast<std::int64_t>(shifted) - kHighMagicBits;
    low[i] += std::bit_cast<std::int64_t>(remainder + kLowMagic) - kLowMagicBits;
  }
}

std::uint32_t max_magnitude_baseline(const float* values, std::size_t size) {
  return max_magnitude_body(values, size);
}
void accumulate_baseline(const float* values, double weight, std::size_t size, std::int64_t* high,
                         std::int64_t* low) {
  accumulate_body(values, weight, size, high, low);
}

#ifdef COVEY_X86_KERNELS
[[gnu::target("avx2")]] std::uint32_t max_magnitude_avx2(const float* values, std::size_t size) {
  return max_magnitude_body(values, size);
}
[[gnu::target("avx2")]] void accumulate_avx2(const float* values, double weight, std::size_t size,
                                             std::int64_t* high, std::int64_t* low) {
  accumulate_body(values, weight, size, high, low);
}
[[gnu::target(COVEY_AVX512)]] std::uint32_t max_magnitude_avx512(const float* values,
                                                                 std::size_t size) {
  return max_magnitude_body(values, size);
}
[[gnu::target(COVEY_AVX512)]] void accumulate_avx512(const float* values, double weight,
                                                     std::size_t size, std::int64_t* high,
                                                     std::int64_t* low) {
  accumulate_body(values, weight, size, high, low);
}
#endif

std::vector<ExactSumKernels> detect() {
  std::vector<ExactSumKernels> kernels;
#ifdef COVEY_X86_KERNELS
  if (__builtin_cpu_supports("avx512f")) {
    kernels.push_back({"avx512f", max_magnitude_avx512, accumulate_avx512});
  }
  if (__builtin_cpu_supports("avx2")) {
    kernels.push_back({"avx2", max_magnitude_avx2, accumulate_avx2});
  }
#endif
  kernels.push_back({"baseline", max_magnitude_baseline, accumulate_baseline});
  return kernels;
}

}  // namespace

std::span<const ExactSumKernels> exact_sum_kernels() {
  static const std::vector<ExactSumKernels> kernels = detect();
  return kernels;
}

}  // namespace covey::strategies
