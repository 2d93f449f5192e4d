#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "memory_plan.hpp"
#include "network_plan.hpp"

namespace covey::models {

/// fp32 buffers that one stage's forward or backward pass uses while it runs: offsets in floats,
/// StageBuffers::kNone where there is none.
struct Bf16Working {
  std::size_t inputs = StageBuffers::kNone;  ///< of a piece, as are skip, outputs and saved
  std::size_t skip = StageBuffers::kNone;
  std::size_t outputs = StageBuffers::kNone;
  std::size_t saved = StageBuffers::kNone;
  std::size_t scratch = StageBuffers::kNone;
  std::size_t weights = StageBuffers::kNone;   ///< the stage's parameters, widened
  std::size_t gradient = StageBuffers::kNone;  ///< of the stage's parameters
};

/// A dense stage's own scratch in the backward pass.
struct Bf16DenseScratch {
  std::size_t gather_piece = 1;  ///< examples whose inputs are widened to gather the gradient
  std::size_t gradient = StageBuffers::kNone;    ///< bf16 dY [rows x outputs]
  std::size_t transposed = StageBuffers::kNone;  ///< bf16 dY^T [outputs x pitch]
  std::size_t pairs = StageBuffers::kNone;       ///< X by pairs of rows
  std::size_t rows = StageBuffers::kNone;        ///< fp32 dX^T of some inputs
};

/// Where one stage keeps what.
struct Bf16Stage {
  std::size_t parameter = 0;  ///< offset of its first parameter
  /// Examples that go through the stage together: bounds the fp32 that exists at a time.
  std::size_t piece = 1;
  bool exact_saved = false;                         ///< saved is kept in fp32
  std::size_t outputs = StageBuffers::kNone;        ///< bf16, whole batch
  std::size_t saved = StageBuffers::kNone;          ///< bf16 (or fp32), piece after piece
  std::size_t gradient = StageBuffers::kNone;       ///< fp32, of the outputs, whole batch
  std::size_t skip_gradient = StageBuffers::kNone;  ///< as in StageBuffers
  Bf16Working forward;
  Bf16Working backward;
  Bf16DenseScratch dense;
};

/// Where everything lies for batches of up to `chunk` examples. Only bf16 is kept from a stage's
/// forward to its backward pass; fp32 buffers share their places. Moments as in MemoryPlan.
struct Bf16Plan {
  std::size_t chunk = 0;
  std::size_t floats = 0;                    ///< of the block
  std::size_t inputs = StageBuffers::kNone;  ///< the examples as bf16, for a dense first stage
  std::size_t scores = StageBuffers::kNone;  ///< the last stage's outputs, fp32
  std::vector<Bf16Stage> stages;

  static Bf16Plan make(const NetworkPlan& plan, std::size_t max_batch);
};

/// Weight rows whose input gradient and update follow each other: whole tiles of 14, 12 and 4 rows.
inline constexpr std::size_t kBf16TurnRows = 84;
/// Rows rounded up to whole vectors of the widest instruction set.
constexpr std::size_t bf16_pitch(std::size_t rows) { return (rows + 15) / 16 * 16; }

/// A block of zeroed memory, aligned to cache lines, with kKernelSlack floats behind it.
class Bf16Block {
 public:
  Bf16Block() = default;
  explicit Bf16Block(std::size_t bytes);

  std::size_t bytes() const { return bytes_; }
  /// Null where there is no such buffer. Offsets are in floats for both.
  float* floats(std::size_t offset) const { return at<float>(offset); }
  std::uint16_t* halves(std::size_t offset) const { return at<std::uint16_t>(offset); }
  std::uint32_t* words(std::size_t offset) const { return at<std::uint32_t>(offset); }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  template <typename T>
  T* at(std::size_t offset) const {
    if (offset == StageBuffers::kNone) return nullptr;
    return reinterpret_cast<T*>(data_.get() + offset * sizeof(float));
  }
  std::unique_ptr<std::byte, Free> data_;
  std::size_t bytes_ = 0;
};

}  // namespace covey::models
