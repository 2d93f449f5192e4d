// The processor family's least: SSE2 on x86-64, NEON on aarch64, whatever the compiler targets
// elsewhere.
#define COVEY_KERNELS kernels_baseline
#include "kernels/table.hpp"

namespace covey::models {

namespace {
#if defined(__x86_64__)
constexpr Kernels kTable = COVEY_KERNELS::make_table("sse2");
#else
constexpr Kernels kTable = COVEY_KERNELS::make_table("baseline");
#endif
}  // namespace

const Kernels* baseline_kernels() { return &kTable; }

}  // namespace covey::models
