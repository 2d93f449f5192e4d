#pragma once

#include "kernels/elementwise.hpp"
#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// One filter per channel. Vectors run over channels, up to four at once to hide the latency of a
/// multiply-add; windows are clipped at the border instead of padding the image.
namespace covey::models::COVEY_KERNELS {

inline constexpr int kChannelVectors = 4;

/// Indices [begin, end).
struct IndexRange {
  std::size_t begin;
  std::size_t end;
};

/// Kernel indices at which the window of output `o` lies inside the image.
COVEY_INLINE IndexRange taps_inside(std::size_t o, std::size_t stride, std::size_t before,
                                    std::size_t kernel, std::size_t extent) {
  const std::size_t start = o * stride;  // in the padded image, where the image is at `before`
  const std::size_t begin = start < before ? before - start : 0;
  const std::size_t past = before + extent > start ? before + extent - start : 0;
  const std::size_t end = past < kernel ? past : kernel;
  return {begin, end < begin ? begin : end};
}

/// Outputs whose window has tap `k` inside the image.
COVEY_INLINE IndexRange outputs_inside(std::size_t k, std::size_t stride, std::size_t before,
                                       std::size_t extent, std::size_t outputs) {
  const std::size_t begin = k < before ? (before - k + stride - 1) / stride : 0;
  const std::size_t limit = before + extent;  // o * stride + k < limit
  const std::size_t past = k < limit ? (limit - k + stride - 1) / stride : 0;
  const std::size_t end = past < outputs ? past : outputs;
  return {begin, end < begin ? begin : end};
}

/// Outputs that see input `i`: those whose tap k = i + before - o * stride is in [0, kernel).
COVEY_INLINE IndexRange outputs_seeing(std::size_t i, std::size_t stride, std::size_t before,
                                       std::size_t kernel, std::size_t outputs) {
  const std::size_t at = i + before;
  const std::size_t begin = at < kernel ? 0 : (at - kernel) / stride + 1;
  const std::size_t past = at / stride + 1;
  const std::size_t end = past < outputs ? past : outputs;
  return {begin, end < begin ? begin : end};
}

/// f(first channel, Constant<vectors>, lanes of each): four whole vectors at a time, then one.
template <typename F>
COVEY_INLINE void for_each_channel_block(std::size_t channels, F f) {
  constexpr std::size_t kBlock = static_cast<std::size_t>(kChannelVectors) * kWidth;
  std::size_t c = 0;
  for (; c + kBlock <= channels; c += kBlock) f(c, Constant<kChannelVectors>{}, Constant<kWidth>{});
  for (; c + kWidth <= channels; c += kWidth) f(c, Constant<1>{}, Constant<kWidth>{});
  if (c < channels) f(c, Constant<1>{}, static_cast<int>(channels - c));
}

static void depthwise(const ConvolutionShape& shape, const float* x, const float* weights,
                      const float* bias, bool relu, float* y) {
  const std::size_t channels = shape.channels_in;
  for (std::size_t row = 0; row < shape.out_height; ++row) {
    const IndexRange ky =
        taps_inside(row, shape.stride, shape.rows_before, shape.kernel, shape.height);
    for (std::size_t column = 0; column < shape.out_width; ++column) {
      const IndexRange kx =
          taps_inside(column, shape.stride, shape.columns_before, shape.kernel, shape.width);
      float* to = y + (row * shape.out_width + column) * channels;
      for_each_channel_block(
          channels, [&](std::size_t c, auto count, auto lanes_used) __attribute__((always_inline)) {
            constexpr int kVectors = decltype(count)::value;
            Vector sums[kVectors];
            unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
              sums[v] = load_lanes(bias + c + v * kWidth, lanes_used);
            });
            for (std::size_t i = ky.begin; i < ky.end; ++i) {
              const std::size_t in_row = row * shape.stride + i - shape.rows_before;
              for (std::size_t j = kx.begin; j < kx.end; ++j) {
                const std::size_t in_column = column * shape.stride + j - shape.columns_before;
                const float* from = x + (in_row * shape.width + in_column) * channels + c;
                const float* w = weights + (i * shape.kernel + j) * channels + c;
                unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
                  sums[v] = multiply_add(load_lanes(from + v * kWidth, lanes_used),
                                         load_lanes(w + v * kWidth, lanes_used), sums[v]);
                });
              }
            }
            unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
              store_lanes(to + c + v * kWidth, lanes_used, relu ? positive_part(sums[v]) : sums[v]);
            });
          });
    }
  }
}

static void depthwise_input_gradient(const ConvolutionShape& shape, const float* gradient_y,
                                     const float* weights, float* gradient_x) {
  const std::size_t channels = shape.channels_in;
  for (std::size_t row = 0; row < shape.height; ++row) {
    const IndexRange rows =
        outputs_seeing(row, shape.stride, shape.rows_before, shape.kernel, shape.out_height);
    for (std::size_t column = 0; column < shape.width; ++column) {
      const IndexRange columns =
          outputs_seeing(column, shape.stride, shape.columns_before, shape.kernel, shape.out_width);
      float* to = gradient_x + (row * shape.width + column) * channels;
      for_each_channel_block(
          channels, [&](std::size_t c, auto count, auto lanes_used) __attribute__((always_inline)) {
            constexpr int kVectors = decltype(count)::value;
            Vector sums[kVectors];
            unroll<kVectors>([&](auto v) __attribute__((always_inline)) { sums[v] = Vector{}; });
            for (std::size_t oy = rows.begin; oy < rows.end; ++oy) {
              const std::size_t i = row + shape.rows_before - oy * shape.stride;
              for (std::size_t ox = columns.begin; ox < columns.end; ++ox) {
                const std::size_t j = column + shape.columns_before - ox * shape.stride;
                const float* from = gradient_y + (oy * shape.out_width + ox) * channels + c;
                const float* w = weights + (i * shape.kernel + j) * channels + c;
                unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
                  sums[v] = multiply_add(load_lanes(from + v * kWidth, lanes_used),
                                         load_lanes(w + v * kWidth, lanes_used), sums[v]);
                });
              }
            }
            unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
              store_lanes(to + c + v * kWidth, lanes_used, sums[v]);
            });
          });
    }
  }
}

static void depthwise_weight_gradient(const ConvolutionShape& shape, std::size_t batch,
                                      const float* x, const float* gradient_y, float alpha,
                                      float* weights) {
  const std::size_t channels = shape.channels_in;
  const std::size_t inputs = shape.height * shape.width * channels;
  const std::size_t outputs = shape.out_height * shape.out_width * channels;
  for (std::size_t tap = 0; tap < shape.kernel * shape.kernel; ++tap) {
    const std::size_t i = tap / shape.kernel;
    const std::size_t j = tap % shape.kernel;
    const IndexRange rows =
        outputs_inside(i, shape.stride, shape.rows_before, shape.height, shape.out_height);
    const IndexRange columns =
        outputs_inside(j, shape.stride, shape.columns_before, shape.width, shape.out_width);
    for_each_channel_block(
        channels, [&](std::size_t c, auto count, auto lanes_used) __attribute__((always_inline)) {
          constexpr int kVectors = decltype(count)::value;
          Vector total[kVectors];
          unroll<kVectors>([&](auto v) __attribute__((always_inline)) { total[v] = Vector{}; });
          for (std::size_t b = 0; b < batch; ++b) {
            for (std::size_t oy = rows.begin; oy < rows.end; ++oy) {
              const std::size_t in_row = oy * shape.stride + i - shape.rows_before;
              for (std::size_t ox = columns.begin; ox < columns.end; ++ox) {
                const std::size_t in_column = ox * shape.stride + j - shape.columns_before;
                const float* from =
                    x + b * inputs + (in_row * shape.width + in_column) * channels + c;
                const float* g =
                    gradient_y + b * outputs + (oy * shape.out_width + ox) * channels + c;
                unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
                  total[v] = multiply_add(load_lanes(from + v * kWidth, lanes_used),
                                          load_lanes(g + v * kWidth, lanes_used), total[v]);
                });
              }
            }
          }
          float* w = weights + tap * channels + c;
          unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
            const Vector before = load_lanes(w + v * kWidth, lanes_used);
            store_lanes(w + v * kWidth, lanes_used,
                        multiply_add(broadcast(alpha), total[v], before));
          });
        });
  }
}

}  // namespace covey::models::COVEY_KERNELS
