#pragma once

#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// What runs over single elements and rows.
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

/// Rows summed on their own before they join the total: keeps the rounding error of n rows near n /
/// 32 + 32 additions.
inline constexpr std::size_t kRowsPerSum = 32;

/// Sum over all rows of f(row), in groups of kRowsPerSum.
template <typename F>
COVEY_INLINE Vector sum_over_rows(std::size_t rows, F f) {
  Vector total{};
  for (std::size_t m = 0; m < rows;) {
    const std::size_t end = rows - m < kRowsPerSum ? rows : m + kRowsPerSum;
    Vector part{};
    for (; m < end; ++m) part += f(m);
    total += part;
  }
  return total;
}

static void add_column_sums(const float* x, std::size_t rows, std::size_t columns, float alpha,
                            float* sums) {
  const Vector factor = broadcast(alpha);
  for_each_vector(
      columns, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
        const Vector total = sum_over_rows(
            rows, [&](std::size_t m) __attribute__((always_inline)) {
              return load_lanes(x + m * columns + n, lanes_used);
            });
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
    if (labels[m] < 0) {  // no target: no loss, no gradient
      for (std::size_t n = 0; row_gradient != nullptr && n < classes; ++n) row_gradient[n] = 0;
      continue;
    }
    const RowSoftmax row = softmax_row(logits + m * classes, static_cast<std::size_t>(labels[m]),
                                       classes, factor, row_gradient);
    result.loss_sum += static_cast<double>(row.loss);
    result.correct += row.correct ? 1 : 0;
  }
  return result;
}

}  // namespace covey::models::COVEY_KERNELS
