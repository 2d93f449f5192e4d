#pragma once

#include <cstddef>
#include <cstdint>

/// The arithmetic of the training engine, compiled once per instruction set from the same source
/// and chosen at run time. Plain structs and functions only: this header is seen by files compiled
/// for processors we may not be running on, so nothing here may have an inline body that the linker
/// could pick from the wrong one.
namespace covey::models {

/// C[rows x columns] = start + sum over segments s and depth k of
///   A(m, s, k) * B[(s * depth + k) * b_row + n],  A(m, s, k) = a[m * a_row + s * a_segment + k *
///   a_col].
/// start is C itself (accumulate), the bias of each column, or zero. A row-major matrix has a_col
/// 1, a transposed one a_row 1; a convolution over padded rows has one segment per kernel row.
struct GemmTask {
  const float* a = nullptr;
  std::size_t a_row = 0;
  std::size_t a_col = 1;
  std::size_t a_segment = 0;
  const float* b = nullptr;
  std::size_t b_row = 0;
  float* c = nullptr;
  std::size_t c_row = 0;
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::size_t depth = 0;
  std::size_t segments = 1;
  const float* bias = nullptr;  ///< [columns]; null: start from zero
  bool accumulate = false;
  bool relu = false;
};

/// A 2-d convolution, stride 1, same padding, over one image [height x width x channels_in].
/// The padded image is [height + kernel - 1 x width + kernel - 1 x channels_in].
struct ConvolutionShape {
  std::size_t height = 0;
  std::size_t width = 0;
  std::size_t channels_in = 0;
  std::size_t channels_out = 0;
  std::size_t kernel = 0;
  std::size_t tap_pitch = 0;  ///< floats of one (kernel row, channel) of transposed weights
};

/// One non-zero of an output gradient: its value and where (in floats) its partner row starts.
struct SparseEntry {
  std::uint32_t offset;
  float value;
};

/// The non-zeros of one image's output gradient, listed twice: by output channel (for the weights'
/// gradient; offset of the padded input window) and by position (for the input's gradient; offset
/// of the channel's transposed weights). Lists start at channel * positions and position *
/// channels.
struct SparseGradient {
  SparseEntry* by_channel = nullptr;
  std::uint32_t* channel_counts = nullptr;
  SparseEntry* by_position = nullptr;
  std::uint32_t* position_counts = nullptr;
};

struct PoolShape {
  std::size_t height = 0;  ///< of the input
  std::size_t width = 0;
  std::size_t channels = 0;
  std::size_t kernel = 0;  ///< = stride; rows and columns that fill no window are left out
};

struct SoftmaxResult {
  double loss_sum;
  std::size_t correct;
};

/// Floats behind every buffer's end that kernels may read and write back: one vector of the widest
/// set.
inline constexpr std::size_t kKernelSlack = 16;

struct Kernels {
  const char* instruction_set;
  std::size_t vector_floats;

  void (*gemm)(const GemmTask& task);
  /// sums[n] += alpha * sum over rows of x[row * columns + n].
  void (*add_column_sums)(const float* x, std::size_t rows, std::size_t columns, float alpha,
                          float* sums);
  void (*relu)(const float* x, std::size_t n, float* y);
  /// gradient[i] = 0 where y[i] <= 0.
  void (*relu_backward)(const float* y, std::size_t n, float* gradient);
  void (*scale)(float* x, std::size_t n, float factor);
  /// w += alpha * g.
  void (*add_scaled)(const float* g, std::size_t n, float alpha, float* w);
  /// w -= rate * (w - anchor).
  void (*pull)(const float* anchor, std::size_t n, float rate, float* w);
  /// Softmax cross-entropy of logits [rows x classes]; where `gradient` is not null it receives
  /// scale * (softmax - one-hot).
  SoftmaxResult (*softmax)(const float* logits, const std::int32_t* labels, std::size_t rows,
                           std::size_t classes, float scale, float* gradient);
  void (*max_pool)(const PoolShape& shape, const float* x, float* y);
  /// gradient_x is written whole; ties go to the first maximum of the window.
  void (*max_pool_backward)(const PoolShape& shape, const float* x, const float* y,
                            const float* gradient_y, float* gradient_x);
  /// y [height * width x channels_out] of one padded image.
  void (*convolve)(const ConvolutionShape& shape, const float* padded, const float* weights,
                   const float* bias, bool relu, float* y);
  /// Lists the non-zeros of gradient_y [height * width x channels_out].
  void (*list_gradient)(const ConvolutionShape& shape, const float* gradient_y,
                        const SparseGradient& lists);
  /// transposed [kernel x channels_out x tap_pitch] += the weights' gradient of one image.
  void (*convolve_weight_gradient)(const ConvolutionShape& shape, const float* padded,
                                   const SparseGradient& lists, float* transposed);
  /// padded_gradient += the input's gradient of one image.
  void (*convolve_input_gradient)(const ConvolutionShape& shape, const float* transposed,
                                  const SparseGradient& lists, float* padded_gradient);
};

/// Each is null where this build has no such kernels.
const Kernels* baseline_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

/// The best kernels this processor can run, lowered by COVEY_ISA (sse2, avx2, avx512).
const Kernels& selected_kernels();
/// Whether COVEY_ISA is unset or names an instruction set; where not, `value` receives what it
/// says.
bool isa_override_valid(const char** value);

}  // namespace covey::models
