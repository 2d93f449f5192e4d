#define COVEY_INT8_KERNELS kernels_int8_avx2
#include "kernels_int8.hpp"

#if defined(__x86_64__)
#if !defined(__AVX2__)
#error "compile this file with -mavx2 (models/quantised/kernels.cmake does)"
#endif
#include "int8_updates.hpp"

namespace covey::models {

namespace {
constexpr Int8Kernels kTable = COVEY_INT8_KERNELS::make_table("avx2");
}  // namespace

const Int8Kernels* int8_avx2_kernels() { return &kTable; }

}  // namespace covey::models
#else
namespace covey::models {
const Int8Kernels* int8_avx2_kernels() { return nullptr; }
}  // namespace covey::models
#endif
