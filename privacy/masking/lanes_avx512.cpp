#include "masking/lanes_kernel.hpp"

namespace covey::privacy::masking {

#if defined(__AVX512F__)
const LaneKernels* lanes_avx512() { return &kLaneKernels<64>; }
#else
const LaneKernels* lanes_avx512() { return nullptr; }
#endif

}  // namespace covey::privacy::masking
