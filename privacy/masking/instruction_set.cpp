#include "masking/instruction_set.hpp"

#include <cstdlib>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "masking/lanes.hpp"

namespace covey::privacy::masking {

#if defined(__x86_64__)
/// CPUID leaf 7, ECX bit 9: clang 14's __builtin_cpu_supports does not know the name. With AVX2 in use the
/// operating system saves the registers.
bool has_vaes() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kVaes = 1U << 9;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ecx & kVaes) != 0;
}
#endif

InstructionSet processor_instruction_set() {
  InstructionSet set;
  // Exactly what the flags in kernels.cmake let the compiler use; the operating system's part
  // (saving the wide registers) is included in these checks.
#if defined(__x86_64__)
  set.aes = __builtin_cpu_supports("aes") != 0 && __builtin_cpu_supports("ssse3") != 0;
  set.avx2 = __builtin_cpu_supports("avx2") != 0;
  set.avx512 = set.avx2 && __builtin_cpu_supports("avx512f") != 0 &&
               __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
               __builtin_cpu_supports("avx512dq") != 0;
  set.vaes = set.aes && set.avx2 && has_vaes();
#elif defined(__aarch64__) && defined(__linux__)
  set.armv8_aes = (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  set.armv8_aes = true;
#endif
  return set;
}

InstructionSet allowed_instruction_set() {
  InstructionSet set = processor_instruction_set();
  const char* value = std::getenv("COVEY_ISA");
  const std::string_view name = value == nullptr ? "" : value;
  if (name == "sse2") return {};
  if (name == "avx2") set.avx512 = false;
  return set;
}

const LaneKernels& selected_lanes() {
  const InstructionSet set = allowed_instruction_set();
  if (set.avx512 && lanes_avx512() != nullptr) return *lanes_avx512();
  if (set.avx2 && lanes_avx2() != nullptr) return *lanes_avx2();
  return *lanes_baseline();
}

}  // namespace covey::privacy::masking
