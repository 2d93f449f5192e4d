#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "int8_plan.hpp"

namespace covey::models {

/// Zeroed bytes on a cache line.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(std::size_t size)
      : data_(static_cast<std::byte*>(::operator new[](size, std::align_val_t{64}))), size_(size) {
    std::memset(data_.get(), 0, size);
  }
  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte[], Free> data_;
  std::size_t size_ = 0;
};

/// Hands out parts of one buffer, on cache lines. Without a buffer it only counts, so the same code
/// that carves a frame also measures it.
class Carver {
 public:
  explicit Carver(std::byte* base = nullptr) : base_(base) {}

  template <typename T>
  T* take(std::size_t n) {
    void* part = base_ == nullptr ? nullptr : base_ + used_;
    used_ += padded_to(n * sizeof(T), 64);
    return static_cast<T*>(part);
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

/// What a dense stage needs while it runs forward.
struct DenseForward {
  std::size_t operand_pitch;  ///< values of one example
  std::byte* operand;         ///< [batch][operand_pitch]
  std::int32_t* initial;      ///< [outputs]
  float* scale;               ///< [outputs] of a sum's unit
  float* factor;              ///< [outputs] from sums to int8
  std::int32_t* sums;         ///< [batch][outputs]

  DenseForward(Carver& carver, const Int8DenseStage& stage, std::size_t batch,
               std::size_t operand_bytes);
};

struct ConvolutionForward {
  std::size_t padded_row;  ///< values
  std::size_t padded_rows;
  std::byte* image;          ///< one padded image in operand form
  std::size_t image_values;  ///< including what kernels read behind it
  std::int32_t* initial;
  float* scale;
  float* factor;
  std::int32_t* rows;   ///< [pool][width][outputs], only with pooling
  std::uint8_t* where;  ///< [pooled width][outputs], for inference
  std::int32_t* sums;   ///< [batch][pooled positions][outputs]

  ConvolutionForward(Carver& carver, const Int8ConvolutionStage& stage, std::size_t batch,
                     std::size_t operand_bytes);
};

/// What a dense stage needs while it runs backward. The input's gradient, then the weights'.
struct DenseBackward {
  std::byte* spread;          ///< the gradient as input_gradient wants it
  std::int32_t* corrections;  ///< [batch]
  float* scale;               ///< [inputs]
  float* factor;              ///< [inputs]
  std::int32_t* sums;         ///< [batch][inputs]
  std::byte* inputs;          ///< transposed
  std::uint8_t* live;         ///< [quads]
  std::int8_t* gradient;      ///< interleaved
  std::int32_t* offsets;      ///< [outputs]
  float* step;                ///< [outputs] weight steps per unit of the sums

  DenseBackward(Carver& carver, const Int8DenseStage& stage, std::size_t batch,
                std::size_t operand_bytes, bool passes_down);
};

struct ConvolutionBackward {
  std::int8_t* gradient;      ///< one example's, unpooled: [height][width][outputs]
  std::int8_t* input_row;     ///< one padded image row
  std::size_t starts;         ///< positions in `inputs` of one image row
  std::size_t inputs_row;     ///< values of one row of `inputs`
  std::size_t band_rows;      ///< image rows that go through window_gradient together
  std::byte* inputs;          ///< [band rows + kernel - 1] rows of quads
  std::int8_t* interleaved;   ///< [band rows][position quads][outputs][4]
  std::int32_t* offsets;      ///< [outputs]
  std::int32_t* weight_sums;  ///< [kernel][padded run][outputs]
  std::int32_t* bias_sums;    ///< [outputs]
  float* step;                ///< [outputs]
  // the input's gradient: a convolution of the output's gradient with turned weights
  Int8Weights turned;  ///< shape only
  std::int8_t* turned_weights;
  std::size_t padded_row;
  std::size_t padded_rows;
  std::size_t image_values;
  std::byte* image;
  std::int32_t* initial;
  float* scale;        ///< [padded channels]
  float* factor;       ///< [padded channels]
  std::int32_t* sums;  ///< [batch][positions][padded channels]

  ConvolutionBackward(Carver& carver, const Int8ConvolutionStage& stage, std::size_t batch,
                      std::size_t operand_bytes, bool passes_down);
};

/// Scratch of one stage, forward and (in training) backward.
std::size_t stage_scratch(const Int8Plan& plan, std::size_t stage, std::size_t batch,
                          bool training);

/// Offsets of everything that a workspace holds.
struct Int8WorkspaceLayout {
  std::size_t max_batch = 0;
  bool training = false;
  std::vector<std::size_t> activations;  ///< [stages + 1], the network's input first
  std::vector<std::size_t> where;        ///< [stages], of pooled maxima; training only
  std::size_t gradients[2] = {0, 0};
  std::size_t logits = 0;
  std::size_t scratch = 0;
  std::size_t size = 0;

  Int8WorkspaceLayout(const Int8Plan& plan, std::size_t batch, bool for_training);
  static Int8MemoryPlan memory(const Int8Plan& plan, std::size_t batch, bool for_training);
};

struct Int8Buffers {
  Int8WorkspaceLayout layout;
  AlignedBytes bytes;
  std::vector<float> scales;  ///< [stages + 1], of the activations

  Int8Buffers(const Int8Plan& plan, std::size_t batch, bool for_training)
      : layout(plan, batch, for_training), bytes(layout.size), scales(plan.stages.size() + 1) {}

  std::int8_t* activations(std::size_t i) const {
    return reinterpret_cast<std::int8_t*>(bytes.data() + layout.activations[i]);
  }
  std::uint8_t* where(std::size_t stage) const {
    return reinterpret_cast<std::uint8_t*>(bytes.data() + layout.where[stage]);
  }
  std::int8_t* gradient(std::size_t i) const {
    return reinterpret_cast<std::int8_t*>(bytes.data() + layout.gradients[i]);
  }
  float* logits() const { return reinterpret_cast<float*>(bytes.data() + layout.logits); }
  std::byte* scratch() const { return bytes.data() + layout.scratch; }
};

struct Int8Storage {
  AlignedBytes bytes;
  explicit Int8Storage(std::size_t size) : bytes(size) {}
  std::int8_t* values(const Int8Weights& w) const {
    return reinterpret_cast<std::int8_t*>(bytes.data() + w.values);
  }
  float* scales(const Int8Weights& w) const {
    return reinterpret_cast<float*>(bytes.data() + w.scales);
  }
  float* biases(const Int8Weights& w) const {
    return reinterpret_cast<float*>(bytes.data() + w.biases);
  }
};

struct Int8Workspace::Buffers : Int8Buffers {
  using Int8Buffers::Int8Buffers;
};
struct Int8Parameters::Storage : Int8Storage {
  using Int8Storage::Int8Storage;
};

}  // namespace covey::models
