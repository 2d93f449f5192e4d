#pragma once

#include "kernels/elementwise.hpp"
#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// Pooling, channel by channel; vectors run over channels.
namespace covey::models::COVEY_KERNELS {

COVEY_INLINE std::size_t stride_of(const PoolShape& shape) {
  return shape.stride == 0 ? shape.kernel : shape.stride;
}

/// f(input offset of the window's first element, output offset).
template <typename F>
COVEY_INLINE void for_each_window(const PoolShape& shape, F f) {
  const std::size_t stride = stride_of(shape);
  const std::size_t rows = (shape.height - shape.kernel) / stride + 1;
  const std::size_t columns = (shape.width - shape.kernel) / stride + 1;
  for (std::size_t y = 0; y < rows; ++y) {
    for (std::size_t x = 0; x < columns; ++x) {
      f((y * stride * shape.width + x * stride) * shape.channels,
        (y * columns + x) * shape.channels);
    }
  }
}

/// f(offset of an element of the window) in the order of rows and columns.
template <typename F>
COVEY_INLINE void for_each_element(const PoolShape& shape, std::size_t window, F f) {
  for (std::size_t i = 0; i < shape.kernel; ++i) {
    for (std::size_t j = 0; j < shape.kernel; ++j) {
      f(window + (i * shape.width + j) * shape.channels);
    }
  }
}

/// Whether windows overlap. Where they do not, each element is written once; zeros come first where
/// some element is in no window.
COVEY_INLINE bool begin_gradient(const PoolShape& shape, float* gradient_x) {
  const std::size_t stride = stride_of(shape);
  if (stride != shape.kernel || shape.height % stride != 0 || shape.width % stride != 0) {
    const std::size_t size = shape.height * shape.width * shape.channels;
    for (std::size_t i = 0; i < size; ++i) gradient_x[i] = 0;
  }
  return stride < shape.kernel;
}

template <bool kOverlapping, typename Lanes>
COVEY_INLINE void put_gradient(float* at, Lanes n, Vector gradient) {
  if constexpr (kOverlapping) gradient += load_lanes(at, n);
  store_lanes(at, n, gradient);
}

static void max_pool(const PoolShape& shape, const float* x, float* y) {
  for_each_window(
      shape, [&](std::size_t in, std::size_t out) __attribute__((always_inline)) {
        for_each_vector(
            shape.channels, [&](std::size_t c, auto n) __attribute__((always_inline)) {
              Vector best = load_lanes(x + in + c, n);
              for_each_element(
                  shape, in + c, [&](std::size_t at) __attribute__((always_inline)) {
                    const Vector next = load_lanes(x + at, n);
                    best = next <= best ? best : next;  // a NaN wins and shows in the loss
                  });
              store_lanes(y + out + c, n, best);
            });
      });
}

template <bool kOverlapping>
void spread_to_maxima(const PoolShape& shape, const float* x, const float* y,
                      const float* gradient_y, float* gradient_x) {
  for_each_window(
      shape, [&](std::size_t in, std::size_t out) __attribute__((always_inline)) {
        for_each_vector(
            shape.channels, [&](std::size_t c, auto n) __attribute__((always_inline)) {
              const Vector best = load_lanes(y + out + c, n);
              Vector left =
                  load_lanes(gradient_y + out + c, n);  // zero once a maximum has taken it
              for_each_element(
                  shape, in + c, [&](std::size_t at) __attribute__((always_inline)) {
                    const IntVector is_best = load_lanes(x + at, n) == best;
                    put_gradient<kOverlapping>(gradient_x + at, n, is_best ? left : Vector{});
                    left = is_best ? Vector{} : left;
                  });
            });
      });
}

static void max_pool_backward(const PoolShape& shape, const float* x, const float* y,
                              const float* gradient_y, float* gradient_x) {
  const bool overlapping = begin_gradient(shape, gradient_x);
  const auto spread = overlapping ? spread_to_maxima<true> : spread_to_maxima<false>;
  spread(shape, x, y, gradient_y, gradient_x);
}

static void average_pool(const PoolShape& shape, const float* x, float* y) {
  const Vector share = broadcast(1.0f / static_cast<float>(shape.kernel * shape.kernel));
  for_each_window(
      shape, [&](std::size_t in, std::size_t out) __attribute__((always_inline)) {
        for_each_vector(
            shape.channels, [&](std::size_t c, auto n) __attribute__((always_inline)) {
              Vector sum{};
              for_each_element(
                  shape, in + c, [&](std::size_t at) __attribute__((always_inline)) {
                    sum += load_lanes(x + at, n);
                  });
              store_lanes(y + out + c, n, sum * share);
            });
      });
}

template <bool kOverlapping>
void spread_evenly(const PoolShape& shape, const float* gradient_y, float* gradient_x) {
  const Vector share = broadcast(1.0f / static_cast<float>(shape.kernel * shape.kernel));
  for_each_window(
      shape, [&](std::size_t in, std::size_t out) __attribute__((always_inline)) {
        for_each_vector(
            shape.channels, [&](std::size_t c, auto n) __attribute__((always_inline)) {
              const Vector part = share * load_lanes(gradient_y + out + c, n);
              for_each_element(
                  shape, in + c, [&](std::size_t at) __attribute__((always_inline)) {
                    put_gradient<kOverlapping>(gradient_x + at, n, part);
                  });
            });
      });
}

static void average_pool_backward(const PoolShape& shape, const float* gradient_y,
                                  float* gradient_x) {
  const bool overlapping = begin_gradient(shape, gradient_x);
  const auto spread = overlapping ? spread_evenly<true> : spread_evenly<false>;
  spread(shape, gradient_y, gradient_x);
}

}  // namespace covey::models::COVEY_KERNELS
