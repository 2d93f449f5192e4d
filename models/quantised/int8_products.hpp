#pragma once

/// Products of int8 values in the layouts of kernels_int8.hpp: forward, input gradient, and the
/// rearrangements that put four factors side by side.

#include "int8_simd.hpp"
#include "kernels_int8.hpp"

namespace covey::models::COVEY_INT8_KERNELS {

// Register tiles: positions (or inputs) times vectors of outputs, with room for the factors.
#if defined(__AVX512VNNI__)
inline constexpr int kTileRows = 12;
inline constexpr int kTileVectors = 2;
inline constexpr int kGradientQuads = 2;
#elif defined(__AVX2__)
inline constexpr int kTileRows = 5;
inline constexpr int kTileVectors = 2;
inline constexpr int kGradientQuads = 1;
#else
inline constexpr int kTileRows = 10;
inline constexpr int kTileVectors = 1;
inline constexpr int kGradientQuads = 1;
#endif
/// Rows of an input-gradient tile: one vector each.
inline constexpr int kGradientRows = kTileRows * kTileVectors / kGradientQuads;

/// f(Constant<rows>, first) over tiles of nearly equal height that cover [0, n).
template <int kRows, typename F>
COVEY_INLINE void with_rows(int rows, std::size_t first, F f) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      f(Constant<kRows>{}, first);
    } else {
      with_rows<kRows - 1>(rows, first, f);
    }
  }
}
template <int kMost, typename F>
COVEY_INLINE void for_tiles(std::size_t n, F f) {
  std::size_t tiles = (n + kMost - 1) / kMost;
  for (std::size_t first = 0; first < n; --tiles) {
    const std::size_t rows = (n - first + tiles - 1) / tiles;
    with_rows<kMost>(static_cast<int>(rows), first, f);
    first += rows;
  }
}

inline void to_operand(const std::int8_t* x, std::size_t n, void* out) {
  auto* operand = static_cast<Operand*>(out);
  for (std::size_t i = 0; i < n; ++i) {
#if defined(__SSE2__) && !defined(__AVX512VNNI__)
    operand[i] = x[i];
#else
    operand[i] = static_cast<Operand>(static_cast<std::uint8_t>(x[i]) ^ kFlip);
#endif
  }
}

inline void offset_initial([[maybe_unused]] const std::int8_t* weights,
                           [[maybe_unused]] std::size_t quads, [[maybe_unused]] std::size_t outputs,
                           [[maybe_unused]] std::int32_t* initial) {
#if defined(__AVX512VNNI__)
  const Quad all = _mm512_set1_epi8(-128);  // 128 unsigned
  for (std::size_t o = 0; o < outputs; o += kLanes) {
    Words sum{};
    for (std::size_t q = 0; q < quads; ++q) {
      sum = multiply_add(sum, all, load_weights(weights + (q * outputs + o) * kQuad));
    }
    store(initial + o, load_as<Words>(initial + o) - sum);
  }
#endif
}

template <int kRows, int kVectors>
inline __attribute__((noinline)) void product_tile(const Int8Product& task, std::size_t position,
                                                   std::size_t output) {
  Words sums[kRows][kVectors];
  unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
    const auto initial = load_as<Words>(task.initial + output + v * kLanes);
    unroll<kRows>([&](auto r) __attribute__((always_inline)) { sums[r][v] = initial; });
  });
  const Operand* x = static_cast<const Operand*>(task.operand) + position * task.step;
  const std::int8_t* w = task.weights + output * kQuad;
  const std::size_t weight_pitch = task.outputs * kQuad;
  const std::size_t step = task.step;
  for (std::size_t row = 0; row < task.rows; ++row) {
    const Operand* quad = x + row * task.row;
    for (std::size_t q = 0; q < task.quads; ++q, quad += kQuad, w += weight_pitch) {
      Weights weights[kVectors];
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        weights[v] = load_weights(w + v * kLanes * static_cast<int>(kQuad));
      });
      unroll<kRows>([&](auto r) __attribute__((always_inline)) {
        const Quad factor = load_quad(quad + static_cast<std::size_t>(r.value) * step);
        unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
          sums[r][v] = multiply_add(sums[r][v], factor, weights[v]);
        });
      });
    }
  }
  std::int32_t* out = task.sums + position * task.outputs + output;
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      store(out + static_cast<std::size_t>(r.value) * task.outputs + v * kLanes, sums[r][v]);
    });
  });
}

inline void product(const Int8Product& task) {
  std::size_t o = 0;
  constexpr std::size_t kTile = kTileVectors * kLanes;
  for (; o + kTile <= task.outputs; o += kTile) {
    for_tiles<kTileRows>(task.positions, [&](auto rows, std::size_t first) {
      product_tile<rows.value, kTileVectors>(task, first, o);
    });
  }
  for (; o < task.outputs; o += kLanes) {
    for_tiles<kTileRows>(task.positions, [&](auto rows, std::size_t first) {
      product_tile<rows.value, 1>(task, first, o);
    });
  }
}

inline void spread_gradient(const std::int8_t* d, std::size_t batch, std::size_t outputs, void* out,
                            std::int32_t* corrections) {
  auto* spread = static_cast<Operand*>(out);
  for (std::size_t b = 0; b < batch; ++b, d += outputs) {
    std::int32_t sum = 0;
    for (std::size_t o = 0; o < outputs; ++o) sum += d[o];
    corrections[b] = -kOperandOffset * sum;
    for (std::size_t o = 0; o < outputs; o += kLanes) {
      for (std::size_t quad = 0; quad < kLanes / 4; ++quad) {
        const std::int8_t* four = d + o + quad * 4;
        for (std::size_t copy = 0; copy < 4; ++copy) {
#if defined(__SSE2__) && !defined(__AVX512VNNI__)
          Operand* first = spread + 2 * (quad * 4 + copy);
          Operand* last = first + 2 * kLanes;
          first[0] = four[0];
          first[1] = four[1];
          last[0] = four[2];
          last[1] = four[3];
#else
          __builtin_memcpy(spread + 4 * (quad * 4 + copy), four, 4);
#endif
        }
      }
      spread += 4 * kLanes;
    }
  }
}

/// The sum over every fourth word, that is of the same input in all groups of four outputs.
COVEY_INLINE void store_reduced(std::int32_t* out, Words sums, std::int32_t correction) {
  typedef std::uint32_t FourWords __attribute__((vector_size(16)));
  FourWords parts[kLanes / 4];
  __builtin_memcpy(parts, &sums, sizeof sums);
  FourWords total = parts[0];
  for (int i = 1; i < kLanes / 4; ++i) total += parts[i];
  total += static_cast<std::uint32_t>(correction);
  __builtin_memcpy(out, &total, sizeof total);
}

template <int kRows, int kQuads>
inline __attribute__((noinline)) void input_gradient_tile(const Int8InputGradient& task,
                                                          std::size_t example, std::size_t quad) {
  Words sums[kRows][kQuads];
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    unroll<kQuads>([&](auto q) __attribute__((always_inline)) { sums[r][q] = Words{}; });
  });
  const std::size_t pitch = task.outputs * kQuad;
  const std::int8_t* w = task.weights + quad * pitch;
  const Operand* d = static_cast<const Operand*>(task.gradient) + example * pitch;
  for (std::size_t o = 0; o < pitch; o += kLanes * kQuad) {
    Weights weights[kQuads];
    unroll<kQuads>([&](auto q) __attribute__((always_inline)) {
      const Bytes turned =
          transposed(load_as<Bytes>(w + static_cast<std::size_t>(q.value) * pitch + o));
      std::int8_t bytes[kLanes * 4];
      store(bytes, turned);
      weights[q] = flipped(load_weights(bytes));
    });
    unroll<kRows>([&](auto r) __attribute__((always_inline)) {
      const Operand* spread = d + static_cast<std::size_t>(r.value) * pitch + o;
      unroll<kQuads>([&](auto q) __attribute__((always_inline)) {
        sums[r][q] = multiply_add_spread(sums[r][q], weights[q], spread);
      });
    });
  }
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    const std::size_t b = example + static_cast<std::size_t>(r.value);
    unroll<kQuads>([&](auto q) __attribute__((always_inline)) {
      store_reduced(task.sums + b * task.pitch + (quad + static_cast<std::size_t>(q.value)) * kQuad,
                    sums[r][q], task.corrections[b]);
    });
  });
}

inline void input_gradient(const Int8InputGradient& task) {
  for_tiles<kGradientRows>(task.batch, [&](auto rows, std::size_t first) {
    std::size_t q = 0;
    for (; q + kGradientQuads <= task.quads; q += kGradientQuads) {
      input_gradient_tile<rows.value, kGradientQuads>(task, first, q);
    }
    for (; q < task.quads; ++q) input_gradient_tile<rows.value, 1>(task, first, q);
  });
}

typedef std::uint8_t Row16 __attribute__((vector_size(16)));

COVEY_INLINE Row16 bytes_low(Row16 a, Row16 b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
COVEY_INLINE Row16 bytes_high(Row16 a, Row16 b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}
COVEY_INLINE Row16 pairs_low(Row16 a, Row16 b) {
  return __builtin_shufflevector(a, b, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
}
COVEY_INLINE Row16 pairs_high(Row16 a, Row16 b) {
  return __builtin_shufflevector(a, b, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30,
                                 31);
}
/// Four rows of 16 bytes -> 16 words of four bytes, one of each row.
COVEY_INLINE void interleave_rows(const Row16 (&rows)[4], Row16 (&out)[4]) {
  const Row16 a = bytes_low(rows[0], rows[1]);
  const Row16 b = bytes_low(rows[2], rows[3]);
  const Row16 c = bytes_high(rows[0], rows[1]);
  const Row16 d = bytes_high(rows[2], rows[3]);
  out[0] = pairs_low(a, b);
  out[1] = pairs_high(a, b);
  out[2] = pairs_low(c, d);
  out[3] = pairs_high(c, d);
}

inline void transpose_inputs(const std::int8_t* x, std::size_t batch, std::size_t pitch,
                             std::size_t inputs, void* out, std::uint8_t* live) {
  auto* operand = static_cast<Operand*>(out);
  const std::size_t batch_quads = (batch + kQuad - 1) / kQuad;
  const std::size_t quads = (inputs + kQuad - 1) / kQuad;
  for (std::size_t i = 0; i < quads * kQuad; i += 16) {
    const std::size_t here = quads - i / kQuad < 4 ? quads - i / kQuad : 4;
    Row16 any{};
    for (std::size_t bq = 0; bq < batch_quads; ++bq) {
      Row16 rows[4];
      Row16 turned[4];
      for (std::size_t k = 0; k < kQuad; ++k) {
        const std::size_t b = bq * kQuad + k;
        rows[k] = b < batch ? load_as<Row16>(x + b * pitch + i) : Row16{};
        any |= rows[k];
      }
      interleave_rows(rows, turned);
      for (std::size_t q = 0; q < here; ++q) {
        std::int8_t bytes[16];
        store(bytes, turned[q]);
        to_operand(bytes, 16, operand + ((i / kQuad + q) * batch_quads + bq) * 16);
      }
    }
    std::uint32_t seen[4];
    store(seen, any);
    for (std::size_t q = 0; q < here; ++q) live[i / kQuad + q] = seen[q] != 0 ? 1 : 0;
  }
}

inline void interleave(const std::int8_t* rows, std::size_t n, std::size_t columns,
                       std::int8_t* out) {
  for (std::size_t first = 0; first < n; first += kQuad) {
    for (std::size_t c = 0; c < columns; c += 16, out += 64) {
      Row16 in[4];
      Row16 turned[4];
      for (std::size_t k = 0; k < kQuad; ++k) {
        in[k] = first + k < n ? load_as<Row16>(rows + (first + k) * columns + c) : Row16{};
      }
      interleave_rows(in, turned);
      for (std::size_t q = 0; q < 4; ++q) store(out + q * 16, turned[q]);
    }
  }
}

inline void gradient_offsets([[maybe_unused]] const std::int8_t* interleaved,
                             [[maybe_unused]] std::size_t quads, std::size_t outputs,
                             std::int32_t* offsets) {
  for (std::size_t o = 0; o < outputs; ++o) offsets[o] = 0;
  offset_initial(interleaved, quads, outputs, offsets);  // the same sums, of gradients
}

inline void window_quads(const std::int8_t* row, std::size_t channels, std::size_t n, void* out) {
  auto* operand = static_cast<Operand*>(out);
  for (std::size_t i = 0; i < n; i += 16, operand += 64) {
    Row16 shifted[4];
    Row16 turned[4];
    for (std::size_t k = 0; k < kQuad; ++k) shifted[k] = load_as<Row16>(row + i + k * channels);
    interleave_rows(shifted, turned);
    std::int8_t bytes[64];
    for (std::size_t q = 0; q < 4; ++q) store(bytes + 16 * q, turned[q]);
    to_operand(bytes, 64, operand);
  }
}

template <int kInputs, int kVectors>
inline __attribute__((noinline)) void window_gradient_tile(const Int8WindowGradient& task,
                                                           std::size_t ky, std::size_t input,
                                                           std::size_t output) {
  Words sums[kInputs][kVectors];
  const std::size_t padded_run = (task.run + kQuad - 1) / kQuad * kQuad;
  std::int32_t* out = task.sums + (ky * padded_run + input) * task.outputs + output;
  unroll<kInputs>([&](auto i) __attribute__((always_inline)) {
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      sums[i][v] =
          load_as<Words>(out + static_cast<std::size_t>(i.value) * task.outputs + v * kLanes) +
          load_as<Words>(task.offsets + output + v * kLanes);
    });
  });
  const Operand* x = static_cast<const Operand*>(task.inputs) + ky * task.row + input * kQuad;
  const std::int8_t* d = task.gradient + output * kQuad;
  for (std::size_t y = 0; y < task.image_rows; ++y, x += task.row) {
    const Operand* quad = x;
    for (std::size_t q = 0; q < task.position_quads; ++q) {
      Weights gradient[kVectors];
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        gradient[v] = load_weights(d + v * kLanes * static_cast<int>(kQuad));
      });
      unroll<kInputs>([&](auto i) __attribute__((always_inline)) {
        const Quad factor = load_quad(quad + i.value * static_cast<int>(kQuad));
        unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
          sums[i][v] = multiply_add(sums[i][v], factor, gradient[v]);
        });
      });
      d += task.outputs * kQuad;
      quad += task.step;
    }
  }
  unroll<kInputs>([&](auto i) __attribute__((always_inline)) {
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      store(out + static_cast<std::size_t>(i.value) * task.outputs + v * kLanes, sums[i][v]);
    });
  });
}

inline void window_gradient(const Int8WindowGradient& task) {
  constexpr std::size_t kTile = kTileVectors * kLanes;
  for (std::size_t ky = 0; ky < task.kernel; ++ky) {
    for_tiles<kTileRows>(task.run, [&](auto inputs, std::size_t first) {
      std::size_t o = 0;
      for (; o + kTile <= task.outputs; o += kTile) {
        window_gradient_tile<inputs.value, kTileVectors>(task, ky, first, o);
      }
      for (; o < task.outputs; o += kLanes) {
        window_gradient_tile<inputs.value, 1>(task, ky, first, o);
      }
    });
  }
}

}  // namespace covey::models::COVEY_INT8_KERNELS
