#include "masking/lanes_kernel.hpp"

namespace covey::privacy::masking {

#if defined(__AVX2__)
const LaneKernels* lanes_avx2() { return &kLaneKernels<32>; }
#else
const LaneKernels* lanes_avx2() { return nullptr; }
#endif

}  // namespace covey::privacy::masking
