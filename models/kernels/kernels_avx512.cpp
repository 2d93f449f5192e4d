#define COVEY_KERNELS kernels_avx512
#include "kernels/kernels.hpp"

#if defined(__x86_64__) && !defined(COVEY_NO_AVX512)
#if !defined(__AVX512F__)
#error \
    "compile this file with -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma (models/CMakeLists.txt does)"
#endif
#include "kernels/table.hpp"

namespace covey::models {

namespace {
constexpr Kernels kTable = COVEY_KERNELS::make_table("avx512");
}  // namespace

const Kernels* avx512_kernels() { return &kTable; }

}  // namespace covey::models
#else
namespace covey::models {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace covey::models
#endif
