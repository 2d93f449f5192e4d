// The integer kernels of every instruction set against the definitions in kernels_int8.hpp, written
// out plainly: results must be the same integers.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/random.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "../../models/quantised/kernels_int8.hpp"

namespace {

using namespace covey;
using namespace covey::models;

constexpr std::uint64_t kSeed = 20260;

/// Those that this program has and this processor can run.
std::vector<const Int8Kernels*> available() {
  std::vector<const Int8Kernels*> tables{int8_portable_kernels()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") != 0) tables.push_back(int8_avx2_kernels());
  if (__builtin_cpu_supports("avx512vnni") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
      __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0) {
    tables.push_back(int8_vnni_kernels());
  }
#endif
  return tables;
}

std::size_t up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

/// Values in [-127, 127], a third of them zero and the ends well represented.
std::vector<std::int8_t> random_bytes(std::size_t n, RandomStream& random) {
  std::vector<std::int8_t> values(n + kInt8Slack);
  for (std::size_t i = 0; i < n; ++i) {
    const auto kind = random.below(6);
    const int value = static_cast<int>(random.below(255)) - 127;
    values[i] = static_cast<std::int8_t>(kind < 2 ? 0 : kind == 2 ? 127 : kind == 3 ? -127 : value);
  }
  return values;
}

/// Sums as products of int8 give them, with 0 and a few very large ones.
std::vector<std::int32_t> random_sums(std::size_t n, RandomStream& random) {
  std::vector<std::int32_t> sums(n + kInt8Slack);
  for (std::size_t i = 0; i < n; ++i) {
    const int shift = static_cast<int>(random.below(30));
    sums[i] = static_cast<std::int32_t>(random.next_u32()) >> shift;
  }
  return sums;
}

std::vector<float> random_floats(std::size_t n, double low, double high, RandomStream& random) {
  std::vector<float> values(n + kInt8Slack);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(random.uniform(low, high));
  return values;
}

std::vector<std::byte> operand(const Int8Kernels& kernels, const std::vector<std::int8_t>& x) {
  std::vector<std::byte> out(x.size() * kernels.operand_bytes + kInt8Slack);
  kernels.to_operand(x.data(), x.size(), out.data());
  return out;
}

/// The random numbers' definition once more: a counter times 2^32 / golden ratio, plus the key,
/// then two xor-shifts around a multiplication.
std::uint32_t hashed(std::uint32_t x) {
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  return x ^ (x >> 16);
}
std::uint32_t counter(std::size_t index, std::uint32_t key) {
  return static_cast<std::uint32_t>(index) * 0x9E3779B1u + key;
}

/// clip(w - floor(sum * factor / 2^16 + u)): byte k of the quad at `index`.
std::int8_t stepped(std::int8_t w, std::int32_t sum, float factor, std::size_t index, std::size_t k,
                    std::uint32_t key) {
  const std::uint32_t h = hashed(counter(index, key) + (k < 2 ? 0u : 0x6A09E667u));
  const std::uint32_t bits = k % 2 == 0 ? h & 0xFFFFu : h >> 16;
  const float product = static_cast<float>(sum) * factor;
  const auto scaled = static_cast<std::int64_t>(std::nearbyint(product));
  const std::int64_t step = std::clamp<std::int64_t>((scaled + bits) >> 16, -128, 127);
  return static_cast<std::int8_t>(std::clamp<std::int64_t>(w - step, -127, 127));
}

struct ProductShape {
  std::size_t positions, rows, run, outputs;
};

}  // namespace

TEST_CASE("int8: products are the same integers on every instruction set", "[int8]") {
  RandomStream random(kSeed, RandomPurpose::kTraining);
  const auto shape = GENERATE(ProductShape{10, 1, 784, 200}, ProductShape{1, 1, 3, 10},
                              ProductShape{13, 1, 61, 17}, ProductShape{28, 5, 5, 32},
                              ProductShape{14, 3, 96, 48}, ProductShape{37, 2, 7, 100});
  CAPTURE(kSeed, shape.positions, shape.rows, shape.run, shape.outputs);
  const std::size_t quads = up(shape.run, kQuad) / kQuad;
  const std::size_t padded = up(shape.outputs, kOutputPitch);
  const std::size_t step = up(shape.run, kQuad) + 4;
  const std::size_t row = shape.positions * step + 4;
  const auto x = random_bytes(shape.rows * row + kQuad, random);
  auto w = random_bytes(shape.rows * quads * padded * kQuad, random);
  const auto initial = random_sums(padded, random);
  std::vector<std::int32_t> expected(shape.positions * padded);
  for (std::size_t p = 0; p < shape.positions; ++p) {
    for (std::size_t o = 0; o < padded; ++o) {
      std::int64_t sum = initial[o];
      for (std::size_t r = 0; r < shape.rows; ++r) {
        for (std::size_t j = 0; j < quads * kQuad; ++j) {
          const int weight = w[((r * quads + j / kQuad) * padded + o) * kQuad + j % kQuad];
          sum += x[p * step + r * row + j] * weight;
        }
      }
      expected[p * padded + o] = static_cast<std::int32_t>(sum);  // modulo 2^32
    }
  }
  for (const Int8Kernels* kernels : available()) {
    CAPTURE(kernels->instruction_set);
    const auto in = operand(*kernels, x);
    auto start = initial;
    kernels->offset_initial(w.data(), shape.rows * quads, padded, start.data());
    std::vector<std::int32_t> sums(shape.positions * padded);
    kernels->product({in.data(), step, row, shape.positions, shape.rows, quads, padded, w.data(),
                      start.data(), sums.data()});
    CHECK(sums == expected);
  }
}

TEST_CASE("int8: a dense layer's input gradient is the same on every instruction set", "[int8]") {
  RandomStream random(kSeed + 1, RandomPurpose::kTraining);
  const auto batch = GENERATE(std::size_t{1}, std::size_t{10}, std::size_t{31});
  const auto inputs = GENERATE(std::size_t{7}, std::size_t{200});
  const auto outputs = GENERATE(std::size_t{10}, std::size_t{112});
  CAPTURE(kSeed, batch, inputs, outputs);
  const std::size_t quads = up(inputs, kQuad) / kQuad;
  const std::size_t padded = up(outputs, kOutputPitch);
  const std::size_t pitch = up(inputs, kOutputPitch);
  const auto w = random_bytes(quads * padded * kQuad, random);
  const auto d = random_bytes(batch * padded, random);
  std::vector<std::int32_t> expected(batch * pitch);
  for (std::size_t b = 0; b < batch; ++b) {
    for (std::size_t i = 0; i < quads * kQuad; ++i) {
      for (std::size_t o = 0; o < padded; ++o) {
        expected[b * pitch + i] +=
            d[b * padded + o] * w[(i / kQuad * padded + o) * kQuad + i % kQuad];
      }
    }
  }
  for (const Int8Kernels* kernels : available()) {
    CAPTURE(kernels->instruction_set);
    std::vector<std::byte> spread(batch * padded * kQuad * kernels->operand_bytes);
    std::vector<std::int32_t> corrections(batch);
    std::vector<std::int32_t> sums(batch * pitch);
    kernels->spread_gradient(d.data(), batch, padded, spread.data(), corrections.data());
    kernels->input_gradient(
        {spread.data(), corrections.data(), batch, quads, padded, pitch, w.data(), sums.data()});
    CHECK(sums == expected);
  }
}

TEST_CASE("int8: the fused step of a dense layer is gradient, rounding and clipping", "[int8]") {
  RandomStream random(kSeed + 2, RandomPurpose::kTraining);
  const auto batch = GENERATE(std::size_t{1}, std::size_t{10}, std::size_t{23});
  const auto inputs = GENERATE(std::size_t{5}, std::size_t{64}, std::size_t{203});
  const auto outputs = GENERATE(std::size_t{10}, std::size_t{40});
  CAPTURE(kSeed, batch, inputs, outputs);
  constexpr std::uint32_t kKey = 0xABCDEF01u;
  const std::size_t quads = up(inputs, kQuad) / kQuad;
  const std::size_t batch_quads = up(batch, kQuad) / kQuad;
  const std::size_t padded = up(outputs, kOutputPitch);
  const std::size_t pitch = up(inputs, kOutputPitch);
  auto x = random_bytes(batch * pitch, random);
  for (std::size_t b = 0; b < batch; ++b) {
    std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(b * pitch + inputs), pitch - inputs,
                std::int8_t{0});
    if (inputs > 8) x[b * pitch + 4] = x[b * pitch + 5] = x[b * pitch + 6] = x[b * pitch + 7] = 0;
  }
  const auto d = random_bytes(batch * padded, random);
  const auto w = random_bytes(quads * padded * kQuad, random);
  const auto factors = random_floats(padded, 0, 200, random);  // up to a few steps per weight
  auto expected = w;
  for (std::size_t i = 0; i < quads * kQuad; ++i) {
    for (std::size_t o = 0; o < padded; ++o) {
      std::int32_t sum = 0;
      for (std::size_t b = 0; b < batch && i < inputs; ++b)
        sum += x[b * pitch + i] * d[b * padded + o];
      const std::size_t index = i / kQuad * padded + o;
      std::int8_t& weight = expected[index * kQuad + i % kQuad];
      weight = stepped(weight, sum, factors[o], index, i % kQuad, kKey);
    }
  }
  REQUIRE(expected != w);
  for (const Int8Kernels* kernels : available()) {
    CAPTURE(kernels->instruction_set);
    std::vector<std::byte> in(quads * batch_quads * 16 * kernels->operand_bytes);
    std::vector<std::uint8_t> live(quads, 7);
    std::vector<std::int8_t> gradient(batch_quads * padded * kQuad);
    std::vector<std::int32_t> offsets(padded);
    kernels->transpose_inputs(x.data(), batch, pitch, inputs, in.data(), live.data());
    kernels->interleave(d.data(), batch, padded, gradient.data());
    kernels->gradient_offsets(gradient.data(), batch_quads, padded, offsets.data());
    CHECK(live[0] == 1);
    if (inputs > 8) CHECK(live[1] == 0);  // inputs 4 to 7 are zero in every example
    auto stepped_weights = w;
    kernels->dense_step({in.data(),
                         live.data(),
                         gradient.data(),
                         offsets.data(),
                         batch_quads,
                         quads,
                         padded,
                         {factors.data(), kKey},
                         stepped_weights.data()});
    CHECK(stepped_weights == expected);
  }
}

TEST_CASE("int8: a convolution's weight gradient is the same on every instruction set", "[int8]") {
  RandomStream random(kSeed + 3, RandomPurpose::kTraining);
  struct Shape {
    std::size_t height, width, channels, kernel, outputs;
  };
  const auto shape = GENERATE(Shape{14, 14, 8, 5, 24}, Shape{5, 7, 1, 3, 6}, Shape{3, 9, 5, 4, 48});
  CAPTURE(kSeed, shape.height, shape.width, shape.channels, shape.kernel, shape.outputs);
  const std::size_t padded = up(shape.outputs, kOutputPitch);
  const std::size_t run = shape.kernel * shape.channels;
  const std::size_t padded_run = up(run, kQuad);
  const std::size_t position_quads = up(shape.width, kQuad) / kQuad;
  const std::size_t starts = position_quads * kQuad + shape.kernel - 1;
  const std::size_t image_rows = shape.height + shape.kernel - 1;
  const std::size_t row_values = (starts + 3) * shape.channels;
  const std::size_t quads_row = up(starts * shape.channels, 16) * kQuad;
  std::vector<std::vector<std::int8_t>> rows;  // of the padded image
  for (std::size_t y = 0; y < image_rows; ++y) rows.push_back(random_bytes(row_values, random));
  const auto d = random_bytes(shape.height * shape.width * padded, random);
  std::vector<std::int32_t> expected(shape.kernel * padded_run * padded, 5);
  for (std::size_t ky = 0; ky < shape.kernel; ++ky) {
    for (std::size_t j = 0; j < run; ++j) {
      for (std::size_t o = 0; o < padded; ++o) {
        std::int32_t& sum = expected[(ky * padded_run + j) * padded + o];
        for (std::size_t p = 0; p < shape.height * shape.width; ++p) {
          const std::size_t y = p / shape.width;
          const std::size_t x = p % shape.width;
          sum += rows[y + ky][x * shape.channels + j] * d[p * padded + o];
        }
      }
    }
  }
  for (const Int8Kernels* kernels : available()) {
    CAPTURE(kernels->instruction_set);
    std::vector<std::byte> in(image_rows * quads_row * kernels->operand_bytes);
    std::vector<std::int8_t> gradient(shape.height * position_quads * padded * kQuad);
    std::vector<std::int32_t> offsets(padded);
    for (std::size_t y = 0; y < image_rows; ++y) {
      kernels->window_quads(rows[y].data(), shape.channels, starts * shape.channels,
                            in.data() + y * quads_row * kernels->operand_bytes);
    }
    for (std::size_t y = 0; y < shape.height; ++y) {
      kernels->interleave(d.data() + y * shape.width * padded, shape.width, padded,
                          gradient.data() + y * position_quads * padded * kQuad);
    }
    kernels->gradient_offsets(gradient.data(), shape.height * position_quads, padded,
                              offsets.data());
    std::vector<std::int32_t> sums(shape.kernel * padded_run * padded, 5);
    kernels->window_gradient({in.data(), quads_row, kQuad * shape.channels * kQuad, gradient.data(),
                              offsets.data(), shape.height, position_quads, shape.kernel, run,
                              padded, sums.data()});
    CHECK(sums == expected);
  }
}

TEST_CASE("int8: steps from stored sums and proximal steps follow the same rule", "[int8]") {
  RandomStream random(kSeed + 4, RandomPurpose::kTraining);
  constexpr std::size_t kQuads = 9;
  constexpr std::size_t kOutputs = 48;
  constexpr std::uint32_t kKey = 77;
  CAPTURE(kSeed);
  const auto w = random_bytes(kQuads * kOutputs * kQuad, random);
  const auto anchor = random_bytes(kQuads * kOutputs * kQuad, random);
  auto sums = random_sums(kQuads * kQuad * kOutputs, random);
  for (std::int32_t& sum : sums) sum >>= 12;  // |sum| < 2^19, times 1000 below 2^30
  const auto factors = random_floats(kOutputs, 0, 1000, random);
  const float pull = 0.3f * 65536.0f;
  auto expected = w;
  auto pulled = w;
  for (std::size_t q = 0; q < kQuads; ++q) {
    for (std::size_t o = 0; o < kOutputs; ++o) {
      for (std::size_t k = 0; k < kQuad; ++k) {
        const std::size_t index = q * kOutputs + o;
        const std::size_t at = index * kQuad + k;
        expected[at] =
            stepped(w[at], sums[(q * kQuad + k) * kOutputs + o], factors[o], index, k, kKey);
        pulled[at] = stepped(w[at], w[at] - anchor[at], pull, index, k, kKey);
      }
    }
  }
  for (const Int8Kernels* kernels : available()) {
    CAPTURE(kernels->instruction_set);
    auto stepped_weights = w;
    kernels->weight_step(sums.data(), kQuads, kOutputs, {factors.data(), kKey},
                         stepped_weights.data());
    CHECK(stepped_weights == expected);
    auto pulled_weights = w;
    kernels->proximal_step(pulled_weights.data(), anchor.data(), kQuads * kOutputs * kQuad, pull,
                           kKey);
    CHECK(pulled_weights == pulled);
  }
}

TEST_CASE("int8: quantising sums and floats follows the definitions on every instruction set",
          "[int8]") {
  RandomStream random(kSeed + 5, RandomPurpose::kTraining);
  constexpr std::size_t kColumns = 112;
  constexpr std::uint32_t kKey = 9;
  constexpr std::uint32_t kIndex = 12345;
  CAPTURE(kSeed);
  const bool relu = GENERATE(false, true);
  const auto sums = random_sums(kColumns, random);
  auto factors = random_floats(kColumns, 0, 1e-5, random);
  for (std::size_t c = 0; c < kColumns; c += 3) factors[c] *= 1e4f;  // these are clipped
  auto random_factors = factors;
  for (float& factor : random_factors) factor *= 65536.0f;
  const auto mask = random_bytes(kColumns, random);
  const auto floats = random_floats(kColumns + 5, -150, 150, random);
  std::vector<std::int8_t> nearest, random_masked, from_floats;
  float largest = 0;
  float largest_masked = 0;
  for (std::size_t c = 0; c < kColumns; ++c) {
    const float value = static_cast<float>(sums[c]) * factors[c];
    const float rounded = std::nearbyint(std::clamp(value, relu ? 0.0f : -127.0f, 127.0f));
    nearest.push_back(static_cast<std::int8_t>(rounded));
    largest = std::max(largest, relu ? value : std::abs(value));
    if (mask[c] != 0) largest_masked = std::max(largest_masked, std::abs(value));
    const float scaled = std::clamp(static_cast<float>(sums[c]) * random_factors[c],
                                    -127.0f * 65536.0f, 127.0f * 65536.0f);
    const auto bits = hashed(counter(kIndex + c, kKey)) >> 16;
    const auto fixed = static_cast<std::int64_t>(std::nearbyint(scaled)) + bits;
    random_masked.push_back(mask[c] == 0 ? std::int8_t{0} : static_cast<std::int8_t>(fixed >> 16));
  }
  for (std::size_t i = 0; i < kColumns + 5; ++i) {
    const float scaled = std::clamp(floats[i] * 1.5f, -127.0f, 127.0f);
    from_floats.push_back(static_cast<std::int8_t>(std::nearbyint(scaled)));
  }
  for (const Int8Kernels* kernels : available()) {
    CAPTURE(kernels->instruction_set);
    std::vector<std::int8_t> out(kColumns);
    kernels->quantise(sums.data(), kColumns, factors.data(), relu, out.data());
    CHECK(out == nearest);
    kernels->quantise_randomly(sums.data(), kColumns, random_factors.data(), mask.data(), kKey,
                               kIndex, out.data());
    CHECK(out == random_masked);
    CHECK(kernels->largest(sums.data(), 1, kColumns, factors.data(), relu) == largest);
    CHECK(kernels->largest_masked(sums.data(), kColumns, factors.data(), mask.data()) ==
          largest_masked);
    out.assign(kColumns + 5, 99);
    kernels->quantise_floats(floats.data(), kColumns + 5, 1.5f, out.data());
    CHECK(out == from_floats);
    CHECK(kernels->largest_float(floats.data(), kColumns + 5) ==
          std::abs(*std::max_element(floats.begin(), floats.begin() + kColumns + 5,
                                     [](float a, float b) { return std::abs(a) < std::abs(b); })));
    const std::vector<float> broken{1, 2, 3, NAN, 5};
    CHECK(std::isnan(kernels->largest_float(broken.data(), broken.size())));
  }
}

TEST_CASE("int8: pooling takes the first maximum of a window", "[int8]") {
  RandomStream random(kSeed + 6, RandomPurpose::kTraining);
  constexpr std::size_t kColumns = 32;
  constexpr std::size_t kWidth = 11;
  const auto window = GENERATE(std::size_t{2}, std::size_t{3}, std::size_t{11});
  CAPTURE(kSeed, window);
  auto rows = random_sums(window * kWidth * kColumns, random);
  for (std::int32_t& sum : rows) sum %= 5;  // many ties
  const std::size_t pooled = kWidth / window * kColumns;
  std::vector<std::int32_t> expected(pooled);
  std::vector<std::uint8_t> expected_where(pooled);
  for (std::size_t i = 0; i < pooled; ++i) {
    const auto at = [&](std::size_t k) {
      const std::size_t position = k / window * kWidth + i / kColumns * window + k % window;
      return rows[position * kColumns + i % kColumns];
    };
    std::size_t best = 0;
    for (std::size_t k = 1; k < window * window; ++k) best = at(k) > at(best) ? k : best;
    expected[i] = at(best);
    expected_where[i] = static_cast<std::uint8_t>(best);
  }
  for (const Int8Kernels* kernels : available()) {
    CAPTURE(kernels->instruction_set);
    std::vector<std::int32_t> out(pooled);
    std::vector<std::uint8_t> where(pooled);
    kernels->max_pool(rows.data(), kWidth, kColumns, window, out.data(), where.data());
    CHECK(out == expected);
    CHECK(where == expected_where);
  }
}

TEST_CASE("int8: fixed-point requantisation rounds half up and clips", "[int8]") {
  // multiplier 2^30 and shift 31: half the sum
  const std::vector<std::int32_t> sums{0, 1, -1, 3, -3, 254, -254, 100'000, -100'000, 255};
  const std::vector<std::int32_t> multiplier(sums.size(), 1 << 30);
  const std::vector<std::int32_t> shift(sums.size(), 31);
  const std::vector<std::int8_t> expected{0, 1, 0, 2, -1, 127, -127, 127, -127, 127};
  for (const Int8Kernels* kernels : available()) {
    CAPTURE(kernels->instruction_set);
    std::vector<std::int8_t> out(sums.size());
    kernels->requantise(sums.data(), sums.size(), multiplier.data(), shift.data(), false,
                        out.data());
    CHECK(out == expected);
    kernels->requantise(sums.data(), sums.size(), multiplier.data(), shift.data(), true,
                        out.data());
    for (std::size_t i = 0; i < sums.size(); ++i) CHECK(out[i] == std::max<int>(expected[i], 0));
  }
}

TEST_CASE("int8: stochastic rounding is unbiased and its errors do not go together", "[int8]") {
  // 64 x 4096 weights are stepped by 0.3: the mean step of n is 0.3 +- sqrt(.21 / n), and of the
  // products of neighbours' errors 0 +- .21 / sqrt(n); five standard deviations are allowed.
  constexpr std::size_t kQuads = 1024;
  constexpr std::size_t kOutputs = 64;
  constexpr double kStep = 0.3;
  const Int8Kernels& kernels = selected_int8_kernels();
  const std::vector<std::int32_t> sums(kQuads * kQuad * kOutputs, 1);
  const std::vector<float> factors(kOutputs, static_cast<float>(kStep * 65536));
  for (const std::uint32_t key : {0u, 1u, 0x80000000u, 0xDEADBEEFu}) {
    CAPTURE(key);
    std::vector<std::int8_t> w(kQuads * kOutputs * kQuad, 0);
    kernels.weight_step(sums.data(), kQuads, kOutputs, {factors.data(), key}, w.data());
    const auto n = static_cast<double>(w.size());
    double total = 0;
    for (const std::int8_t value : w) {
      REQUIRE((value == 0 || value == -1));
      total -= value;
    }
    CHECK(std::abs(total / n - kStep) < 5 * std::sqrt(0.21 / n));
    for (const std::size_t distance : {1u, 2u, 3u, 4u, 64u, 256u, 1024u}) {
      double products = 0;
      for (std::size_t i = 0; i + distance < w.size(); ++i) {
        products += (-w[i] - kStep) * (-w[i + distance] - kStep);
      }
      CAPTURE(distance);
      CHECK(std::abs(products / n) < 5 * 0.21 / std::sqrt(n));
    }
  }
}
