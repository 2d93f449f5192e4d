#define COVEY_KERNELS kernels_avx2
#include "kernels/kernels.hpp"

#if defined(__x86_64__)
#if !defined(__AVX2__)
#error "compile this file with -mavx2 -mfma (models/CMakeLists.txt does)"
#endif
#include "kernels/table.hpp"

namespace covey::models {

namespace {
constexpr Kernels kTable = COVEY_KERNELS::make_table("avx2");
}  // namespace

const Kernels* avx2_kernels() { return &kTable; }

}  // namespace covey::models
#else
namespace covey::models {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace covey::models
#endif
