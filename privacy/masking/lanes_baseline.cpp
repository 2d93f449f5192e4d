#include "masking/lanes_kernel.hpp"

namespace covey::privacy::masking {

const LaneKernels* lanes_baseline() { return &kLaneKernels<16>; }

}  // namespace covey::privacy::masking
