#pragma once

namespace covey::models {

/// The most GFLOP/s that the engine's matrix product reached on this thread, on operands that fit the
/// second-level cache: the ceiling that training is compared with. Takes about 50 ms.
double measure_sgemm_gflops();

}  // namespace covey::models
