#pragma once

#include <cstddef>
#include <cstdint>

/// Arithmetic on bfloat16 weights, compiled once per instruction set like kernels/kernels.hpp and
/// under the same rule: plain structs and functions only, nothing inline. Products are summed in
/// fp32. Buffers have kKernelSlack floats (64 bytes) behind their end, which kernels may read.
namespace covey::models {

/// How a step rounds to bfloat16: up or down with the chance that makes the expectation exact. The
/// bits are a hash of (key, index of the weight), so they depend on nothing else.
struct StochasticRounding {
  std::uint64_t key = 0;    ///< another one for each step
  std::uint32_t index = 0;  ///< of the first value in the parameter vector
};

/// What a step does beside adding factor * gradient: w <- keep * w + pull * anchor + factor * g.
struct Bf16Step {
  float keep = 1;                         ///< 1 - learning_rate * (proximal_mu + weight_decay)
  float pull = 0;                         ///< learning_rate * proximal_mu
  float factor = 0;                       ///< -learning_rate
  const std::uint16_t* anchor = nullptr;  ///< of the same weights; null where pull is 0
  StochasticRounding rounding;
};

/// C[rows x columns] = bias + A B, rows of A as they lie, pairs of neighbours at a time.
struct Bf16Product {
  const std::uint16_t* a = nullptr;  ///< [rows x depth]
  std::size_t a_row = 0;
  const std::uint16_t* b = nullptr;  ///< [depth x columns]
  std::size_t b_row = 0;
  float* c = nullptr;
  std::size_t c_row = 0;
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::size_t depth = 0;
  const float* bias = nullptr;  ///< [columns]; null: none
  bool relu = false;
};

/// W[inputs x outputs] stepped by the gradient X^T dY of `rows` rows.
struct Bf16Update {
  std::uint16_t* weights = nullptr;
  const std::uint32_t* input_pairs = nullptr;  ///< pack_pairs(X), from the first of these inputs
  std::size_t pair_row = 0;                    ///< inputs of the whole X
  const std::uint16_t* gradient = nullptr;     ///< dY [rows x outputs]
  std::size_t rows = 0;
  std::size_t inputs = 0;
  std::size_t outputs = 0;
  Bf16Step step;  ///< anchor and rounding.index are of weights[0]
};

struct Bf16Kernels {
  const char* instruction_set;

  void (*product)(const Bf16Product& product);
  void (*update)(const Bf16Update& update);
  /// pairs[p * columns + c] = x[2p][c] in the lower half, x[2p + 1][c] (or 0) in the upper one.
  void (*pack_pairs)(const std::uint16_t* x, std::size_t rows, std::size_t columns,
                     std::uint32_t* pairs);
  /// Steps n weights by the gradient g in fp32.
  void (*descend)(std::uint16_t* weights, const float* g, std::size_t n, const Bf16Step& step);
  void (*widen)(const std::uint16_t* x, std::size_t n, float* y);
  /// To nearest, ties to even; a NaN stays a NaN.
  void (*narrow)(const float* x, std::size_t n, std::uint16_t* y);
  void (*narrow_stochastic)(const float* x, std::size_t n, const StochasticRounding& rounding,
                            std::uint16_t* y);
};

/// Each is null where this build has no such kernels.
const Bf16Kernels* bf16_baseline_kernels();
const Bf16Kernels* bf16_avx2_kernels();
const Bf16Kernels* bf16_avx512_kernels();
/// With the bfloat16 dot product vdpbf16ps (AVX512_BF16).
const Bf16Kernels* bf16_dot_kernels();

/// The best kernels this processor can run, lowered by COVEY_ISA; "avx512" leaves vdpbf16ps out.
const Bf16Kernels& selected_bf16_kernels();

}  // namespace covey::models
