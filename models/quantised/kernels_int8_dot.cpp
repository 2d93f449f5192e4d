// NEON with the 8-bit dot product of Armv8.2 (a Raspberry Pi 5 and most phones have it, a 4 has not).
#define COVEY_INT8_KERNELS kernels_int8_dot
#include "kernels_int8.hpp"

#if defined(__aarch64__)
#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile this file with -march=armv8.2-a+dotprod (models/quantised/kernels.cmake does)"
#endif
#include "int8_updates.hpp"

namespace covey::models {

namespace {
constexpr Int8Kernels kTable = COVEY_INT8_KERNELS::make_table("neon-dotprod");
}  // namespace

const Int8Kernels* int8_dot_kernels() { return &kTable; }

}  // namespace covey::models
#else
namespace covey::models {
const Int8Kernels* int8_dot_kernels() { return nullptr; }
}  // namespace covey::models
#endif
