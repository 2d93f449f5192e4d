#pragma once

#include "bf16/bf16_simd.hpp"

/// Matrix products whose operands are bfloat16 and whose sums are fp32: two steps of the depth at a
/// time, operands where they lie.
namespace covey::models::COVEY_KERNELS {

/// Rows of C held in registers, two vectors each: 28 of 32 registers with a dot product, 24 of 32
/// (8 of 16) where each factor takes two registers.
#if defined(__AVX512BF16__)
inline constexpr int kPairRows = 14;
#elif defined(__AVX512F__)
inline constexpr int kPairRows = 12;
#else
inline constexpr int kPairRows = 4;
#endif

/// Columns of a tile: 2 kWidth, even ones in one vector and odd ones in the other; or, kSingle, up
/// to kWidth in one vector.
inline constexpr std::size_t kTileColumns = 2 * kWidth;

/// A pair of A's for row m and step p is the word at a + m * row_bytes + p * step_bytes.
struct PairOperands {
  const char* a;
  std::size_t row_bytes;
  std::size_t step_bytes;
  const std::uint16_t* b;  ///< [depth x ...]
  std::size_t b_row;
  std::size_t depth;
};

COVEY_INLINE std::uint32_t load_word(const char* p) {
  std::uint32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return word;
}

template <int kRows, bool kSingle>
struct PairSums {
  static constexpr int kVectors = kSingle ? 1 : 2;
  Vector of[kRows][kVectors];

  COVEY_INLINE void clear() {
    unroll<kRows * kVectors>([&](auto i) __attribute__((always_inline)) {
      of[i / kVectors][i % kVectors] = Vector{};
    });
  }
  COVEY_INLINE void copy_from(const PairSums& other) {
    unroll<kRows * kVectors>([&](auto i) __attribute__((always_inline)) {
      of[i / kVectors][i % kVectors] = other.of[i / kVectors][i % kVectors];
    });
  }
};

/// sums += A's rows times the two rows of B; a_mask leaves out an upper half that is not there.
template <int kRows, bool kSingle>
COVEY_INLINE void add_step(PairSums<kRows, kSingle>& sums, const char* const* groups,
                           std::size_t row_bytes, std::uint32_t a_mask, Bits first, Bits second) {
  if constexpr (kSingle) {
    const Pair columns = pair_of(first | (second << 16));
    unroll<kRows>([&](auto m) __attribute__((always_inline)) {
      const char* address = groups[m / 3] + static_cast<std::size_t>(m % 3) * row_bytes;
      const Pair a = broadcast_pair(load_word(address) & a_mask);
      sums.of[m][0] = dot(sums.of[m][0], a, columns);
    });
  } else {
    const ColumnPairs columns = pair_rows(first, second);
    unroll<kRows>([&](auto m) __attribute__((always_inline)) {
      const char* address = groups[m / 3] + static_cast<std::size_t>(m % 3) * row_bytes;
      const Pair a = broadcast_pair(load_word(address) & a_mask);
      sums.of[m][0] = dot(sums.of[m][0], a, columns.even);
      sums.of[m][1] = dot(sums.of[m][1], a, columns.odd);
    });
  }
}

template <bool kSingle>
COVEY_INLINE Bits load_columns(const std::uint16_t* p) {
  if constexpr (kSingle) {
    return load_halves(p);
  } else {
    return load_bits(p);
  }
}

template <int kRows, bool kSingle>
COVEY_INLINE PairSums<kRows, kSingle> multiply_pairs(const PairOperands& operands) {
  PairSums<kRows, kSingle> sums;
  sums.clear();
  // One pointer for every three rows, as in kernels/gemm.hpp.
  constexpr int kGroups = (kRows + 2) / 3;
  const std::size_t row_bytes = operands.row_bytes;
  const std::size_t step_bytes = operands.step_bytes;
  const char* groups[kGroups];
  unroll<kGroups>([&](auto g) __attribute__((always_inline)) {
    groups[g] = operands.a + static_cast<std::size_t>(g) * 3 * row_bytes;
  });
  const std::uint16_t* b = operands.b;
  const std::size_t b_row = operands.b_row;
  for (std::size_t p = 0; p < operands.depth / 2; ++p) {
    add_step<kRows, kSingle>(sums, groups, row_bytes, ~0U, load_columns<kSingle>(b),
                             load_columns<kSingle>(b + b_row));
    b += 2 * b_row;
    unroll<kGroups>([&](auto g) __attribute__((always_inline)) {
      groups[g] += step_bytes;
      asm("" : "+r"(groups[g]));  // keep it a pointer of its own, not fourteen
    });
  }
  if (operands.depth % 2 != 0) {
    add_step<kRows, kSingle>(sums, groups, row_bytes, ~kUpper, load_columns<kSingle>(b), Bits{});
  }
  return sums;
}

template <int kRows, bool kSingle>
void product_tile(const Bf16Product& task, std::size_t m, std::size_t n, int width) {
  const auto sums = multiply_pairs<kRows, kSingle>(
      {reinterpret_cast<const char*>(task.a + m * task.a_row), task.a_row * sizeof(std::uint16_t),
       sizeof(std::uint32_t), task.b + n, task.b_row, task.depth});
  float* row = task.c + m * task.c_row + n;
  const auto finish = [&](float* c, Vector v, int first) __attribute__((always_inline)) {
    const int left = width - first;
    if (left <= 0) return;
    if (task.bias != nullptr) {
      const float* bias = task.bias + n + first;
      v += left >= kWidth ? load(bias) : load_first(bias, left);
    }
    if (task.relu) v = positive_part(v);
    if (left >= kWidth) {
      store(c + first, v);
    } else {
      store_first(c + first, left, v);
    }
  };
  unroll<kRows>([&](auto i) __attribute__((always_inline)) {
    if constexpr (kSingle) {
      finish(row, sums.of[i][0], 0);
    } else {
      finish(row, first_woven(sums.of[i][0], sums.of[i][1]), 0);
      finish(row, second_woven(sums.of[i][0], sums.of[i][1]), kWidth);
    }
    row += task.c_row;
  });
}

/// A Bf16Step as vectors, made once ahead of a loop over weights.
struct VectorStep {
  COVEY_INLINE explicit VectorStep(const Bf16Step& step)
      : keep(broadcast(step.keep)),
        pull(broadcast(step.pull)),
        factor(broadcast(step.factor)),
        anchor(step.anchor),
        hash(step.rounding.key),
        index(step.rounding.index) {}

  /// w * keep + pull * anchor + factor * g, in fp32.
  COVEY_INLINE Vector move(Vector w, Vector from, Vector g) const {
    Vector v = w * keep;
    if (anchor != nullptr) v = multiply_add(from, pull, v);
    return multiply_add(g, factor, v);
  }

  Vector keep, pull, factor;
  const std::uint16_t* anchor;
  Hash hash;
  std::uint32_t index;
};

/// One row of weights, up to kTileColumns of them, by gradients of the even and the odd columns.
/// All that is a NaN here has zeros in its lower half, so that random bits cannot carry out of it.
COVEY_INLINE void step_row(const VectorStep& step, std::size_t at, std::uint16_t* weights,
                           int width, const Vector (&g)[2]) {
  const Bits w = load_bits(weights);
  const Bits anchor = step.anchor == nullptr ? Bits{} : load_bits(step.anchor + at);
  const Bits even_lanes = reinterpret<Bits>(lanes()) * 2U;
  const Bits random = step.hash(even_lanes + (step.index + static_cast<std::uint32_t>(at)));
  const Vector low = step.move(lower(w), lower(anchor), g[0]);
  const Vector high = step.move(upper(w), upper(anchor), g[1]);
  const Bits low_rounded = (reinterpret<Bits>(low) + (random & ~kUpper)) >> 16;
  const Bits high_rounded = (reinterpret<Bits>(high) + (random >> 16)) & kUpper;
  store_some(weights, low_rounded | high_rounded, width);
}
COVEY_INLINE void step_row(const VectorStep& step, std::size_t at, std::uint16_t* weights,
                           int width, const Vector (&g)[1]) {
  const Bits w = load_halves(weights);
  const Bits anchor = step.anchor == nullptr ? Bits{} : load_halves(step.anchor + at);
  const Bits random = random_halves(step.index + static_cast<std::uint32_t>(at), step.hash);
  const Vector v = step.move(lower(w), lower(anchor), g[0]);
  const Bits rounded = (reinterpret<Bits>(v) + random) >> 16;
  store_some(weights, __builtin_convertvector(rounded, Halves), width);
}

template <int kRows, bool kSingle>
void update_tile(const Bf16Update& task, std::size_t m, std::size_t n, int width) {
  const auto sums = multiply_pairs<kRows, kSingle>(
      {reinterpret_cast<const char*>(task.input_pairs + m), sizeof(std::uint32_t),
       task.pair_row * sizeof(std::uint32_t), task.gradient + n, task.outputs, task.rows});
  std::size_t at = m * task.outputs + n;
  const VectorStep step(task.step);
  std::uint16_t* weights = task.weights;
  const std::size_t outputs = task.outputs;
  // A loop and not unrolled: the sums go to memory and leave the registers to the step's constants.
  PairSums<kRows, kSingle> kept;
  kept.copy_from(sums);
#pragma GCC unroll 1
  for (int i = 0; i < kRows; ++i) {
    step_row(step, at, weights + at, width, kept.of[i]);
    at += outputs;
  }
}

template <typename Task>
using PairTile = void (*)(const Task&, std::size_t, std::size_t, int);

template <bool kSingle, int... kRows>
COVEY_INLINE PairTile<Bf16Product> tile_of(const Bf16Product&, std::size_t rows,
                                           Sequence<kRows...>) {
  constexpr PairTile<Bf16Product> table[] = {&product_tile<kRows + 1, kSingle>...};
  return table[rows - 1];
}
template <bool kSingle, int... kRows>
COVEY_INLINE PairTile<Bf16Update> tile_of(const Bf16Update&, std::size_t rows, Sequence<kRows...>) {
  constexpr PairTile<Bf16Update> table[] = {&update_tile<kRows + 1, kSingle>...};
  return table[rows - 1];
}

/// Tiles of C [rows x columns], columns outside.
template <typename Task>
COVEY_INLINE void for_each_pair_tile(const Task& task, std::size_t rows, std::size_t columns) {
  using Rows = typename MakeSequence<kPairRows>::Type;
  for (std::size_t n = 0; n < columns; n += kTileColumns) {
    const std::size_t width = columns - n < kTileColumns ? columns - n : kTileColumns;
    for (std::size_t m = 0; m < rows;) {
      // The rows left in as few tiles as possible, of nearly equal height.
      const std::size_t tiles = (rows - m + kPairRows - 1) / kPairRows;
      const std::size_t count = (rows - m + tiles - 1) / tiles;
      const auto tile = width <= kWidth ? tile_of<true>(task, count, Rows{})
                                        : tile_of<false>(task, count, Rows{});
      tile(task, m, n, static_cast<int>(width));
      m += count;
    }
  }
}

static void product(const Bf16Product& task) { for_each_pair_tile(task, task.rows, task.columns); }
static void update(const Bf16Update& task) { for_each_pair_tile(task, task.inputs, task.outputs); }

}  // namespace covey::models::COVEY_KERNELS
