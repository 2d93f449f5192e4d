#include "layers/convolution.hpp"

#include <algorithm>
#include <cstring>

#include "layers/dense.hpp"
#include "layers/windows.hpp"
#include "planner.hpp"

namespace covey::models {

namespace {

/// The part of the image that windows see, which lies inside its padding: a stride may leave rows
/// and columns over.
struct Interior {
  explicit Interior(const ConvolutionStage& stage) {
    const ConvolutionShape& shape = stage.shape;
    rows = std::min(shape.height, shape.padded_height - shape.rows_before);
    row = std::min(shape.width, shape.padded_width - shape.columns_before) * shape.channels_in;
    left = shape.columns_before * shape.channels_in;
    above = shape.rows_before * stage.padded_row();
    image_row = shape.width * shape.channels_in;
  }

  std::size_t rows;
  std::size_t row;        ///< floats of a row
  std::size_t left;       ///< zeros before each row
  std::size_t above;      ///< zeros before the first row
  std::size_t image_row;  ///< floats of a row of the whole image
};

/// The image with its border of zeros: the block that holds it had other uses meanwhile.
void pad(const ConvolutionStage& stage, const float* image, float* padded) {
  const Interior inside(stage);
  float* to = std::fill_n(padded, inside.above, 0.0f);
  for (std::size_t y = 0; y < inside.rows; ++y, to += stage.padded_row()) {
    std::fill_n(to, inside.left, 0.0f);
    std::memcpy(to + inside.left, image + y * inside.image_row, inside.row * sizeof(float));
    std::fill(to + inside.left + inside.row, to + stage.padded_row(), 0.0f);
  }
  std::fill(to, padded + stage.padded_size(), 0.0f);
}

void unpad(const ConvolutionStage& stage, const float* padded, float* image) {
  const Interior inside(stage);
  const float* from = padded + inside.above + inside.left;
  for (std::size_t y = 0; y < stage.shape.height; ++y, image += inside.image_row) {
    const std::size_t seen = y < inside.rows ? inside.row : 0;
    std::copy_n(from + y * stage.padded_row(), seen, image);
    std::fill(image + seen, image + inside.image_row, 0.0f);
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

/// Where the parts of the backward pass's scratch start, in floats.
struct ScratchParts {
  explicit ScratchParts(const ConvolutionStage& stage) {
    const auto take = [this](std::size_t floats) {
      const std::size_t at = size;
      size += round_to_vectors(floats);
      return at;
    };
    transposed = take(stage.transposed_size());
    gradient = take(stage.transposed_size() + kKernelSlack);
    padded_gradient = take(stage.padded_size());
    by_channel = take(2 * stage.outputs());
    by_position = take(2 * stage.outputs());
    channel_counts = take(stage.shape.channels_out);
    position_counts = take(positions_of(stage.shape));
  }

  std::size_t size = 0;
  std::size_t transposed, gradient, padded_gradient;
  std::size_t by_channel, by_position, channel_counts, position_counts;
};

struct Scratch {
  Scratch(const ConvolutionStage& stage, float* from) {
    const ScratchParts parts(stage);
    transposed = from + parts.transposed;
    gradient = from + parts.gradient;
    padded_gradient = from + parts.padded_gradient;
    lists = {reinterpret_cast<SparseEntry*>(from + parts.by_channel),
             reinterpret_cast<std::uint32_t*>(from + parts.channel_counts),
             reinterpret_cast<SparseEntry*>(from + parts.by_position),
             reinterpret_cast<std::uint32_t*>(from + parts.position_counts)};
  }

  float* transposed;       ///< weights, [kernel x channels_out x tap_pitch]
  float* gradient;         ///< of the weights, the same shape
  float* padded_gradient;  ///< one image
  SparseGradient lists;
};

void image_backward(const ConvolutionStage& stage, const BackwardPass& pass, Scratch& scratch,
                    std::size_t b) {
  const ConvolutionShape& shape = stage.shape;
  const SparseGradient& lists = scratch.lists;
  pass.kernels.list_gradient(shape, pass.gradient_outputs + b * stage.outputs(), lists);
  pass.kernels.convolve_weight_gradient(shape, pass.saved + b * stage.padded_size(), lists,
                                        scratch.gradient);
  if (pass.gradient_inputs == nullptr) return;
  std::fill_n(scratch.padded_gradient, stage.padded_size(), 0.0f);
  pass.kernels.convolve_input_gradient(shape, scratch.transposed, lists, scratch.padded_gradient);
  unpad(stage, scratch.padded_gradient, pass.gradient_inputs + b * stage.inputs());
}

/// Without relu, and with nothing below that wants a gradient, the output's gradient is dense and
/// read once: listing its non-zeros costs more than the products.
bool has_dense_gradient(const ConvolutionStage& stage, const BackwardPass& pass) {
  return !stage.relu && pass.gradient_inputs == nullptr;
}

/// gradient [kernel x kernel x channels_in x channels_out] = windows^T dY over the whole batch.
void dense_weight_gradient(const ConvolutionStage& stage, const BackwardPass& pass,
                           float* gradient) {
  const ConvolutionShape& shape = stage.shape;
  const std::size_t taps = shape.kernel * shape.channels_in;  // of one kernel row
  std::fill_n(gradient, stage.depth() * shape.channels_out, 0.0f);
  GemmTask task;
  task.a_row = 1;
  task.a_col = shape.stride * shape.channels_in;
  task.a_segment = shape.stride * stage.padded_row();
  task.b_row = task.c_row = task.columns = shape.channels_out;
  task.rows = taps;
  task.depth = shape.out_width;
  task.segments = shape.out_height;
  task.accumulate = true;
  for (std::size_t b = 0; b < pass.batch; ++b) {
    task.b = pass.gradient_outputs + b * stage.outputs();
    for (std::size_t ky = 0; ky < shape.kernel; ++ky) {
      task.a = pass.saved + b * stage.padded_size() + ky * stage.padded_row();
      task.c = gradient + ky * taps * shape.channels_out;
      pass.kernels.gemm(task);
    }
  }
}

DenseStage as_dense(const ConvolutionStage& stage) {
  return {.inputs = stage.shape.channels_in,
          .outputs = stage.shape.channels_out,
          .rows = positions_of(stage.shape),
          .weight = stage.weight,
          .bias = stage.bias,
          .relu = stage.relu};
}

}  // namespace

std::size_t ConvolutionStage::padded_size() const {
  return round_to_vectors(padded_row() * shape.padded_height + kKernelSlack);
}

Result<void> plan_convolution(Planner& planner) {
  const LayerSpec& layer = planner.layer();
  if (layer.units == 0) return planner.refuse("has no filters");
  COVEY_ASSIGN(ConvolutionShape shape, plan_windows(planner, layer.units));
  const auto channels = static_cast<std::uint32_t>(shape.channels_in);
  // depth <= 2^38 and units < 2^32 could overflow together: the first check keeps depth small
  const std::uint64_t depth = std::uint64_t{layer.kernel} * layer.kernel * channels;
  COVEY_TRY(planner.check_sizes(depth, 0));
  COVEY_TRY(planner.check_sizes((depth + 1) * layer.units, positions_of(shape) * layer.units));
  shape.tap_pitch = round_to_vectors(shape.kernel * shape.channels_in);
  ConvolutionStage stage{.shape = shape};
  COVEY_TRY(planner.check_sizes(0, stage.padded_size()));
  const std::string name = planner.number("conv");
  const auto fan_in = static_cast<std::size_t>(depth);
  const std::size_t fan_out = std::size_t{layer.kernel} * layer.kernel * layer.units;
  stage.weight =
      planner.add_tensor(name + ".weight", {layer.kernel, layer.kernel, channels, layer.units},
                         {TensorInit::Kind::kWeight, fan_in, fan_out});
  stage.bias =
      planner.add_tensor(name + ".bias", {layer.units}, {TensorInit::Kind::kBias, fan_in, fan_out});
  planner.add_stage(stage,
                    {static_cast<std::uint32_t>(shape.out_height),
                     static_cast<std::uint32_t>(shape.out_width), layer.units},
                    static_cast<double>(positions_of(shape) * depth) * layer.units);
  return {};
}

StageMemory memory_of(const ConvolutionStage& stage, std::size_t batch) {
  if (stage.pointwise()) return memory_of(as_dense(stage), batch);
  return {.saved = batch * stage.padded_size(), .backward_scratch = ScratchParts(stage).size};
}

void forward(const ConvolutionStage& stage, const ForwardPass& pass) {
  if (stage.pointwise()) return forward(as_dense(stage), pass);
  for (std::size_t b = 0; b < pass.batch; ++b) {
    float* padded = pass.saved + b * stage.padded_size();
    pad(stage, pass.inputs + b * stage.inputs(), padded);
    pass.kernels.convolve(stage.shape, padded, pass.parameters + stage.weight,
                          pass.parameters + stage.bias, stage.relu,
                          pass.outputs + b * stage.outputs());
  }
}

void backward(const ConvolutionStage& stage, const BackwardPass& pass, const Descent& descent) {
  if (stage.pointwise()) return backward(as_dense(stage), pass, descent);
  const ConvolutionShape& shape = stage.shape;
  const std::size_t size = pass.batch * stage.outputs();
  if (stage.relu) pass.kernels.relu_backward(pass.outputs, size, pass.gradient_outputs);
  descent.pull(pass.kernels, stage.bias, shape.channels_out);
  pass.kernels.add_column_sums(pass.gradient_outputs, size / shape.channels_out, shape.channels_out,
                               descent.factor(), descent.values + stage.bias);
  Scratch scratch(stage, pass.scratch);
  const std::size_t weights_size = stage.depth() * shape.channels_out;
  if (has_dense_gradient(stage, pass)) {
    dense_weight_gradient(stage, pass, scratch.gradient);
    descent.pull(pass.kernels, stage.weight, weights_size);
    pass.kernels.add_scaled(scratch.gradient, weights_size, descent.factor(),
                            descent.values + stage.weight);
    return;
  }
  if (pass.gradient_inputs != nullptr) {
    // The pitch's unused floats must be zero: the kernels run over whole vectors.
    std::fill_n(scratch.transposed, stage.transposed_size(), 0.0f);
    const float* weights = pass.parameters + stage.weight;
    for_each_weight(shape,
                    [&](std::size_t i, std::size_t t) { scratch.transposed[t] = weights[i]; });
  }
  std::fill_n(scratch.gradient, stage.transposed_size(), 0.0f);
  for (std::size_t b = 0; b < pass.batch; ++b) image_backward(stage, pass, scratch, b);

  descent.pull(pass.kernels, stage.weight, weights_size);
  float* values = descent.values + stage.weight;
  const float factor = descent.factor();
  for_each_weight(shape,
                  [&](std::size_t i, std::size_t t) { values[i] += factor * scratch.gradient[t]; });
}

}  // namespace covey::models
