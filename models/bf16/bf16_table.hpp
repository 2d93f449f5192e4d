#pragma once

#include "bf16/bf16_products.hpp"

/// What runs over single values, and the table.
namespace covey::models::COVEY_KERNELS {

static void pack_pairs(const std::uint16_t* x, std::size_t rows, std::size_t columns,
                       std::uint32_t* pairs) {
  for (std::size_t m = 0; m < rows; m += 2) {
    const std::uint16_t* low = x + m * columns;
    if (m + 1 < rows) {
      const std::uint16_t* high = low + columns;
      for (std::size_t c = 0; c < columns; ++c) {
        pairs[c] = low[c] | (static_cast<std::uint32_t>(high[c]) << 16);
      }
    } else {
      for (std::size_t c = 0; c < columns; ++c) pairs[c] = low[c];
    }
    pairs += columns;
  }
}

/// f(offset, lanes) over whole vectors, then over what is left.
template <typename F>
COVEY_INLINE void for_each_lanes(std::size_t n, F f) {
  std::size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) f(i, Constant<kWidth>{});
  if (i < n) f(i, static_cast<int>(n - i));
}
COVEY_INLINE Vector load_floats(const float* p, Constant<kWidth>) { return load(p); }
COVEY_INLINE Vector load_floats(const float* p, int n) { return load_first(p, n); }

static void descend(std::uint16_t* weights, const float* g, std::size_t n,
                    const Bf16Step& options) {
  const VectorStep step(options);
  for_each_lanes(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Vector w = lower(load_halves(weights + i));
        const Vector anchor =
            step.anchor == nullptr ? Vector{} : lower(load_halves(step.anchor + i));
        const Vector v = step.move(w, anchor, load_floats(g + i, lanes_used));
        const std::uint32_t index = step.index + static_cast<std::uint32_t>(i);
        const Bits rounded = add_unless_nan(v, random_halves(index, step.hash)) >> 16;
        store_some(weights + i, __builtin_convertvector(rounded, Halves), lanes_used);
      });
}

static void widen(const std::uint16_t* x, std::size_t n, float* y) {
  for_each_lanes(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        store_some(y + i, lower(load_halves(x + i)), lanes_used);
      });
}

static void narrow(const float* x, std::size_t n, std::uint16_t* y) {
  for_each_lanes(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const Bits rounded = round_nearest(load_floats(x + i, lanes_used)) >> 16;
        store_some(y + i, __builtin_convertvector(rounded, Halves), lanes_used);
      });
}

static void narrow_stochastic(const float* x, std::size_t n, const StochasticRounding& rounding,
                              std::uint16_t* y) {
  const Hash hash(rounding.key);
  for_each_lanes(
      n, [&](std::size_t i, auto lanes_used) __attribute__((always_inline)) {
        const std::uint32_t index = rounding.index + static_cast<std::uint32_t>(i);
        const Vector v = load_floats(x + i, lanes_used);
        const Bits rounded = add_unless_nan(v, random_halves(index, hash)) >> 16;
        store_some(y + i, __builtin_convertvector(rounded, Halves), lanes_used);
      });
}

constexpr Bf16Kernels make_table(const char* instruction_set) {
  return {.instruction_set = instruction_set,
          .product = product,
          .update = update,
          .pack_pairs = pack_pairs,
          .descend = descend,
          .widen = widen,
          .narrow = narrow,
          .narrow_stochastic = narrow_stochastic};
}

}  // namespace covey::models::COVEY_KERNELS
