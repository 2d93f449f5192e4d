#pragma once

/// Forward and backward of the stages of an int8 network, on one workspace, for one batch.

#include <covey/models/int8_network.hpp>
#include <cstddef>
#include <cstdint>

#include "int8_scratch.hpp"

namespace covey::models {

struct Int8Pass {
  const Int8Plan& plan;
  const Int8Kernels& kernels;
  Int8Buffers& buffers;
  const Int8Storage& parameters;
  std::size_t batch;
};

/// The optimiser step of a backward pass.
struct Int8Descent {
  float learning_rate = 0;
  float proximal_mu = 0;
  const Int8Storage* anchor = nullptr;
  std::uint64_t seed = 0;

  /// What the random numbers of one purpose in one stage hang on.
  std::uint32_t key(std::size_t stage, std::uint32_t purpose) const;
};

/// Quantises the batch to activation 0 with one scale. False if a value is not finite.
bool quantise_inputs(const Int8Pass& pass, const float* inputs);

/// Integer sums with the biases in them: pass.sums[b][o] * scale[o] is the output before relu.
/// Stages but the last: quantises the outputs with a scale of their own. The last: writes the
/// logits.
void forward(const Int8Pass& pass, std::size_t stage);

/// Given the gradient at stage's outputs in gradient buffer `from`, as int8 of units
/// `gradient_scale` / (the stage's weight scale per channel): passes it down to buffer 1 - from,
/// then steps the weights. Returns the scale of what it passed down.
float backward(const Int8Pass& pass, std::size_t stage, std::size_t from, float gradient_scale,
               const Int8Descent& descent);

/// Quantises the gradient at the logits into gradient buffer 0; returns its scale.
float quantise_loss_gradient(const Int8Pass& pass, const Int8Descent& descent);

// ---- parts that forward, inference and backward share

/// initial[o] = biases in units of scale[o], and what the operands' form adds.
void prepare_initial(const Int8Kernels& kernels, const Int8Weights& weights,
                     const std::int8_t* values, std::int32_t* initial);
/// The sums of a dense stage: [batch][padded outputs].
void dense_sums(const Int8Kernels& kernels, const Int8DenseStage& stage, const std::int8_t* values,
                const std::int8_t* inputs, std::size_t batch, const DenseForward& frame);
/// The sums of one example of a convolution, pooled: [pooled positions][padded outputs].
void convolution_sums(const Int8Kernels& kernels, const Int8ConvolutionStage& stage,
                      const std::int8_t* values, const std::int8_t* inputs,
                      const ConvolutionForward& frame, std::uint8_t* where, std::int32_t* sums);
/// One image [height][width][channels] into the middle of a padded one in operand form.
struct PaddedImage {
  std::size_t height, width, channels, kernel;
  std::size_t pad_before;  ///< rows and columns
  std::size_t pitch;       ///< int8 values from one position of the source to the next
};
void pad_image(const Int8Kernels& kernels, const PaddedImage& shape, const std::int8_t* image,
               std::byte* padded);
/// Stages without weights: outputs, and the gradient at the inputs.
void pool_forward(const Int8PoolStage& stage, const std::int8_t* x, std::int8_t* y);
void forward_without_weights(const Int8Stage& stage, std::size_t batch, const std::int8_t* x,
                             std::int8_t* y);
void pool_backward(const Int8PoolStage& stage, const std::int8_t* x, const std::int8_t* dy,
                   std::int8_t* dx);

}  // namespace covey::models
