#include <algorithm>
#include <chrono>
#include <covey/models/peak.hpp>
#include <vector>

#include "kernels/kernels.hpp"

namespace covey::models {

double measure_sgemm_gflops() {
  // 168 rows are whole register tiles for every instruction set (14 and 6 rows); the operands, 0.3
  // MB, stay in the second-level cache.
  constexpr std::size_t kRows = 168, kColumns = 128, kDepth = 256;
  constexpr int kRepeats = 15, kCalls = 40;
  std::vector<float> a(kRows * kDepth, 0.5f), b(kDepth * kColumns, 0.25f),
      c(kRows * kColumns + kKernelSlack);
  GemmTask task;
  task.a = a.data();
  task.a_row = kDepth;
  task.b = b.data();
  task.b_row = kColumns;
  task.c = c.data();
  task.c_row = kColumns;
  task.rows = kRows;
  task.columns = kColumns;
  task.depth = kDepth;
  const Kernels& kernels = selected_kernels();
  double best = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (int call = 0; call < kCalls; ++call) kernels.gemm(task);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2e-9 * kRows * kColumns * kDepth * kCalls / time.count());
  }
  return best;
}

}  // namespace covey::models
