#pragma once

#include "kernels/gemm.hpp"
#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// Matrix products whose second operand is read many times: it is first copied into strips of
/// kStrip columns, so that a tile reads it in order. In place, columns of a matrix whose rows are
/// some KiB apart fall on few sets of the first-level cache, and each on a page of its own.
namespace covey::models::COVEY_KERNELS {

inline constexpr std::size_t kStrip = std::size_t{kTileVectors} * kWidth;

template <int kOffset, int... kLane>
COVEY_INLINE Vector interleave(Vector a, Vector b, Sequence<kLane...>) {
  return __builtin_shufflevector(a, b, (kOffset + kLane / 2 + kLane % 2 * kWidth)...);
}

/// Transposes kWidth vectors: each round interleaves the first half with the second.
COVEY_INLINE void transpose(Vector (&rows)[kWidth]) {
  using Lanes = typename MakeSequence<kWidth>::Type;
  constexpr int kHalf = kWidth / 2;
  for (int round = 1; round < kWidth; round *= 2) {
    Vector next[kWidth];
    unroll<kHalf>([&](auto i) __attribute__((always_inline)) {
      next[2 * i] = interleave<0>(rows[i], rows[i + kHalf], Lanes{});
      next[2 * i + 1] = interleave<kHalf>(rows[i], rows[i + kHalf], Lanes{});
    });
    unroll<kWidth>([&](auto i) __attribute__((always_inline)) { rows[i] = next[i]; });
  }
}

/// The kWidth columns from `column` on of `task`'s strip, transposed while they are copied.
COVEY_INLINE void pack_transposed_columns(const PackTask& task, std::size_t column, float* to) {
  const Vector factor = broadcast(task.factor);
  const std::size_t left = column < task.columns ? task.columns - column : 0;
  for (std::size_t k = 0; k < task.depth; k += kWidth) {
    const std::size_t rest = task.depth - k;
    const int count = rest < kWidth ? static_cast<int>(rest) : kWidth;
    Vector rows[kWidth];
    unroll<kWidth>([&](auto i) __attribute__((always_inline)) {
      const float* from = task.from + (column + i) * task.from_row + k;
      rows[i] = static_cast<std::size_t>(i) < left ? load_first(from, count) * factor : Vector{};
    });
    transpose(rows);
    unroll<kWidth>([&](auto i) __attribute__((always_inline)) {
      if (i < count) store(to + (k + i) * kStrip, rows[i]);
    });
  }
}

/// Copies columns [first, first + kStrip) of the matrix, zero beyond its last.
COVEY_INLINE void pack_strip(const PackTask& task, std::size_t first, float* to) {
  if (task.transposed) {
    unroll<kTileVectors>([&](auto v) __attribute__((always_inline)) {
      pack_transposed_columns(task, first + std::size_t{v} * kWidth, to + v * kWidth);
    });
    return;
  }
  const Vector factor = broadcast(task.factor);
  const float* from = task.from + first;
  const std::size_t left = task.columns - first;
  unroll<kTileVectors>([&](auto v) __attribute__((always_inline)) {
    const std::size_t before = std::size_t{v} * kWidth;
    const int count = left <= before           ? 0
                      : left - before < kWidth ? static_cast<int>(left - before)
                                               : kWidth;
    for (std::size_t k = 0; k < task.depth; ++k) {
      const float* row = from + k * task.from_row + before;
      const Vector x = count == kWidth ? load(row) : count > 0 ? load_first(row, count) : Vector{};
      store(to + k * kStrip + before, x * factor);
    }
  });
}

static void pack_strips(const PackTask& task) {
  float* to = task.to;
  for (std::size_t n = 0; n < task.columns; n += kStrip, to += task.depth * kStrip) {
    pack_strip(task, n, to);
  }
}

COVEY_INLINE GemmTask columns_of(const GemmTask& task, std::size_t first) {
  GemmTask part = task;
  part.c = task.c + first;
  part.bias = task.bias == nullptr ? nullptr : task.bias + first;
  part.columns = task.columns - first < kStrip ? task.columns - first : kStrip;
  part.b_row = kStrip;
  return part;
}

static void gemm_strips(const GemmTask& task) {
  for (std::size_t n = 0; n < task.columns; n += kStrip) {
    GemmTask part = columns_of(task, n);
    part.b = task.b + n * task.depth;
    gemm(part);
  }
}

static void gemm_panels(const GemmTask& task, const PanelOptions& options) {
  const std::size_t blocks = (task.depth + kPanelDepth - 1) / kPanelDepth;
  const std::size_t height = (task.depth + blocks - 1) / blocks;
  for (std::size_t n = 0; n < task.columns; n += kStrip) {
    GemmTask part = columns_of(task, n);
    part.b = options.panel;
    for (std::size_t k = 0; k < task.depth; k += height) {
      part.depth = task.depth - k < height ? task.depth - k : height;
      pack_strips({.from = task.b + (options.transposed ? n * task.b_row + k : k * task.b_row + n),
                   .from_row = task.b_row,
                   .transposed = options.transposed,
                   .depth = part.depth,
                   .columns = part.columns,
                   .factor = options.factor,
                   .to = options.panel});
      part.a = task.a + k * task.a_col;
      part.relu = task.relu && k + height >= task.depth;
      gemm(part);
      part.accumulate = true;  // onto what the blocks before gave
      part.bias = nullptr;
    }
  }
}

}  // namespace covey::models::COVEY_KERNELS
