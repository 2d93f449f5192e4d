#include <algorithm>
#include <cstring>

#include "layers.hpp"

namespace covey::models {

namespace {

std::size_t row_floats(const ConvolutionStage& stage) {
  return stage.shape.width * stage.shape.channels_in;
}

/// Where the image starts inside its padding: (kernel - 1) / 2 rows and columns before it.
std::size_t interior(const ConvolutionStage& stage) {
  const std::size_t before = (stage.shape.kernel - 1) / 2;
  return before * stage.padded_row() + before * stage.shape.channels_in;
}

float* padded_image(const ConvolutionStage& stage, WorkspaceBuffers& buffers, std::size_t b) {
  return buffers.padded + stage.padded * buffers.chunk + b * stage.padded_size();
}

void pad(const ConvolutionStage& stage, const float* image, float* padded) {
  float* to = padded + interior(stage);
  for (std::size_t y = 0; y < stage.shape.height; ++y) {
    std::memcpy(to + y * stage.padded_row(), image + y * row_floats(stage),
                row_floats(stage) * sizeof(float));
  }
}

void unpad(const ConvolutionStage& stage, const float* padded, float* image) {
  const float* from = padded + interior(stage);
  for (std::size_t y = 0; y < stage.shape.height; ++y) {
    std::memcpy(image + y * row_floats(stage), from + y * stage.padded_row(),
                row_floats(stage) * sizeof(float));
  }
}

/// f(index in the layer's [kernel, kernel x channels_in, channels_out], index in the transposed
/// [kernel, channels_out, tap_pitch]).
template <typename F>
void for_each_weight(const ConvolutionShape& shape, F f) {
  const std::size_t taps = shape.kernel * shape.channels_in;
  for (std::size_t ky = 0; ky < shape.kernel; ++ky) {
    for (std::size_t tap = 0; tap < taps; ++tap) {
      for (std::size_t c = 0; c < shape.channels_out; ++c) {
        f((ky * taps + tap) * shape.channels_out + c,
          (ky * shape.channels_out + c) * shape.tap_pitch + tap);
      }
    }
  }
}

void image_backward(const ConvolutionStage& stage, const BackwardPass& pass, std::size_t b) {
  const ConvolutionShape& shape = stage.shape;
  WorkspaceBuffers& buffers = pass.buffers;
  const SparseGradient lists = buffers.lists();
  pass.kernels.list_gradient(shape, pass.gradient_outputs + b * stage.outputs(), lists);
  pass.kernels.convolve_weight_gradient(shape, padded_image(stage, buffers, b), lists,
                                        buffers.weights_gradient);
  if (pass.gradient_inputs == nullptr) return;
  std::fill_n(buffers.padded_gradient, stage.padded_size(), 0.0f);
  pass.kernels.convolve_input_gradient(shape, buffers.weights_transposed, lists,
                                       buffers.padded_gradient);
  unpad(stage, buffers.padded_gradient, pass.gradient_inputs + b * stage.inputs());
}

}  // namespace

void convolution_forward(const ConvolutionStage& stage, const Kernels& kernels,
                         WorkspaceBuffers& buffers, std::size_t batch, const float* parameters,
                         const float* inputs, float* outputs) {
  for (std::size_t b = 0; b < batch; ++b) {
    float* padded = padded_image(stage, buffers, b);
    pad(stage, inputs + b * stage.inputs(), padded);
    kernels.convolve(stage.shape, padded, parameters + stage.weight, parameters + stage.bias,
                     stage.relu, outputs + b * stage.outputs());
  }
}

void convolution_backward(const ConvolutionStage& stage, const BackwardPass& pass,
                          const Descent& descent) {
  const ConvolutionShape& shape = stage.shape;
  const std::size_t size = pass.batch * stage.outputs();
  if (stage.relu) pass.kernels.relu_backward(pass.outputs, size, pass.gradient_outputs);
  descent.pull(pass.kernels, stage.bias, shape.channels_out);
  pass.kernels.add_column_sums(pass.gradient_outputs, size / shape.channels_out, shape.channels_out,
                               descent.factor(), descent.values + stage.bias);
  float* transposed = pass.buffers.weights_transposed;
  if (pass.gradient_inputs != nullptr) {
    // The pitch's unused floats must be zero: the kernels run over whole vectors.
    std::fill_n(transposed, stage.transposed_size(), 0.0f);
    const float* weights = pass.parameters + stage.weight;
    for_each_weight(shape, [&](std::size_t i, std::size_t t) { transposed[t] = weights[i]; });
  }
  float* gradient = pass.buffers.weights_gradient;
  std::fill_n(gradient, stage.transposed_size(), 0.0f);
  for (std::size_t b = 0; b < pass.batch; ++b) image_backward(stage, pass, b);

  descent.pull(pass.kernels, stage.weight, stage.depth() * shape.channels_out);
  float* values = descent.values + stage.weight;
  const float factor = descent.factor();
  for_each_weight(shape, [&](std::size_t i, std::size_t t) { values[i] += factor * gradient[t]; });
}

}  // namespace covey::models
