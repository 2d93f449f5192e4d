#pragma once

#include <cstddef>
#include <cstdint>

/// The integer products and element-wise passes of the int8 engine, compiled once per instruction
/// set and chosen at run time. Every table computes the same integers, bit for bit: sums are exact
/// in 32 bits (wrapping while they are formed), and what is computed in single precision uses one
/// rounding per operation, never a fused multiply-add.
///
/// Layouts. "Padded" outputs are rounded up to kOutputPitch, inputs to kQuad; what lies between is
/// zero and stays zero.
///   weights   int8 [window rows][quads][padded outputs][4]: four consecutive inputs of one output
///             share a 32-bit word. A dense layer has one window row of all its inputs; a
///             convolution one per kernel row, of kernel * channels inputs.
///   operand   what a product multiplies the weights by, in the form the instruction set wants it:
///             operand_bytes per value, made by to_operand or one of the transposing functions.
///   sums      int32 [positions][padded outputs].
namespace covey::models {

inline constexpr std::size_t kOutputPitch = 16;
inline constexpr std::size_t kQuad = 4;
/// Bytes that a kernel may read behind an operand or write behind an int8 row.
inline constexpr std::size_t kInt8Slack = 64;

/// sums[p][o] = initial[o] + sum over rows r and inputs j of x[p * step + r * row + j] *
/// w[r][j][o].
struct Int8Product {
  const void* operand;
  std::size_t step;  ///< operand values from one position to the next
  std::size_t row;   ///< operand values from one window row to the next
  std::size_t positions;
  std::size_t rows;     ///< window rows
  std::size_t quads;    ///< per window row
  std::size_t outputs;  ///< padded
  const std::int8_t* weights;
  const std::int32_t* initial;  ///< [outputs], after offset_initial
  std::int32_t* sums;
};

/// sums[b][i] = sum over o of d[b][o] * w[i][o], for a dense layer.
struct Int8InputGradient {
  const void* gradient;             ///< from spread_gradient
  const std::int32_t* corrections;  ///< [batch], from spread_gradient
  std::size_t batch;
  std::size_t quads;    ///< of inputs
  std::size_t outputs;  ///< padded
  std::size_t pitch;    ///< of a row of sums
  const std::int8_t* weights;
  std::int32_t* sums;
};

/// The stochastically rounded step w <- clip(w - round(sum * factor[o]), +-127).
struct Int8Rounding {
  const float* factors;  ///< [outputs], in units of 2^-16 weight steps; |sum * factor| <= 2^30
  std::uint32_t key;     ///< names the random numbers of this layer and step
};

/// The weights' gradient of a dense layer, applied while it is formed.
struct Int8DenseStep {
  const void* inputs;           ///< [quads][batch quads][4 inputs][4 examples], transpose_inputs
  const std::uint8_t* live;     ///< [quads]: 0 where all inputs of the quad are zero
  const std::int8_t* gradient;  ///< [batch quads][outputs][4 examples], from interleave
  const std::int32_t* offsets;  ///< [outputs], from gradient_offsets
  std::size_t batch_quads;
  std::size_t quads;
  std::size_t outputs;  ///< padded
  Int8Rounding rounding;
  std::int8_t* weights;
};

/// Adds one band of image rows to the weights' gradient of a convolution:
/// sums[ky][j][o] += sum over rows y and positions p of x[y + ky][p][j] * d[y][p][o].
struct Int8WindowGradient {
  const void* inputs;  ///< [rows + kernel - 1][starts][channels][4 positions], window_quads
  std::size_t row;     ///< operand values of one image row of `inputs`
  std::size_t step;    ///< operand values between one quad of positions and the next
  const std::int8_t* gradient;  ///< [rows][position quads][outputs][4 positions], from interleave
  const std::int32_t* offsets;  ///< [outputs], from gradient_offsets
  std::size_t image_rows;
  std::size_t position_quads;
  std::size_t kernel;
  std::size_t run;      ///< kernel * channels
  std::size_t outputs;  ///< padded
  std::int32_t* sums;   ///< [kernel][padded run][outputs]
};

struct Int8Kernels {
  const char* instruction_set;
  std::size_t operand_bytes;
  unsigned char zero_byte;  ///< each byte of the operand form of zero

  /// out[i] = the operand form of x[i].
  void (*to_operand)(const std::int8_t* x, std::size_t n, void* out);
  /// Adds what the operand's form makes of the weights: initial[o] is ready for `product` then.
  void (*offset_initial)(const std::int8_t* weights, std::size_t quads, std::size_t outputs,
                         std::int32_t* initial);
  void (*product)(const Int8Product& task);

  /// d: [batch][outputs] with rows of `outputs`.
  void (*spread_gradient)(const std::int8_t* d, std::size_t batch, std::size_t outputs, void* out,
                          std::int32_t* corrections);
  void (*input_gradient)(const Int8InputGradient& task);

  /// x: [batch][pitch], `inputs` of each row used; out as Int8DenseStep::inputs.
  void (*transpose_inputs)(const std::int8_t* x, std::size_t batch, std::size_t pitch,
                           std::size_t inputs, void* out, std::uint8_t* live);
  /// rows: [n][columns] -> [ceil(n / 4)][columns][4], zeros behind n. columns: multiple of 16.
  void (*interleave)(const std::int8_t* rows, std::size_t n, std::size_t columns, std::int8_t* out);
  /// offsets[o]: what the operand's form adds to sums over `quads` of interleaved gradients.
  void (*gradient_offsets)(const std::int8_t* interleaved, std::size_t quads, std::size_t outputs,
                           std::int32_t* offsets);
  void (*dense_step)(const Int8DenseStep& task);

  /// One padded image row [starts + 3][channels] -> [starts][channels][4 positions]. n = starts *
  /// channels; rounded up to 16 in reading and writing.
  void (*window_quads)(const std::int8_t* row, std::size_t channels, std::size_t n, void* out);
  void (*window_gradient)(const Int8WindowGradient& task);
  /// sums: [4 * quads][outputs].
  void (*weight_step)(const std::int32_t* sums, std::size_t quads, std::size_t outputs,
                      const Int8Rounding& rounding, std::int8_t* weights);
  /// weights <- clip(weights - round(factor * (weights - anchor))), factor in units of 2^-16.
  void (*proximal_step)(std::int8_t* weights, const std::int8_t* anchor, std::size_t n,
                        float factor, std::uint32_t key);

  /// Largest |sums[r][c]| * scale[c]; with `relu` of the positive sums only. columns: multiple of 16.
  float (*largest)(const std::int32_t* sums, std::size_t rows, std::size_t columns,
                   const float* scale, bool relu);
  /// The same of one row, where the mask's value is not zero.
  float (*largest_masked)(const std::int32_t* sums, std::size_t columns, const float* scale,
                          const std::int8_t* mask);
  /// out[c] = clip(round(sums[c] * factor[c]), lowest, 127), ties to even. Whole vectors are
  /// written.
  void (*quantise)(const std::int32_t* sums, std::size_t columns, const float* factor, bool relu,
                   std::int8_t* out);
  /// out[c] = stochastically rounded sums[c] * factor[c] / 2^16, 0 where mask (if any) is 0.
  void (*quantise_randomly)(const std::int32_t* sums, std::size_t columns, const float* factor,
                            const std::int8_t* mask, std::uint32_t key, std::uint32_t index,
                            std::int8_t* out);
  /// One row of pooled sums: window x window maxima of `rows` [window][width][columns], and where.
  void (*max_pool)(const std::int32_t* rows, std::size_t width, std::size_t columns,
                   std::size_t window, std::int32_t* out, std::uint8_t* where);
  /// Fixed-point: out[c] = clip((sums[c] * multiplier[c]) >> shift[c], rounded half up), as
  /// Jacob et al. 2018, section 2.2, with one 64-bit rounding.
  void (*requantise)(const std::int32_t* sums, std::size_t columns, const std::int32_t* multiplier,
                     const std::int32_t* shift, bool relu, std::int8_t* out);
  /// Largest |x[i]|; not finite if any x is not.
  float (*largest_float)(const float* x, std::size_t n);
  /// out[i] = clip(round(x[i] * factor), +-127), ties to even.
  void (*quantise_floats)(const float* x, std::size_t n, float factor, std::int8_t* out);
};

/// Null where this program was not built for it.
const Int8Kernels* int8_portable_kernels();
const Int8Kernels* int8_avx2_kernels();
const Int8Kernels* int8_vnni_kernels();
const Int8Kernels* int8_dot_kernels();

/// The fastest the processor has; COVEY_ISA (sse2, avx2, avx512) lowers it.
const Int8Kernels& selected_int8_kernels();
/// Error text, empty if COVEY_ISA is unset or known.
bool int8_isa_override_valid(const char** value);

}  // namespace covey::models
