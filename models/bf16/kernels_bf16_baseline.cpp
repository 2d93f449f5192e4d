#define COVEY_KERNELS kernels_bf16_baseline
#include "bf16/bf16_table.hpp"

namespace covey::models {

namespace {
#if defined(__x86_64__)
constexpr Bf16Kernels kTable = COVEY_KERNELS::make_table("sse2");
#else
constexpr Bf16Kernels kTable = COVEY_KERNELS::make_table("baseline");
#endif
}  // namespace

const Bf16Kernels* bf16_baseline_kernels() { return &kTable; }

}  // namespace covey::models
