#include "kernels_int8.hpp"

#include <cstdlib>
#include <string_view>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace covey::models {

namespace {

enum Level { kPortable = 0, kAvx2 = 1, kVnni = 2, kDot = 3 };

Level processor_level() {
#if defined(__x86_64__)
  // Exactly what the flags in kernels.cmake let the compiler use.
  const bool avx2 = __builtin_cpu_supports("avx2") != 0;
  const bool vnni =
      avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
      __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
      __builtin_cpu_supports("avx512vnni") != 0;
  if (vnni) return kVnni;
  if (avx2) return kAvx2;
#elif defined(__aarch64__) && defined(__linux__)
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) return kDot;
#endif
  return kPortable;
}

}  // namespace

bool int8_isa_override_valid(const char** value) {
  *value = std::getenv("COVEY_ISA");
  if (*value == nullptr) return true;
  const std::string_view name = *value;
  return name.empty() || name == "sse2" || name == "avx2" || name == "avx512";
}

const Int8Kernels& selected_int8_kernels() {
  Level level = processor_level();
  const char* value = std::getenv("COVEY_ISA");
  const std::string_view name = value == nullptr ? "" : value;
  if (name == "sse2") level = kPortable;
  if (name == "avx2" && level == kVnni) level = kAvx2;
  if (level == kDot && int8_dot_kernels() != nullptr) return *int8_dot_kernels();
  if (level == kVnni && int8_vnni_kernels() != nullptr) return *int8_vnni_kernels();
  if ((level == kAvx2 || level == kVnni) && int8_avx2_kernels() != nullptr) return *int8_avx2_kernels();
  return *int8_portable_kernels();
}

}  // namespace covey::models
