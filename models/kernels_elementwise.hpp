#pragma once

#include "kernels.hpp"
#include "kernels_simd.hpp"

/// What runs over single elements, rows and pooling windows.
namespace covey::models::COVEY_KERNELS {

/// f(offset, lanes): whole vectors first, then what is left.
template <typename F>
COVEY_INLINE void for_each_vector(std::size_t n, F f) {
  std::size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) f(i, Constant<kWidth>{});
  if (i < n) f(i, static_cast<int>(n - i));
}

COVEY_INLINE Vector load_lanes(const float* p, Constant<kWidth>) { return load(p); }
COVEY_INLINE Vector load_lanes(const float* p, int n) { return load_first(p, n); }
COVEY_INLINE void store_lanes(float* p, Constant<kWidth>, Vector v) { store(p, v); }
COVEY_INLINE void store_lanes(float* p, int n, Vector v) { store_first(p, n, v); }

static void add_column_sums(const float* x, std::size_t rows, std::size_t columns, float alpha,
                            float* sums) {
  const Vector factor = broadcast(alpha);
  for_each_vector(
      columns, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
        Vector total{};
        for (std::size_t m = 0; m < rows; ++m) total += load_lanes(x + m * columns + n, lanes_used);
        const Vector before = load_lanes(sums + n, lanes_used);
        store_lanes(sums + n, lanes_used, multiply_add(factor, total, before));
      });
}

static void relu(const float* x, std::size_t n, float* y) {
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        store_lanes(y + i, lanes_used, positive_part(load_lanes(x + i, lanes_used)));
      });
}

static void relu_backward(const float* y, std::size_t n, float* gradient) {
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector g = load_lanes(gradient + i, lanes_used);
        store_lanes(gradient + i, lanes_used,
                    load_lanes(y + i, lanes_used) > Vector{} ? g : Vector{});
      });
}

static void scale(float* x, std::size_t n, float factor) {
  const Vector f = broadcast(factor);
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        store_lanes(x + i, lanes_used, load_lanes(x + i, lanes_used) * f);
      });
}

static void add_scaled(const float* g, std::size_t n, float alpha, float* w) {
  const Vector factor = broadcast(alpha);
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector before = load_lanes(w + i, lanes_used);
        store_lanes(w + i, lanes_used, multiply_add(factor, load_lanes(g + i, lanes_used), before));
      });
}

static void pull(const float* anchor, std::size_t n, float rate, float* w) {
  const Vector factor = broadcast(-rate);
  for_each_vector(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector before = load_lanes(w + i, lanes_used);
        const Vector away = before - load_lanes(anchor + i, lanes_used);
        store_lanes(w + i, lanes_used, multiply_add(factor, away, before));
      });
}

struct RowSoftmax {
  float loss;
  bool correct;
};

/// One row of logits. The exponentials are kept in `gradient` where there is one.
COVEY_INLINE RowSoftmax softmax_row(const float* z, std::size_t label, std::size_t classes,
                                    float factor, float* gradient) {
  constexpr float kLowest = -3.402823466e38f;
  Vector highest = broadcast(kLowest);
  for_each_vector(
      classes, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
        highest = larger(load_first_or(z + n, lanes_used, kLowest), highest);
      });
  const float top = max_lanes(highest);
  Vector total{};
  for_each_vector(
      classes, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
        const Vector e = exponential(load_lanes(z + n, lanes_used) - broadcast(top));
        total += lanes() < IntVector{} + static_cast<int>(lanes_used) ? e : Vector{};
        if (gradient != nullptr) store_lanes(gradient + n, lanes_used, e);
      });
  const float sum = sum_lanes(total);
  if (gradient != nullptr) {
    scale(gradient, classes, factor / sum);
    gradient[label] -= factor;
  }
  std::size_t first = 0;  // the first maximum is the prediction; a NaN row predicts class 0
  while (first < classes && !(z[first] == top)) ++first;
  return {__builtin_logf(sum) + (top - z[label]), first == label};
}

static SoftmaxResult softmax(const float* logits, const std::int32_t* labels, std::size_t rows,
                             std::size_t classes, float factor, float* gradient) {
  SoftmaxResult result{0, 0};
  for (std::size_t m = 0; m < rows; ++m) {
    float* row_gradient = gradient == nullptr ? nullptr : gradient + m * classes;
    const RowSoftmax row = softmax_row(logits + m * classes, static_cast<std::size_t>(labels[m]),
                                       classes, factor, row_gradient);
    result.loss_sum += static_cast<double>(row.loss);
    result.correct += row.correct ? 1 : 0;
  }
  return result;
}

/// f(input offset of the window's first element, output offset).
template <typename F>
COVEY_INLINE void for_each_window(const PoolShape& shape, F f) {
  const std::size_t rows = shape.height / shape.kernel;
  const std::size_t columns = shape.width / shape.kernel;
  for (std::size_t y = 0; y < rows; ++y) {
    for (std::size_t x = 0; x < columns; ++x) {
      f((y * shape.kernel * shape.width + x * shape.kernel) * shape.channels,
        (y * columns + x) * shape.channels);
    }
  }
}

static void max_pool(const PoolShape& shape, const float* x, float* y) {
  for_each_window(
      shape, [&](std::size_t in, std::size_t out) __attribute__((always_inline)) {
        for_each_vector(
            shape.channels, [&](std::size_t c, auto n) __attribute__((always_inline)) {
              Vector best = load_lanes(x + in + c, n);
              for (std::size_t i = 0; i < shape.kernel; ++i) {
                for (std::size_t j = 0; j < shape.kernel; ++j) {
                  const Vector next =
                      load_lanes(x + in + c + (i * shape.width + j) * shape.channels, n);
                  best = next <= best ? best : next;  // a NaN wins and shows in the loss
                }
              }
              store_lanes(y + out + c, n, best);
            });
      });
}

static void max_pool_backward(const PoolShape& shape, const float* x, const float* y,
                              const float* gradient_y, float* gradient_x) {
  const std::size_t size = shape.height * shape.width * shape.channels;
  if (shape.height % shape.kernel != 0 || shape.width % shape.kernel != 0) {
    for (std::size_t i = 0; i < size; ++i) gradient_x[i] = 0;
  }
  for_each_window(
      shape, [&](std::size_t in, std::size_t out) __attribute__((always_inline)) {
        for_each_vector(
            shape.channels, [&](std::size_t c, auto n) __attribute__((always_inline)) {
              const Vector best = load_lanes(y + out + c, n);
              Vector left =
                  load_lanes(gradient_y + out + c, n);  // zero once a maximum has taken it
              for (std::size_t i = 0; i < shape.kernel; ++i) {
                for (std::size_t j = 0; j < shape.kernel; ++j) {
                  const std::size_t at = in + c + (i * shape.width + j) * shape.channels;
                  const IntVector is_best = load_lanes(x + at, n) == best;
                  store_lanes(gradient_x + at, n, is_best ? left : Vector{});
                  left = is_best ? Vector{} : left;
                }
              }
            });
      });
}

}  // namespace covey::models::COVEY_KERNELS
