#pragma once

#include "kernels/elementwise.hpp"
#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// What normalisations are made of: sums and maps over the columns of a matrix.
namespace covey::models::COVEY_KERNELS {

static void column_moments(const float* x, std::size_t rows, std::size_t columns, float* mean,
                           float* variance) {
  const Vector share = broadcast(1.0f / static_cast<float>(rows));
  for_each_vector(
      columns, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
        const Vector center = share * sum_over_rows(
                                          rows, [&](std::size_t m) __attribute__((always_inline)) {
                                            return load_lanes(x + m * columns + n, lanes_used);
                                          });
        const Vector spread =
            share * sum_over_rows(
                        rows, [&](std::size_t m) __attribute__((always_inline)) {
                          const Vector away = load_lanes(x + m * columns + n, lanes_used) - center;
                          return away * away;
                        });
        store_lanes(mean + n, lanes_used, center);
        store_lanes(variance + n, lanes_used, spread);
      });
}

static void map_columns(const ColumnMap& map, const float* x, std::size_t rows, std::size_t columns,
                        float* y) {
  for (std::size_t m = 0; m < rows; ++m) {
    for_each_vector(
        columns, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
          const Vector away =
              load_lanes(x + m * columns + n, lanes_used) - load_lanes(map.center + n, lanes_used);
          const Vector value = multiply_add(away, load_lanes(map.scale + n, lanes_used),
                                            load_lanes(map.shift + n, lanes_used));
          store_lanes(y + m * columns + n, lanes_used, map.relu ? positive_part(value) : value);
        });
  }
}

static void column_products(const float* g, const float* x, const float* center, std::size_t rows,
                            std::size_t columns, float* sums, float* products) {
  for_each_vector(
      columns, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
        const Vector middle = load_lanes(center + n, lanes_used);
        Vector sum{};
        Vector product{};
        for (std::size_t m = 0; m < rows;) {
          const std::size_t end = rows - m < kRowsPerSum ? rows : m + kRowsPerSum;
          Vector part{};
          Vector product_part{};
          for (; m < end; ++m) {
            const Vector gradient = load_lanes(g + m * columns + n, lanes_used);
            const Vector away = load_lanes(x + m * columns + n, lanes_used) - middle;
            part += gradient;
            product_part = multiply_add(gradient, away, product_part);
          }
          sum += part;
          product += product_part;
        }
        store_lanes(sums + n, lanes_used, sum);
        store_lanes(products + n, lanes_used, product);
      });
}

static void normalise_backward(const ColumnMap& map_x, const float* scale, const float* g,
                               const float* x, std::size_t rows, std::size_t columns,
                               float* gradient_x) {
  for (std::size_t m = 0; m < rows; ++m) {
    for_each_vector(
        columns, [&](std::size_t n, auto lanes_used) __attribute__((always_inline)) {
          const Vector away = load_lanes(x + m * columns + n, lanes_used) -
                              load_lanes(map_x.center + n, lanes_used);
          const Vector rest = multiply_add(away, load_lanes(map_x.scale + n, lanes_used),
                                           load_lanes(map_x.shift + n, lanes_used));
          const Vector gradient = load_lanes(g + m * columns + n, lanes_used);
          store_lanes(gradient_x + m * columns + n, lanes_used,
                      multiply_add(gradient, load_lanes(scale + n, lanes_used), rest));
        });
  }
}

static void part_sums(const float* values, std::size_t n, std::size_t groups, float* sums) {
  const std::size_t size = n / groups;
  for (std::size_t group = 0; group < groups; ++group) {
    Vector total{};
    for_each_vector(
        size, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
          total += load_lanes(values + group * size + i, lanes_used);
        });
    sums[group] = sum_lanes(total);
  }
}

}  // namespace covey::models::COVEY_KERNELS
