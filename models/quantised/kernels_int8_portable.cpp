// SSE2 on x86-64; NEON on ARM; else plain C++.
#define COVEY_INT8_KERNELS kernels_int8_portable
#include "int8_updates.hpp"

namespace covey::models {

namespace {
#if defined(__x86_64__)
constexpr Int8Kernels kTable = COVEY_INT8_KERNELS::make_table("sse2");
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr Int8Kernels kTable = COVEY_INT8_KERNELS::make_table("neon-dotprod");
#elif defined(__ARM_NEON)
constexpr Int8Kernels kTable = COVEY_INT8_KERNELS::make_table("neon");
#else
constexpr Int8Kernels kTable = COVEY_INT8_KERNELS::make_table("portable");
#endif
}  // namespace

const Int8Kernels* int8_portable_kernels() { return &kTable; }

}  // namespace covey::models
