#include "kernels/kernels.hpp"

#include <cstdlib>
#include <string_view>

namespace covey::models {

namespace {

enum Level { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

Level processor_level() {
#if defined(__x86_64__)
  // Exactly what the flags in CMakeLists.txt let the compiler use; the operating system's part
  // (saving the wide registers) is included in these checks.
  const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  const bool avx512 =
      avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
      __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0;
  if (avx512) return kAvx512;
  if (avx2) return kAvx2;
#endif
  return kBaseline;
}

}  // namespace

bool isa_override_valid(const char** value) {
  *value = std::getenv("COVEY_ISA");
  if (*value == nullptr) return true;
  const std::string_view name = *value;
  return name.empty() || name == "sse2" || name == "avx2" || name == "avx512";
}

const Kernels& selected_kernels() {
  Level level = processor_level();
  const char* value = std::getenv("COVEY_ISA");
  const std::string_view name = value == nullptr ? "" : value;
  if (name == "sse2") level = kBaseline;
  if (name == "avx2" && level > kAvx2) level = kAvx2;
  if (level == kAvx512 && avx512_kernels() != nullptr) return *avx512_kernels();
  if (level >= kAvx2 && avx2_kernels() != nullptr) return *avx2_kernels();
  return *baseline_kernels();
}

}  // namespace covey::models
