#include "bf16/kernels_bf16.hpp"

#include <cstdlib>
#include <string_view>

namespace covey::models {

namespace {

enum Level { kBaseline = 0, kAvx2 = 1, kAvx512 = 2, kDot = 3 };

Level processor_level() {
#if defined(__x86_64__)
  // Exactly what the flags in kernels.cmake let the compiler use.
  const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  const bool avx512 =
      avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
      __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0;
  if (avx512 && __builtin_cpu_supports("avx512bf16") != 0) return kDot;
  if (avx512) return kAvx512;
  if (avx2) return kAvx2;
#endif
  return kBaseline;
}

/// What COVEY_ISA allows. Its values are checked where a network is made (kernels/kernels.cpp).
Level allowed_level() {
  const char* value = std::getenv("COVEY_ISA");
  const std::string_view name = value == nullptr ? "" : value;
  if (name == "sse2") return kBaseline;
  if (name == "avx2") return kAvx2;
  return name == "avx512" ? kAvx512 : kDot;
}

}  // namespace

const Bf16Kernels& selected_bf16_kernels() {
  const Level processor = processor_level();
  const Level allowed = allowed_level();
  const Level level = processor < allowed ? processor : allowed;
  if (level >= kDot && bf16_dot_kernels() != nullptr) return *bf16_dot_kernels();
  if (level >= kAvx512 && bf16_avx512_kernels() != nullptr) return *bf16_avx512_kernels();
  if (level >= kAvx2 && bf16_avx2_kernels() != nullptr) return *bf16_avx2_kernels();
  return *bf16_baseline_kernels();
}

}  // namespace covey::models
