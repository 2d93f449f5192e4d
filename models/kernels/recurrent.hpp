#pragma once

#include "kernels/elementwise.hpp"
#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

/// What the steps of recurrent layers do element by element.
namespace covey::models::COVEY_KERNELS {

/// A row of `units` values that may be missing: then it is zero.
template <typename Lanes>
COVEY_INLINE Vector load_or_zero(const float* row, std::size_t offset, Lanes lanes_used) {
  return row == nullptr ? Vector{} : load_lanes(row + offset, lanes_used);
}

template <bool kPeephole>
COVEY_INLINE void lstm_step_units(const LstmStep& step) {
  const std::size_t units = step.units;
  const float* p = step.peephole;
  for (std::size_t b = 0; b < step.batch; ++b) {
    float* gates = step.gates + b * step.gates_row;
    const float* before =
        step.cells_before == nullptr ? nullptr : step.cells_before + b * step.cells_row;
    float* cells = step.cells + b * step.cells_row;
    float* hidden = step.hidden + b * step.hidden_row;
    float* state = step.state + b * step.state_row;
    for_each_vector(
        units, [&](std::size_t u, auto n) __attribute__((always_inline)) {
          const Vector c_before = load_or_zero(before, u, n);
          Vector i = load_lanes(gates + u, n);
          Vector f = load_lanes(gates + units + u, n);
          Vector o = load_lanes(gates + 3 * units + u, n);
          if constexpr (kPeephole) {
            i = multiply_add(load_lanes(p + u, n), c_before, i);
            f = multiply_add(load_lanes(p + units + u, n), c_before, f);
          }
          i = sigmoid(i);
          f = sigmoid(f);
          const Vector g = tanh(load_lanes(gates + 2 * units + u, n));
          const Vector c = multiply_add(f, c_before, i * g);
          if constexpr (kPeephole) o = multiply_add(load_lanes(p + 2 * units + u, n), c, o);
          o = sigmoid(o);
          const Vector h = o * tanh(c);
          store_lanes(gates + u, n, i);
          store_lanes(gates + units + u, n, f);
          store_lanes(gates + 2 * units + u, n, g);
          store_lanes(gates + 3 * units + u, n, o);
          store_lanes(cells + u, n, c);
          store_lanes(hidden + u, n, h);
          store_lanes(state + u, n, h);
        });
  }
}

static void lstm_step(const LstmStep& step) {
  step.peephole == nullptr ? lstm_step_units<false>(step) : lstm_step_units<true>(step);
}

/// Adds to one value each of the sums [values x units].
template <int kValues, typename Lanes>
COVEY_INLINE void add_sums(const Vector (&totals)[kValues], float* sums, std::size_t units,
                           Lanes lanes_used) {
  unroll<kValues>([&](auto v) __attribute__((always_inline)) {
    float* to = sums + std::size_t{v} * units;
    store_lanes(to, lanes_used, load_lanes(to, lanes_used) + totals[v]);
  });
}

template <bool kPeephole>
COVEY_INLINE void lstm_step_backward_units(const LstmStep& step, const LstmStepGradient& gradient) {
  const std::size_t units = step.units;
  const Vector one = broadcast(1.0f);
  for_each_vector(
      units, [&](std::size_t u, auto n) __attribute__((always_inline)) {
        Vector sums[kPeephole ? 7 : 4] = {};
        Vector p[3] = {};
        if constexpr (kPeephole) {
          for (std::size_t j = 0; j < 3; ++j) p[j] = load_lanes(step.peephole + j * units + u, n);
        }
        for (std::size_t b = 0; b < step.batch; ++b) {
          float* gates = step.gates + b * step.gates_row + u;
          const Vector i = load_lanes(gates, n);
          const Vector f = load_lanes(gates + units, n);
          const Vector g = load_lanes(gates + 2 * units, n);
          const Vector o = load_lanes(gates + 3 * units, n);
          const Vector c = load_lanes(step.cells + b * step.cells_row + u, n);
          const Vector c_before = load_or_zero(step.cells_before, b * step.cells_row + u, n);
          const Vector squashed = tanh(c);
          const Vector dh = load_or_zero(gradient.hidden, b * gradient.hidden_row + u, n) +
                            load_lanes(gradient.state + b * units + u, n);
          const Vector d_o = dh * squashed * o * (one - o);
          Vector dc = load_lanes(gradient.cells + b * units + u, n);
          dc = multiply_add(dh * o, one - squashed * squashed, dc);
          if constexpr (kPeephole) dc = multiply_add(d_o, p[2], dc);
          const Vector d[4] = {dc * g * i * (one - i), dc * c_before * f * (one - f),
                               dc * i * (one - g * g), d_o};
          Vector dc_before = dc * f;
          if constexpr (kPeephole) {
            dc_before = multiply_add(d[0], p[0], multiply_add(d[1], p[1], dc_before));
            sums[4] = multiply_add(d[0], c_before, sums[4]);
            sums[5] = multiply_add(d[1], c_before, sums[5]);
            sums[6] = multiply_add(d_o, c, sums[6]);
          }
          store_lanes(gradient.cells + b * units + u, n, dc_before);
          unroll<4>([&](auto j) __attribute__((always_inline)) {
            sums[j] += d[j];
            store_lanes(gates + std::size_t{j} * units, n, d[j]);
            store_lanes(gradient.gates + b * gradient.gates_row + std::size_t{j} * units + u, n,
                        d[j]);
          });
        }
        add_sums(sums, gradient.sums + u, units, n);
      });
}

static void lstm_step_backward(const LstmStep& step, const LstmStepGradient& gradient) {
  step.peephole == nullptr ? lstm_step_backward_units<false>(step, gradient)
                           : lstm_step_backward_units<true>(step, gradient);
}

static void gru_step(const GruStep& step) {
  const std::size_t units = step.units;
  for (std::size_t b = 0; b < step.batch; ++b) {
    float* gates = step.gates + b * step.gates_row;
    const float* recurrent = step.recurrent + b * 3 * units;
    float* hidden = step.hidden + b * step.hidden_row;
    float* state = step.state + b * step.state_row;
    const float* before =
        step.hidden_before == nullptr ? nullptr : step.hidden_before + b * step.hidden_row;
    for_each_vector(
        units, [&](std::size_t u, auto n) __attribute__((always_inline)) {
          const Vector r = sigmoid(load_lanes(gates + u, n) + load_lanes(recurrent + u, n));
          const Vector z =
              sigmoid(load_lanes(gates + units + u, n) + load_lanes(recurrent + units + u, n));
          const Vector q = load_lanes(recurrent + 2 * units + u, n);
          const Vector candidate = tanh(multiply_add(r, q, load_lanes(gates + 2 * units + u, n)));
          const Vector h = multiply_add(z, load_or_zero(before, u, n) - candidate, candidate);
          store_lanes(gates + u, n, r);
          store_lanes(gates + units + u, n, z);
          store_lanes(gates + 2 * units + u, n, candidate);
          store_lanes(gates + 3 * units + u, n, q);
          store_lanes(hidden + u, n, h);
          store_lanes(state + u, n, h);
        });
  }
}

static void gru_step_backward(const GruStep& step, const GruStepGradient& gradient) {
  const std::size_t units = step.units;
  const Vector one = broadcast(1.0f);
  for_each_vector(
      units, [&](std::size_t u, auto n) __attribute__((always_inline)) {
        Vector sums[4] = {};
        for (std::size_t b = 0; b < step.batch; ++b) {
          float* gates = step.gates + b * step.gates_row + u;
          const Vector r = load_lanes(gates, n);
          const Vector z = load_lanes(gates + units, n);
          const Vector candidate = load_lanes(gates + 2 * units, n);
          const Vector q = load_lanes(gates + 3 * units, n);
          const Vector before = load_or_zero(step.hidden_before, b * step.hidden_row + u, n);
          float* state = gradient.state + b * units + u;
          const Vector dh =
              load_or_zero(gradient.hidden, b * gradient.hidden_row + u, n) + load_lanes(state, n);
          const Vector dn = dh * (one - z) * (one - candidate * candidate);
          const Vector d[4] = {dn * q * r * (one - r), dh * (before - candidate) * z * (one - z),
                               dn, dn * r};
          store_lanes(state, n, dh * z);
          unroll<4>([&](auto j) __attribute__((always_inline)) {
            sums[j] += d[j];
            store_lanes(gates + std::size_t{j} * units, n, d[j]);
          });
          float* packed = gradient.gates + b * gradient.gates_row + u;
          store_lanes(packed, n, d[0]);
          store_lanes(packed + units, n, d[1]);
          store_lanes(packed + 2 * units, n, d[3]);
        }
        add_sums(sums, gradient.sums + u, units, n);
      });
}

}  // namespace covey::models::COVEY_KERNELS
