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

/// A 2-d convolution of one image [height x width x channels_in]. Output (y, x) looks at the window
/// that starts at (y * stride, x * stride) of the padded image [padded_height x padded_width x
/// channels_in], which ends where the last window ends: what a stride leaves over is cut off.
struct ConvolutionShape {
  std::size_t height = 0;
  std::size_t width = 0;
  std::size_t channels_in = 0;
  std::size_t channels_out = 0;  ///< depthwise: = channels_in
  std::size_t kernel = 0;
  std::size_t stride = 1;
  std::size_t rows_before = 0;     ///< of zeros, above the image
  std::size_t columns_before = 0;  ///< of zeros, left of it
  std::size_t out_height = 0;
  std::size_t out_width = 0;
  std::size_t padded_height = 0;
  std::size_t padded_width = 0;
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

/// Pooling windows of kernel x kernel, `stride` apart; rows and columns that fill no window are
/// left out.
struct PoolShape {
  std::size_t height = 0;  ///< of the input
  std::size_t width = 0;
  std::size_t channels = 0;
  std::size_t kernel = 0;
  std::size_t stride = 0;  ///< 0: kernel
};

/// Values [examples x positions x channels], normalised per example over groups of channels and all
/// positions. Layer norm: an example is a position, of one group.
struct GroupNormShape {
  std::size_t positions = 1;
  std::size_t channels = 0;
  std::size_t groups = 1;
};

/// Columns of a matrix [rows x columns] as a normalisation sees them: y = (x - center) * scale +
/// shift. Each R^columns.
struct ColumnMap {
  const float* center;
  const float* scale;
  const float* shift;
  bool relu;  ///< y = max(y, 0) in the end
};

/// One step of Adam (Kingma and Ba 2015, Algorithm 1, with the bias corrections folded in): m, v
/// and then w -= rate * m / (sqrt(v) * root + epsilon).
struct AdamStep {
  float beta1;
  float beta2;
  float rate;  ///< learning rate / (1 - beta1^t)
  float root;  ///< 1 / sqrt(1 - beta2^t)
  float epsilon;
};

/// A matrix [depth x columns], row-major or transposed, to be copied into strips.
struct PackTask {
  const float* from = nullptr;
  std::size_t from_row = 0;  ///< floats between rows, or, transposed, between columns
  bool transposed = false;
  std::size_t depth = 0;
  std::size_t columns = 0;
  float factor = 1;     ///< of every value
  float* to = nullptr;  ///< depth * columns, these rounded up to kWidestStrip
};

/// Columns of a strip: two vectors of the widest set; narrower ones make narrower strips.
inline constexpr std::size_t kWidestStrip = 32;

/// Deepest block of a strip that stays in the first-level cache beside what it is multiplied with:
/// 32 KiB.
inline constexpr std::size_t kPanelDepth = 256;
inline constexpr std::size_t kPanelFloats = kPanelDepth * kWidestStrip;

struct PanelOptions {
  bool transposed = false;  ///< B(k, n) = b[n * b_row + k]
  float factor = 1;         ///< of the product
  float* panel = nullptr;   ///< scratch, kPanelFloats
};

/// One step of a recurrent layer for `batch` examples. A `row` is what lies between an example's
/// values and the next one's, in floats.
struct LstmStep {
  std::size_t batch = 0;
  std::size_t units = 0;
  const float* peephole = nullptr;  ///< [3 x units] of the gates i, f, o; or null
  float* gates = nullptr;           ///< [batch x 4 units]: before their functions, then i, f, g, o
  std::size_t gates_row = 0;
  const float* cells_before = nullptr;  ///< [batch x units]; null: zero
  float* cells = nullptr;               ///< [batch x units]
  std::size_t cells_row = 0;
  float* hidden = nullptr;  ///< [batch x units], h of this step
  std::size_t hidden_row = 0;
  float* state = nullptr;  ///< [batch x units], the same h
  std::size_t state_row = 0;
};

struct LstmStepGradient {
  const float* hidden = nullptr;  ///< dL/dh from above, rows as in LstmStep; null: zero
  std::size_t hidden_row = 0;
  const float* state = nullptr;  ///< [batch x units] without gaps, dL/dh from the step after
  float* cells = nullptr;        ///< likewise dL/dc from the step after, then for the step before
  float* gates = nullptr;        ///< [batch x 4 units], dL/d(gates before their functions) again
  std::size_t gates_row = 0;
  float* sums = nullptr;  ///< [7 x units]: the biases' and peepholes' gradients are added
};

struct GruStep {
  std::size_t batch = 0;
  std::size_t units = 0;
  float* gates = nullptr;  ///< [batch x 4 units]: inputs' part of r, z, n; then r, z, n, q
  std::size_t gates_row = 0;
  const float* recurrent = nullptr;      ///< [batch x 3 units]: the state's part of r, z, and q
  const float* hidden_before = nullptr;  ///< [batch x units]; null: zero
  float* hidden = nullptr;               ///< [batch x units], h of this step
  std::size_t hidden_row = 0;
  float* state = nullptr;  ///< [batch x units], the same h
  std::size_t state_row = 0;
};

struct GruStepGradient {
  const float* hidden = nullptr;  ///< dL/dh from above, rows as in GruStep; null: zero
  std::size_t hidden_row = 0;
  float* state = nullptr;  ///< [batch x units] without gaps, dL/dh from the step after, then the
                           ///< part of dL/dh_before that does not come through the gates
  float* gates = nullptr;  ///< [batch x 3 units], dL/d(r, z, q)
  std::size_t gates_row = 0;
  float* sums = nullptr;  ///< [4 x units]: the sums of the gradients of r, z, n, q are added
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
  /// Copies a matrix into strips of 2 * vector_floats columns, each [depth x strip], zero beyond
  /// the last column.
  void (*pack_strips)(const PackTask& task);
  /// gemm where b are strips of one segment; b_row is not read. For a B that many products share.
  void (*gemm_strips)(const GemmTask& task);
  /// gemm of one segment for many rows: B is packed piece by piece, and each piece serves all rows.
  void (*gemm_panels)(const GemmTask& task, const PanelOptions& options);
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
  /// Softmax cross-entropy of logits [rows x classes]; a row with a negative label has no target:
  /// no loss and no gradient. Where `gradient` is not null it receives
  /// scale * (softmax - one-hot).
  SoftmaxResult (*softmax)(const float* logits, const std::int32_t* labels, std::size_t rows,
                           std::size_t classes, float scale, float* gradient);
  /// gelu(x) = x * Phi(x), Phi the standard normal's distribution function.
  void (*gelu)(const float* x, std::size_t n, float* y);
  /// gradient *= gelu'(x).
  void (*gelu_backward)(const float* x, std::size_t n, float* gradient);
  void (*tanh)(const float* x, std::size_t n, float* y);
  /// gradient *= 1 - y^2.
  void (*tanh_backward)(const float* y, std::size_t n, float* gradient);
  void (*sigmoid)(const float* x, std::size_t n, float* y);
  /// gradient *= y * (1 - y).
  void (*sigmoid_backward)(const float* y, std::size_t n, float* gradient);
  /// y[i] = 0 with chance `rate`, else x[i] / (1 - rate); by (key, i) alone, the same on every
  /// instruction set. n < 2^31.
  void (*dropout)(const float* x, std::size_t n, std::uint64_t key, float rate, float* y);
  /// Sum of (y - target)^2; gradient[i] = factor * (y[i] - target[i]) where there is one.
  double (*squared_error)(const float* y, const float* target, std::size_t n, float factor,
                          float* gradient);
  double (*squared_norm)(const float* x, std::size_t n);
  /// m = momentum * m + g; w -= rate * m, or, nesterov, rate * (g + momentum * m).
  void (*momentum_step)(const float* g, std::size_t n, float momentum, float rate, bool nesterov,
                        float* m, float* w);
  void (*adam_step)(const AdamStep& step, const float* g, std::size_t n, float* m, float* v,
                    float* w);
  /// i, f, o = sigmoid, g = tanh of the gates; c = f c_before + i g; h = o tanh(c). With peepholes
  /// p: i and f also see p c_before, o sees p c.
  void (*lstm_step)(const LstmStep& step);
  /// Overwrites step.gates with their gradient, of the values before their functions.
  void (*lstm_step_backward)(const LstmStep& step, const LstmStepGradient& gradient);
  /// r, z = sigmoid(inputs' part + state's part), n = tanh(inputs' part + r q); h = (1 - z) n + z
  /// h_before.
  void (*gru_step)(const GruStep& step);
  /// Overwrites step.gates with the gradient of r, z, n (before their functions) and q.
  void (*gru_step_backward)(const GruStep& step, const GruStepGradient& gradient);
  void (*max_pool)(const PoolShape& shape, const float* x, float* y);
  /// gradient_x is written whole; ties go to the first maximum of the window.
  void (*max_pool_backward)(const PoolShape& shape, const float* x, const float* y,
                            const float* gradient_y, float* gradient_x);
  void (*average_pool)(const PoolShape& shape, const float* x, float* y);
  /// gradient_x is written whole.
  void (*average_pool_backward)(const PoolShape& shape, const float* gradient_y, float* gradient_x);
  /// Mean and variance (mean of squared differences) of each column.
  void (*column_moments)(const float* x, std::size_t rows, std::size_t columns, float* mean,
                         float* variance);
  void (*map_columns)(const ColumnMap& map, const float* x, std::size_t rows, std::size_t columns,
                      float* y);
  /// sums[n] = sum over rows of g, products[n] = sum of g * (x - center[n]).
  void (*column_products)(const float* g, const float* x, const float* center, std::size_t rows,
                          std::size_t columns, float* sums, float* products);
  /// gradient_x = g * scale + (x - center) * slope + shift, column by column; slope and shift are
  /// given as `map_x` (scale and shift).
  void (*normalise_backward)(const ColumnMap& map_x, const float* scale, const float* g,
                             const float* x, std::size_t rows, std::size_t columns,
                             float* gradient_x);
  /// Sums of `groups` equal parts of values[0, n).
  void (*part_sums)(const float* values, std::size_t n, std::size_t groups, float* sums);
  /// y [out_height * out_width x channels] of one image [height x width x channels], not padded.
  void (*depthwise)(const ConvolutionShape& shape, const float* x, const float* weights,
                    const float* bias, bool relu, float* y);
  /// gradient_x is written whole.
  void (*depthwise_input_gradient)(const ConvolutionShape& shape, const float* gradient_y,
                                   const float* weights, float* gradient_x);
  /// weights [kernel x kernel x channels] += alpha * their gradient over a batch of images.
  void (*depthwise_weight_gradient)(const ConvolutionShape& shape, std::size_t batch,
                                    const float* x, const float* gradient_y, float alpha,
                                    float* weights);
  /// y [out_height * out_width x channels_out] of one padded image.
  void (*convolve)(const ConvolutionShape& shape, const float* padded, const float* weights,
                   const float* bias, bool relu, float* y);
  /// Lists the non-zeros of gradient_y [out_height * out_width x channels_out].
  void (*list_gradient)(const ConvolutionShape& shape, const float* gradient_y,
                        const SparseGradient& lists);
  /// transposed [kernel x channels_out x tap_pitch] += the weights' gradient of one image.
  void (*convolve_weight_gradient)(const ConvolutionShape& shape, const float* padded,
                                   const SparseGradient& lists, float* transposed);
  /// padded_gradient += the input's gradient of one image.
  void (*convolve_input_gradient)(const ConvolutionShape& shape, const float* transposed,
                                  const SparseGradient& lists, float* padded_gradient);

  // ---- quantisation-aware training (kernels/quantise.hpp)
  /// Largest |x|; 0 of nothing. A NaN does not count.
  float (*max_magnitude)(const float* x, std::size_t n);
  /// magnitudes[n] = largest |x[m * columns + n]| over the rows m.
  void (*max_column_magnitudes)(const float* x, std::size_t rows, std::size_t columns,
                                float* magnitudes);
  /// y = scales[column] * round(x / scales[column]), ties to even, to the bit; every scale has at
  /// most 16 significant bits and |x / scale| <= 127. inverses[column] = 1 / scales[column].
  void (*fake_quantise_columns)(const float* x, std::size_t rows, std::size_t columns,
                                const float* scales, const float* inverses, float* y);
  /// y = scale * clip(round(x / scale), -127, 127); a NaN stays.
  void (*fake_quantise)(const float* x, std::size_t n, float scale, float* y);
  /// gradient_x = gradient_y where |x| <= bound, else 0.
  void (*pass_within)(const float* x, std::size_t n, float bound, const float* gradient_y,
                      float* gradient_x);
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
