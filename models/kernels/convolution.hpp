#pragma once

#include "kernels/gemm.hpp"
#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// Convolution without im2col: a row of output positions is a matrix product over the padded image
/// as it lies. The backward products run over the non-zeros of the output gradient, of which relu
/// leaves about half and 2x2 max-pooling a quarter.
namespace covey::models::COVEY_KERNELS {

/// Bytes of weights that stay in a 32 KiB first-level cache beside one row of the image.
inline constexpr std::size_t kSlabBytes = 24 * 1024;

static void convolve(const ConvolutionShape& shape, const float* padded, const float* weights,
                     const float* bias, bool relu, float* y) {
  const std::size_t padded_row = shape.padded_width * shape.channels_in;
  const std::size_t depth = shape.kernel * shape.channels_in;
  constexpr std::size_t kPanel = static_cast<std::size_t>(kTileVectors) * kWidth;
  std::size_t segments = kSlabBytes / (depth * kPanel * sizeof(float));
  segments = segments < 1 ? 1 : segments;
  for (std::size_t n = 0; n < shape.channels_out; n += kPanel) {
    for (std::size_t ky = 0; ky < shape.kernel; ky += segments) {
      GemmTask task;
      task.a_row = shape.stride * shape.channels_in;
      task.a_segment = padded_row;
      task.b = weights + ky * depth * shape.channels_out + n;
      task.b_row = shape.channels_out;
      task.c_row = shape.channels_out;
      task.rows = shape.out_width;
      task.columns = shape.channels_out - n < kPanel ? shape.channels_out - n : kPanel;
      task.depth = depth;
      task.segments = shape.kernel - ky < segments ? shape.kernel - ky : segments;
      task.bias = bias + n;
      task.accumulate = ky > 0;
      task.relu = relu && ky + segments >= shape.kernel;
      for (std::size_t row = 0; row < shape.out_height; ++row) {
        task.a = padded + (row * shape.stride + ky) * padded_row;
        task.c = y + row * shape.out_width * shape.channels_out + n;
        gemm(task);
      }
    }
  }
}

/// Appends to both lists without a branch: the entry is written always, and counted where it is not
/// 0.
struct ListWriter {
  const SparseGradient& lists;
  std::size_t positions;
  std::size_t channels;
  std::uint32_t tap_pitch;

  COVEY_INLINE void append(std::size_t position, std::uint32_t window, std::size_t channel,
                           float value) const {
    const std::uint32_t counted = value != 0 ? 1 : 0;
    std::uint32_t& by_channel = lists.channel_counts[channel];
    lists.by_channel[channel * positions + by_channel] = {window, value};
    by_channel += counted;
    std::uint32_t& by_position = lists.position_counts[position];
    lists.by_position[position * channels + by_position] = {
        static_cast<std::uint32_t>(channel) * tap_pitch, value};
    by_position += counted;
  }
};

COVEY_INLINE ListWriter start_lists(const ConvolutionShape& shape, const SparseGradient& lists) {
  const std::size_t positions = shape.out_height * shape.out_width;
  for (std::size_t i = 0; i < shape.channels_out; ++i) lists.channel_counts[i] = 0;
  for (std::size_t i = 0; i < positions; ++i) lists.position_counts[i] = 0;
  return {lists, positions, shape.channels_out, static_cast<std::uint32_t>(shape.tap_pitch)};
}

static void list_gradient(const ConvolutionShape& shape, const float* gradient_y,
                          const SparseGradient& lists) {
  const ListWriter writer = start_lists(shape, lists);
  const std::size_t channels = shape.channels_out;
  const std::size_t step = shape.stride * shape.channels_in;
  for (std::size_t row = 0; row < shape.out_height; ++row) {
    for (std::size_t column = 0; column < shape.out_width; ++column) {
      const std::size_t position = row * shape.out_width + column;
      const auto window = static_cast<std::uint32_t>((row * shape.padded_width + column) * step);
      for (std::size_t c = 0; c < channels; ++c) {
        writer.append(position, window, c, gradient_y[position * channels + c]);
      }
    }
  }
}

/// Vectors held in registers along a window row: leaves some for the broadcast and a load.
#if defined(__AVX512F__)
inline constexpr int kRowVectors = 20;
#else
inline constexpr int kRowVectors = 10;
#endif

using WeightGradientFunction = void (*)(const SparseEntry*, std::uint32_t, const float*, float*,
                                        std::size_t, std::size_t);

/// sums[r][v] += value * window row r, vector v, over one channel's list; kRows kernel rows at
/// once.
template <int kRows, int kVectors>
void weight_gradient_rows(const SparseEntry* entries, std::uint32_t count, const float* padded,
                          float* sums, std::size_t padded_row, std::size_t sum_row) {
  Vector total[kRows][kVectors];
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      total[r][v] = load(sums + static_cast<std::size_t>(r) * sum_row + v * kWidth);
    });
  });
  for (std::uint32_t i = 0; i < count; ++i) {
    const Vector value = broadcast(entries[i].value);
    const float* window = padded + entries[i].offset;
    unroll<kRows>([&](auto r) __attribute__((always_inline)) {
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        const Vector x = load(window + static_cast<std::size_t>(r) * padded_row + v * kWidth);
        total[r][v] = multiply_add(value, x, total[r][v]);
      });
    });
  }
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      store(sums + static_cast<std::size_t>(r) * sum_row + v * kWidth, total[r][v]);
    });
  });
}

template <int... kCounts>
COVEY_INLINE WeightGradientFunction one_row_of(int vectors, Sequence<kCounts...>) {
  constexpr WeightGradientFunction table[] = {&weight_gradient_rows<1, kCounts + 1>...};
  return table[vectors - 1];
}
template <int... kCounts>
COVEY_INLINE WeightGradientFunction rows_of_one(int rows, Sequence<kCounts...>) {
  constexpr WeightGradientFunction table[] = {&weight_gradient_rows<kCounts + 1, 1>...};
  return table[rows - 1];
}

static void convolve_weight_gradient(const ConvolutionShape& shape, const float* padded,
                                     const SparseGradient& lists, float* transposed) {
  const std::size_t positions = shape.out_height * shape.out_width;
  const std::size_t padded_row = shape.padded_width * shape.channels_in;
  const std::size_t sum_row = shape.channels_out * shape.tap_pitch;
  const std::size_t vectors = (shape.kernel * shape.channels_in + kWidth - 1) / kWidth;
  using Counts = MakeSequence<kRowVectors>::Type;
  // A window row of one vector leaves registers for several kernel rows, a long one is cut.
  const std::size_t rows_at_once = vectors == 1 ? kRowVectors : 1;
  for (std::size_t c = 0; c < shape.channels_out; ++c) {
    const SparseEntry* entries = lists.by_channel + c * positions;
    const std::uint32_t count = lists.channel_counts[c];
    for (std::size_t ky = 0; ky < shape.kernel;) {
      const std::size_t rows = shape.kernel - ky < rows_at_once ? shape.kernel - ky : rows_at_once;
      const float* window = padded + ky * padded_row;
      float* sums = transposed + ky * sum_row + c * shape.tap_pitch;
      for (std::size_t v = 0; v < vectors; v += kRowVectors) {
        const std::size_t left = vectors - v;
        const int block = static_cast<int>(left < kRowVectors ? left : kRowVectors);
        const auto function =
            rows == 1 ? one_row_of(block, Counts{}) : rows_of_one(static_cast<int>(rows), Counts{});
        function(entries, count, window + v * kWidth, sums + v * kWidth, padded_row, sum_row);
      }
      ky += rows;
    }
  }
}

using InputGradientFunction = void (*)(const SparseEntry*, std::uint32_t, const float*, float*);

/// One padded window row of one position += sum over its channels of value * that channel's taps.
template <int kVectors>
void input_gradient_row(const SparseEntry* entries, std::uint32_t count, const float* taps,
                        float* window) {
  Vector total[kVectors];
  unroll<kVectors>([&](auto v)
                       __attribute__((always_inline)) { total[v] = load(window + v * kWidth); });
  for (std::uint32_t i = 0; i < count; ++i) {
    const Vector value = broadcast(entries[i].value);
    const float* row = taps + entries[i].offset;
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      total[v] = multiply_add(value, load(row + v * kWidth), total[v]);
    });
  }
  unroll<kVectors>([&](auto v)
                       __attribute__((always_inline)) { store(window + v * kWidth, total[v]); });
}

template <int... kCounts>
COVEY_INLINE InputGradientFunction input_row_of(int vectors, Sequence<kCounts...>) {
  constexpr InputGradientFunction table[] = {&input_gradient_row<kCounts + 1>...};
  return table[vectors - 1];
}

static void convolve_input_gradient(const ConvolutionShape& shape, const float* transposed,
                                    const SparseGradient& lists, float* padded_gradient) {
  const std::size_t padded_row = shape.padded_width * shape.channels_in;
  const std::size_t vectors = (shape.kernel * shape.channels_in + kWidth - 1) / kWidth;
  using Counts = MakeSequence<kRowVectors>::Type;
  for (std::size_t ky = 0; ky < shape.kernel; ++ky) {
    const float* taps = transposed + ky * shape.channels_out * shape.tap_pitch;
    for (std::size_t v = 0; v < vectors; v += kRowVectors) {
      const std::size_t left = vectors - v;
      const auto function =
          input_row_of(static_cast<int>(left < kRowVectors ? left : kRowVectors), Counts{});
      for (std::size_t row = 0; row < shape.out_height; ++row) {
        for (std::size_t column = 0; column < shape.out_width; ++column) {
          const std::size_t position = row * shape.out_width + column;
          float* window = padded_gradient + (row * shape.stride + ky) * padded_row +
                          column * shape.stride * shape.channels_in + v * kWidth;
          function(lists.by_position + position * shape.channels_out,
                   lists.position_counts[position], taps + v * kWidth, window);
        }
      }
    }
  }
}

}  // namespace covey::models::COVEY_KERNELS
