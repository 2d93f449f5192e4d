#pragma once

#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// Matrix products for the skinny shapes of training with small batches: operands are read where
/// they lie, nothing is packed.
namespace covey::models::COVEY_KERNELS {

/// Rows of C held in registers, two vectors each: 28 of 32 registers with AVX-512, 12 of 16 with
/// AVX2, 8 of 16 where a product needs a register of its own.
#if defined(__AVX512F__)
inline constexpr int kTileRows = 14;
#elif defined(__FMA__) || defined(__aarch64__)
inline constexpr int kTileRows = 6;
#else
inline constexpr int kTileRows = 5;
#endif
inline constexpr int kTileVectors = 2;

struct Tile {
  const float* a;
  const float* b;
  float* c;
  const float* bias;
  int tail;  ///< floats in the last vector, 1..kWidth
};

using TileFunction = void (*)(const GemmTask&, const Tile&);

template <int kVectors, bool kPartial>
COVEY_INLINE Vector load_column(const float* p, int v, int tail) {
  if constexpr (kPartial) {
    if (v == kVectors - 1) return load_first(p + v * kWidth, tail);
  }
  return load(p + v * kWidth);
}

/// C's tile of kRows x kVectors vectors, the whole depth in one go.
template <int kRows, int kVectors, bool kPartial>
void multiply_tile(const GemmTask& task, const Tile& tile) {
  Vector sums[kRows][kVectors];
  unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
    Vector start{};
    if (tile.bias != nullptr) {
      start = load_column<kVectors, kPartial>(tile.bias, v, tile.tail);
    }
    unroll<kRows>([&](auto m) __attribute__((always_inline)) { sums[m][v] = start; });
  });
  if (task.accumulate) {
    unroll<kRows>([&](auto m) __attribute__((always_inline)) {
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        const float* row = tile.c + static_cast<std::size_t>(m) * task.c_row;
        sums[m][v] = load_column<kVectors, kPartial>(row, v, tile.tail);
      });
    });
  }

  // One pointer for every three rows: [p], [p + row], [p + 2 row] are addressing modes, so fourteen
  // rows take six general registers.
  constexpr int kGroups = (kRows + 2) / 3;
  const std::size_t row_bytes = task.a_row * sizeof(float);
  const std::size_t column_bytes = task.a_col * sizeof(float);
  const std::size_t b_bytes = task.b_row * sizeof(float);
  const char* b = reinterpret_cast<const char*>(tile.b);
  for (std::size_t segment = 0; segment < task.segments; ++segment) {
    const char* groups[kGroups];
    unroll<kGroups>([&](auto g) __attribute__((always_inline)) {
      groups[g] = reinterpret_cast<const char*>(tile.a + segment * task.a_segment) +
                  static_cast<std::size_t>(g) * 3 * row_bytes;
    });
    for (std::size_t k = 0; k < task.depth; ++k) {
      Vector columns[kVectors];
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        columns[v] =
            load_column<kVectors, kPartial>(reinterpret_cast<const float*>(b), v, tile.tail);
      });
      unroll<kRows>([&](auto m) __attribute__((always_inline)) {
        const char* address = groups[m / 3] + static_cast<std::size_t>(m % 3) * row_bytes;
        const Vector a = broadcast(*reinterpret_cast<const float*>(address));
        unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
          sums[m][v] = multiply_add(a, columns[v], sums[m][v]);
        });
      });
      b += b_bytes;
      unroll<kGroups>([&](auto g) __attribute__((always_inline)) {
        groups[g] += column_bytes;
        asm("" : "+r"(groups[g]));  // keep it a pointer of its own, not fourteen
      });
    }
  }

  if (task.relu) {
    unroll<kRows>([&](auto m) __attribute__((always_inline)) {
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        sums[m][v] = positive_part(sums[m][v]);
      });
    });
  }
  float* row = tile.c;
  const std::size_t c_row = task.c_row;
  const int tail = tile.tail;
  unroll<kRows>([&](auto m) __attribute__((always_inline)) {
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      if constexpr (kPartial && v == kVectors - 1) {
        store_first(row + v * kWidth, tail, sums[m][v]);
      } else {
        store(row + v * kWidth, sums[m][v]);
      }
    });
    row += c_row;
  });
}

/// By rows - 1, for one width of tile.
template <int kVectors, bool kPartial>
struct TileTable {
  TileFunction by_rows[kTileRows];
};

template <int kVectors, bool kPartial, int... kRows>
constexpr TileTable<kVectors, kPartial> make_tiles(Sequence<kRows...>) {
  return {{&multiply_tile<kRows + 1, kVectors, kPartial>...}};
}

template <int kVectors, bool kPartial>
inline constexpr TileTable<kVectors, kPartial> kTiles =
    make_tiles<kVectors, kPartial>(typename MakeSequence<kTileRows>::Type{});

COVEY_INLINE const TileFunction* tiles_for(int vectors, bool partial) {
  if (vectors == 2) return partial ? kTiles<2, true>.by_rows : kTiles<2, false>.by_rows;
  return partial ? kTiles<1, true>.by_rows : kTiles<1, false>.by_rows;
}

/// Rows of the next tile: the rows left in as few tiles as possible, of nearly equal height.
COVEY_INLINE std::size_t next_rows(std::size_t left) {
  const std::size_t tiles = (left + kTileRows - 1) / kTileRows;
  return (left + tiles - 1) / tiles;
}

static void gemm(const GemmTask& task) {
  for (std::size_t n = 0; n < task.columns;) {
    const std::size_t left = task.columns - n;
    const int vectors = left > kWidth ? kTileVectors : 1;
    const std::size_t whole = static_cast<std::size_t>(vectors) * kWidth;
    const std::size_t width = left < whole ? left : whole;
    const int tail = static_cast<int>(width - static_cast<std::size_t>(vectors - 1) * kWidth);
    const TileFunction* tiles = tiles_for(vectors, tail != kWidth);
    for (std::size_t m = 0; m < task.rows;) {
      const std::size_t rows = next_rows(task.rows - m);
      const Tile tile{task.a + m * task.a_row, task.b + n, task.c + m * task.c_row + n,
                      task.bias == nullptr ? nullptr : task.bias + n, tail};
      tiles[rows - 1](task, tile);
      m += rows;
    }
    n += width;
  }
}

}  // namespace covey::models::COVEY_KERNELS
