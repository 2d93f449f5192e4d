#define COVEY_KERNELS kernels_bf16_dot
#include "bf16/kernels_bf16.hpp"

#if defined(__x86_64__) && defined(__AVX512BF16__) && !defined(COVEY_NO_AVX512)
#include "bf16/bf16_table.hpp"

namespace covey::models {

namespace {
constexpr Bf16Kernels kTable = COVEY_KERNELS::make_table("avx512-bf16");
}  // namespace

const Bf16Kernels* bf16_dot_kernels() { return &kTable; }

}  // namespace covey::models
#else
namespace covey::models {
const Bf16Kernels* bf16_dot_kernels() { return nullptr; }
}  // namespace covey::models
#endif
