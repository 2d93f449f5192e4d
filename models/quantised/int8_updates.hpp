#pragma once

/// The element-wise passes of kernels_int8.hpp: stochastic rounding of weight steps and gradients,
/// quantisation, pooling. Everything in single precision is one rounding per operation.

#include "int8_products.hpp"

namespace covey::models::COVEY_INT8_KERNELS {

// Random bits by position: a counter times an odd constant, then half of "lowbias32" (Wellons 2018,
// "Prospecting for hash functions"), whose first multiplication the counter's takes the place of.
inline constexpr std::uint32_t kCounterFactor = 0x9E3779B1u;  // odd, 2^32 / golden ratio
inline constexpr std::uint32_t kHashFactor = 0x846CA68Bu;
inline constexpr std::uint32_t kSecondStream = 0x6A09E667u;

COVEY_INLINE Words hashed(Words counter_times_factor) {
  Words x = counter_times_factor;
  x ^= x >> 15;
  x *= kHashFactor;
  x ^= x >> 16;
  return x;
}

struct RandomLanes {
  Words lanes = lane_numbers() * kCounterFactor;
  std::uint32_t key;
  explicit RandomLanes(std::uint32_t k) : key(k) {}
  /// The counters index, index + 1, ... before hashing.
  COVEY_INLINE Words counters(std::size_t index) const {
    return lanes + (static_cast<std::uint32_t>(index) * kCounterFactor + key);
  }
};

/// w <- clip(w - floor(sums * factor / 2^16 + u)) with u uniform in {0, ..., 65535} / 65536, for
/// four inputs of kLanes outputs.
COVEY_INLINE void step_quad(const Words (&sums)[4], Floats factor, const RandomLanes& random,
                            std::size_t index, std::int8_t* weights) {
  const Words counter = random.counters(index);
  const Words a = hashed(counter);
  const Words b = hashed(counter + kSecondStream);
  const Words bits[4] = {a & 0xFFFFu, a >> 16, b & 0xFFFFu, b >> 16};
  Ints steps[4];
  unroll<4>([&](auto k) __attribute__((always_inline)) {
    steps[k] = ints(words(round_to_ints(to_floats(sums[k]) * factor)) + bits[k]);
  });
  store(weights, subtract_clipped(load_as<SignedBytes>(weights), high_halves_as_bytes(steps)));
}

template <int kVectors>
COVEY_INLINE void dense_step_tile(const Int8DenseStep& task, const RandomLanes& random,
                                  std::size_t quad, std::size_t output) {
  Words sums[kVectors][4];
  unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
    const auto offset = load_as<Words>(task.offsets + output + v * kLanes);
    unroll<4>([&](auto k) __attribute__((always_inline)) { sums[v][k] = offset; });
  });
  const Operand* x = static_cast<const Operand*>(task.inputs) + quad * task.batch_quads * 16;
  const std::int8_t* d = task.gradient + output * kQuad;
  for (std::size_t q = 0; q < task.batch_quads; ++q, x += 16, d += task.outputs * kQuad) {
    Weights gradient[kVectors];
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      gradient[v] = load_weights(d + v * kLanes * static_cast<int>(kQuad));
    });
    unroll<4>([&](auto k) __attribute__((always_inline)) {
      const Quad factor = load_quad(x + 4 * k.value);
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        sums[v][k] = multiply_add(sums[v][k], factor, gradient[v]);
      });
    });
  }
  unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
    const std::size_t o = output + static_cast<std::size_t>(v.value * kLanes);
    const std::size_t index = quad * task.outputs + o;
    step_quad(sums[v], load_as<Floats>(task.rounding.factors + o), random, index,
              task.weights + index * kQuad);
  });
}

inline void dense_step(const Int8DenseStep& task) {
  const RandomLanes random(task.rounding.key);
  constexpr std::size_t kTile = kTileVectors * kLanes;
  for (std::size_t quad = 0; quad < task.quads; ++quad) {
    if (task.live[quad] == 0) continue;  // the gradient is zero, and zero rounds to zero
    std::size_t o = 0;
    for (; o + kTile <= task.outputs; o += kTile)
      dense_step_tile<kTileVectors>(task, random, quad, o);
    for (; o < task.outputs; o += kLanes) dense_step_tile<1>(task, random, quad, o);
  }
}

inline void weight_step(const std::int32_t* sums, std::size_t quads, std::size_t outputs,
                        const Int8Rounding& rounding, std::int8_t* weights) {
  const RandomLanes random(rounding.key);
  for (std::size_t quad = 0; quad < quads; ++quad) {
    for (std::size_t o = 0; o < outputs; o += kLanes) {
      Words four[4];
      for (std::size_t k = 0; k < kQuad; ++k) {
        four[k] = load_as<Words>(sums + (quad * kQuad + k) * outputs + o);
      }
      const std::size_t index = quad * outputs + o;
      step_quad(four, load_as<Floats>(rounding.factors + o), random, index,
                weights + index * kQuad);
    }
  }
}

inline void proximal_step(std::int8_t* weights, const std::int8_t* anchor, std::size_t n,
                          float factor, std::uint32_t key) {
  const RandomLanes random(key);
  const Floats factors = broadcast(factor);
  for (std::size_t i = 0; i < n; i += kLanes * kQuad) {
    Words sums[4];
    // a lane's four bytes are the four "inputs" of step_quad: byte k of each word, sign-extended
    const auto w = load_as<Words>(weights + i);
    const auto a = load_as<Words>(anchor + i);
    unroll<4>([&](auto k) __attribute__((always_inline)) {
      const Ints wk = ints(w << (24 - 8 * k.value)) >> 24;
      const Ints ak = ints(a << (24 - 8 * k.value)) >> 24;
      sums[k] = words(wk) - words(ak);
    });
    step_quad(sums, factors, random, i / kQuad, weights + i);
  }
}

template <typename V>
COVEY_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}
template <typename V>
COVEY_INLINE V smaller(V a, V b) {
  return a < b ? a : b;
}
COVEY_INLINE Floats magnitude(Floats v) {
  return reinterpret_cast<Floats>(reinterpret_cast<Words>(v) & 0x7FFFFFFFu);
}
COVEY_INLINE float largest_lane(Floats v) {
  float most = 0;
  for (int i = 0; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

inline float largest(const std::int32_t* sums, std::size_t rows, std::size_t columns,
                     const float* scale, bool relu) {
  Floats most{};
  for (std::size_t r = 0; r < rows; ++r, sums += columns) {
    for (std::size_t c = 0; c < columns; c += kLanes) {
      const Floats value = to_floats(load_as<Words>(sums + c)) * load_as<Floats>(scale + c);
      most = larger(most, relu ? value : magnitude(value));
    }
  }
  return largest_lane(most);
}

inline float largest_masked(const std::int32_t* sums, std::size_t columns, const float* scale,
                            const std::int8_t* mask) {
  Floats most{};
  for (std::size_t c = 0; c < columns; c += kLanes) {
    const Ints keep = load_bytes(mask + c) != 0;
    const Ints value = reinterpret_cast<Ints>(
        magnitude(to_floats(load_as<Words>(sums + c)) * load_as<Floats>(scale + c)));
    most = larger(most, reinterpret_cast<Floats>(value & keep));
  }
  return largest_lane(most);
}

/// Bounds before the conversion, so that no sum is too large for it.
COVEY_INLINE Ints rounded_within(Floats v, float lowest, float highest) {
  return round_to_ints(smaller(larger(v, broadcast(lowest)), broadcast(highest)));
}

inline void quantise(const std::int32_t* sums, std::size_t columns, const float* factor, bool relu,
                     std::int8_t* out) {
  const float lowest = relu ? 0.0f : -127.0f;
  for (std::size_t c = 0; c < columns; c += kLanes) {
    const Floats value = to_floats(load_as<Words>(sums + c)) * load_as<Floats>(factor + c);
    store_bytes(out + c, rounded_within(value, lowest, 127.0f));
  }
}

inline void quantise_randomly(const std::int32_t* sums, std::size_t columns, const float* factor,
                              const std::int8_t* mask, std::uint32_t key, std::uint32_t index,
                              std::int8_t* out) {
  const RandomLanes random(key);
  constexpr float kMost = 127.0f * 65536.0f;
  for (std::size_t c = 0; c < columns; c += kLanes) {
    const Floats value = to_floats(load_as<Words>(sums + c)) * load_as<Floats>(factor + c);
    const Words bits = hashed(random.counters(index + c)) >> 16;
    Ints rounded = ints(words(rounded_within(value, -kMost, kMost)) + bits) >> 16;
    if (mask != nullptr) rounded &= load_bytes(mask + c) != 0;
    store_bytes(out + c, rounded);
  }
}

inline void max_pool(const std::int32_t* rows, std::size_t width, std::size_t columns,
                     std::size_t window, std::int32_t* out, std::uint8_t* where) {
  for (std::size_t x = 0; x < width / window; ++x, out += columns, where += columns) {
    for (std::size_t c = 0; c < columns; c += kLanes) {
      Ints best = load_as<Ints>(rows + x * window * columns + c);
      Ints best_at{};
      for (std::size_t i = 1; i < window * window; ++i) {
        const std::size_t position = i / window * width + x * window + i % window;
        const auto next = load_as<Ints>(rows + position * columns + c);
        const Ints better = next > best;
        best = better ? next : best;
        best_at = better ? Ints{} + static_cast<std::int32_t>(i) : best_at;
      }
      store(out + c, best);
      // window * window <= 128: the index is an int8
      store_bytes(reinterpret_cast<std::int8_t*>(where) + c, best_at);
    }
  }
}

inline void requantise(const std::int32_t* sums, std::size_t columns,
                       const std::int32_t* multiplier, const std::int32_t* shift, bool relu,
                       std::int8_t* out) {
  const std::int64_t lowest = relu ? 0 : -127;
  for (std::size_t c = 0; c < columns; ++c) {
    const std::int64_t half = std::int64_t{1} << (shift[c] - 1);
    std::int64_t value = (std::int64_t{sums[c]} * multiplier[c] + half) >> shift[c];
    value = value < lowest ? lowest : value;
    out[c] = static_cast<std::int8_t>(value > 127 ? 127 : value);
  }
}

inline float largest_float(const float* x, std::size_t n) {
  // bit patterns of magnitudes are ordered as the values are, with NaN above infinity
  std::uint32_t most = 0;
  Ints lanes{};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    lanes = larger(lanes, reinterpret_cast<Ints>(magnitude(load_as<Floats>(x + i))));
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto bits = static_cast<std::uint32_t>(lanes[lane]);
    most = bits > most ? bits : most;
  }
  for (; i < n; ++i) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7FFFFFFFu;
    most = bits > most ? bits : most;
  }
  float value;
  __builtin_memcpy(&value, &most, sizeof value);
  return value;
}

inline void quantise_floats(const float* x, std::size_t n, float factor, std::int8_t* out) {
  const Floats factors = broadcast(factor);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store_bytes(out + i, rounded_within(load_as<Floats>(x + i) * factors, -127.0f, 127.0f));
  }
  if (i < n) {
    float last[kLanes] = {};
    std::int8_t bytes[kLanes];
    for (std::size_t k = 0; i + k < n; ++k) last[k] = x[i + k];
    store_bytes(bytes, rounded_within(load_as<Floats>(last) * factors, -127.0f, 127.0f));
    for (std::size_t k = 0; i + k < n; ++k) out[i + k] = bytes[k];
  }
}

constexpr Int8Kernels make_table(const char* instruction_set) {
  return {.instruction_set = instruction_set,
          .operand_bytes = sizeof(Operand),
          .zero_byte = kZeroByte,
          .to_operand = to_operand,
          .offset_initial = offset_initial,
          .product = product,
          .spread_gradient = spread_gradient,
          .input_gradient = input_gradient,
          .transpose_inputs = transpose_inputs,
          .interleave = interleave,
          .gradient_offsets = gradient_offsets,
          .dense_step = dense_step,
          .window_quads = window_quads,
          .window_gradient = window_gradient,
          .weight_step = weight_step,
          .proximal_step = proximal_step,
          .largest = largest,
          .largest_masked = largest_masked,
          .quantise = quantise,
          .quantise_randomly = quantise_randomly,
          .max_pool = max_pool,
          .requantise = requantise,
          .largest_float = largest_float,
          .quantise_floats = quantise_floats};
}

}  // namespace covey::models::COVEY_INT8_KERNELS
