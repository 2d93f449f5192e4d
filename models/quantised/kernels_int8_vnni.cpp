#define COVEY_INT8_KERNELS kernels_int8_vnni
#include "kernels_int8.hpp"

#if defined(__x86_64__) && !defined(COVEY_NO_AVX512)
#if !defined(__AVX512VNNI__)
#error \
    "compile this file with -mavx512f -mavx512vl -mavx512bw -mavx512dq -mavx512vnni (models/quantised/kernels.cmake does)"
#endif
#include "int8_updates.hpp"

namespace covey::models {

namespace {
constexpr Int8Kernels kTable = COVEY_INT8_KERNELS::make_table("avx512-vnni");
}  // namespace

const Int8Kernels* int8_vnni_kernels() { return &kTable; }

}  // namespace covey::models
#else
namespace covey::models {
const Int8Kernels* int8_vnni_kernels() { return nullptr; }
}  // namespace covey::models
#endif
