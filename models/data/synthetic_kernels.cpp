#include "data/synthetic_kernels.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/assert.hpp>
#include <cstring>
#include <numbers>

namespace covey::models {
namespace {

constexpr std::size_t kPairsOfRow =
    kSyntheticFeatures / 2;       // a block of the stream makes two draws
constexpr std::size_t kRows = 8;  // examples at a time: all in L1
constexpr std::size_t kPairs = kRows * kPairsOfRow;

/// Numbers of the stream as they go through Box-Muller.
struct Draws {
  alignas(64) std::array<std::uint32_t, kPairs> block;  // which of the stream's
  alignas(64) std::array<std::uint32_t, kPairs> word0, word1, word2, word3;
  alignas(64) std::array<double, kPairs> radius, cosine, sine;
};

/// Philox4x32-10 (Salmon et al. 2011), as RandomStream has it.
[[gnu::always_inline]] inline void philox(const RandomStream::Blocks& stream, Draws& draws) {
  for (std::size_t i = 0; i < kPairs; ++i) {
    std::uint32_t c0 = draws.block[i], c1 = 0, c2 = stream.client[0], c3 = stream.client[1];
    std::uint32_t k0 = stream.key[0], k1 = stream.key[1];
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c0;
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<std::uint32_t>(p1);
      c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<std::uint32_t>(p0);
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    draws.word0[i] = c0;
    draws.word1[i] = c1;
    draws.word2[i] = c2;
    draws.word3[i] = c3;
  }
}

/// RandomStream::uniform() of two words: 53 bits, exactly, by conversions that every vector unit
/// has.
[[gnu::always_inline]] inline double uniform(std::uint32_t low, std::uint32_t high) {
  const auto upper = static_cast<std::int32_t>(high >> 6);                      // 26 bits
  const auto lower = static_cast<std::int32_t>((high & 63) << 21 | low >> 11);  // 27 bits
  return (static_cast<double>(upper) * 0x1p27 + static_cast<double>(lower)) * 0x1p-53;
}

/// Natural logarithm, v in [2^-53, 1]: below one ulp of error (fdlibm, e_log.c, without its short
/// cuts).
[[gnu::always_inline]] inline double logarithm(double v) {
  constexpr std::uint64_t kMantissa = 0x000fffffffffffff;
  constexpr std::uint64_t kRootHalf = 0x3fe6a09e00000000;  // v = 2^k m, m in [sqrt(1/2), sqrt(2))
  const std::uint64_t shifted = std::bit_cast<std::uint64_t>(v) + (0x3ff0000000000000 - kRootHalf);
  const double k = std::bit_cast<double>((shifted >> 52) | 0x4330000000000000) - (0x1p52 + 1023);
  const double f = std::bit_cast<double>((shifted & kMantissa) + kRootHalf) - 1;
  const double s = f / (2 + f);
  const double z = s * s;
  const double w = z * z;
  const double t1 = w * (3.999999999940941908e-01 +
                         w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  const double t2 = z * (6.666666666666735130e-01 +
                         w * (2.857142874366239149e-01 +
                              w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  const double half_square = 0.5 * f * f;
  constexpr double kLn2High = 6.93147180369123816490e-01;
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  return k * kLn2High - ((half_square - (s * (half_square + (t1 + t2)) + k * kLn2Low)) - f);
}

/// Sine and cosine of an angle in [0, 2 pi) (fdlibm, k_sin.c and k_cos.c).
[[gnu::always_inline]] inline void sine_cosine(double angle, double& sine, double& cosine) {
  // The nearest multiple n of pi / 2: adding 1.5 * 2^52 rounds to an integer, in the low bits of
  // the sum.
  const double sum = angle * 6.36619772367581382433e-01 + 0x1.8p52;
  const std::uint64_t n = std::bit_cast<std::uint64_t>(sum);
  const double count = sum - 0x1.8p52;
  const double near = angle - count * 1.57079632673412561417e+00;  // exact: 33 bits of pi / 2
  const double rest = count * 6.07710050650619224932e-11;
  const double x = near - rest;
  const double tail = (near - x) - rest;
  const double z = x * x;
  const double w = z * z;
  const double r = 8.33333333332248946124e-03 +
                   z * (-1.98412698298579493134e-04 + z * 2.75573137070700676789e-06) +
                   z * w * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10);
  const double cube = z * x;
  const double s = x - ((z * (0.5 * tail - cube * r) - tail) - cube * -1.66666666666666324348e-01);
  const double q = z * (4.16666666666666019037e-02 +
                        z * (-1.38888888888741095749e-03 + z * 2.48015872894767294178e-05)) +
                   w * w *
                       (-2.75573143513906633035e-07 +
                        z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11));
  const double half = 0.5 * z;
  const double one = 1 - half;
  const double c = one + (((1 - one) - half) + (z * q - x * tail));
  // sin(x + n pi/2) is s, c, -s, -c for n = 0, 1, 2, 3; cos is c, -s, -c, s.
  const std::uint64_t odd = 0 - (n & 1);
  const auto s_bits = std::bit_cast<std::uint64_t>(s);
  const auto c_bits = std::bit_cast<std::uint64_t>(c);
  sine = std::bit_cast<double>(((s_bits & ~odd) | (c_bits & odd)) ^ ((n & 2) << 62));
  cosine = std::bit_cast<double>(((c_bits & ~odd) | (s_bits & odd)) ^ (((n + 1) & 2) << 62));
}

/// Box-Muller, as RandomStream::normal(): draws 2i and 2i+1 are radius * cosine and radius * sine
/// of block i.
[[gnu::always_inline]] inline void box_muller(Draws& draws) {
  for (std::size_t i = 0; i < kPairs; ++i) {
    const double u = uniform(draws.word0[i], draws.word1[i]);
    draws.radius[i] = std::sqrt(-2 * logarithm(1 - u));  // 1 - u is in (0, 1], exactly
  }
  for (std::size_t i = 0; i < kPairs; ++i) {
    const double angle = 2 * std::numbers::pi * uniform(draws.word2[i], draws.word3[i]);
    sine_cosine(angle, draws.sine[i], draws.cosine[i]);
  }
  for (std::size_t i = 0; i < kPairs; ++i) draws.cosine[i] *= draws.radius[i];
  for (std::size_t i = 0; i < kPairs; ++i) draws.sine[i] *= draws.radius[i];
}

[[gnu::always_inline]] inline void normals_body(const RandomStream::Blocks& stream, double* out,
                                                std::size_t pairs) {
  Draws draws;
  for (std::size_t done = 0; done < pairs; done += kPairs) {
    for (std::size_t i = 0; i < kPairs; ++i) draws.block[i] = static_cast<std::uint32_t>(done + i);
    philox(stream, draws);
    box_muller(draws);
    const std::size_t some = std::min(kPairs, pairs - done);
    for (std::size_t i = 0; i < some; ++i) {
      out[2 * (done + i)] = draws.cosine[i];
      out[2 * (done + i) + 1] = draws.sine[i];
    }
  }
}

/// How examples are scored with vectors of so many bytes: some at a time, so that one's additions
/// wait less for each other, and as many as have their sums in registers.
template <std::size_t kBytes>
struct Scoring {
  typedef double Vector [[gnu::vector_size(kBytes)]];
  static constexpr std::size_t kWidth = kBytes / sizeof(double);
  static constexpr std::size_t kVectors = (kSyntheticClasses + kWidth - 1) / kWidth;
  static constexpr std::size_t kTogether = kBytes > 16 ? 4 : 2;
  static_assert(kVectors * kWidth <= SyntheticModel::kLanes && kRows % kTogether == 0);
  using Features = std::array<std::array<double, kSyntheticFeatures>, kTogether>;
  using Scores = std::array<std::array<double, kVectors * kWidth>, kTogether>;

  [[gnu::always_inline]] static inline void score(const SyntheticModel& model, const Features& x,
                                                  Scores& scores) {
    Vector sums[kTogether][kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      for (std::size_t k = 0; k < kTogether; ++k) {
        std::memcpy(&sums[k][v], &model.bias[kWidth * v], kBytes);
      }
    }
    for (std::size_t j = 0; j < kSyntheticFeatures; ++j) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        Vector weight;
        std::memcpy(&weight, &model.weight[j][kWidth * v], kBytes);
        for (std::size_t k = 0; k < kTogether; ++k) sums[k][v] += weight * x[k][j];
      }
    }
    std::memcpy(&scores, &sums, sizeof(scores));
  }
};

struct Rows {
  const std::uint32_t* row;
  std::size_t count;
  float* features;
  std::int32_t* labels;
};

template <std::size_t kBytes>
[[gnu::always_inline]] inline void examples_body(const SyntheticModel& model,
                                                 const RandomStream::Blocks& stream, Rows rows) {
  using Scored = Scoring<kBytes>;
  constexpr std::size_t kTogether = Scored::kTogether;
  Draws draws;
  for (std::size_t done = 0; done < rows.count; done += kRows) {
    const std::size_t some = std::min(kRows, rows.count - done);
    for (std::size_t i = 0; i < kPairs; ++i) {
      const std::uint32_t row = rows.row[done + std::min(i / kPairsOfRow, some - 1)];
      draws.block[i] = row * static_cast<std::uint32_t>(kPairsOfRow) +
                       static_cast<std::uint32_t>(i % kPairsOfRow);
    }
    philox(stream, draws);
    box_muller(draws);
    for (std::size_t e = 0; e < some; e += kTogether) {
      typename Scored::Features x;
      for (std::size_t k = 0; k < kTogether; ++k) {
        for (std::size_t j = 0; j < kPairsOfRow; ++j) {
          const std::size_t pair = (e + k) * kPairsOfRow + j;
          x[k][2 * j] = model.center[2 * j] + model.deviation[2 * j] * draws.cosine[pair];
          x[k][2 * j + 1] = model.center[2 * j + 1] + model.deviation[2 * j + 1] * draws.sine[pair];
        }
      }
      typename Scored::Scores scores;
      Scored::score(model, x, scores);
      for (std::size_t k = 0; k < std::min(kTogether, some - e); ++k) {
        const std::size_t at = done + e + k;
        for (std::size_t j = 0; j < kSyntheticFeatures; ++j) {
          rows.features[at * kSyntheticFeatures + j] = static_cast<float>(x[k][j]);
        }
        const auto classes = std::span(scores[k]).template first<kSyntheticClasses>();
        rows.labels[at] =
            static_cast<std::int32_t>(std::ranges::max_element(classes) - classes.begin());
      }
    }
  }
}

struct Kernels {
  void (*normals)(const RandomStream::Blocks&, double*, std::size_t);
  void (*examples)(const SyntheticModel&, const RandomStream::Blocks&, Rows);
};

void normals_baseline(const RandomStream::Blocks& stream, double* out, std::size_t pairs) {
  normals_body(stream, out, pairs);
}
void examples_baseline(const SyntheticModel& model, const RandomStream::Blocks& stream, Rows rows) {
  examples_body<16>(model, stream, rows);
}

#if defined(__x86_64__)
#if defined(__clang__)  // which does not know the last
#define COVEY_AVX512 "avx512f,avx512vl,avx512bw,avx512dq"
#else
#define COVEY_AVX512 "avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512"
#endif
[[gnu::target("avx2")]] void normals_avx2(const RandomStream::Blocks& stream, double* out,
                                          std::size_t pairs) {
  normals_body(stream, out, pairs);
}
[[gnu::target("avx2")]] void examples_avx2(const SyntheticModel& model,
                                           const RandomStream::Blocks& stream, Rows rows) {
  examples_body<32>(model, stream, rows);
}
[[gnu::target(COVEY_AVX512)]] void normals_avx512(const RandomStream::Blocks& stream, double* out,
                                                  std::size_t pairs) {
  normals_body(stream, out, pairs);
}
[[gnu::target(COVEY_AVX512)]] void examples_avx512(const SyntheticModel& model,
                                                   const RandomStream::Blocks& stream, Rows rows) {
  examples_body<64>(model, stream, rows);
}
#undef COVEY_AVX512
#endif

const Kernels& kernels() {
  static const Kernels chosen = []() -> Kernels {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
      return {normals_avx512, examples_avx512};
    }
    if (__builtin_cpu_supports("avx2")) return {normals_avx2, examples_avx2};
#endif
    return {normals_baseline, examples_baseline};
  }();
  return chosen;
}

}  // namespace

void draw_normals(const RandomStream::Blocks& stream, std::span<double> out) {
  COVEY_ASSERT(out.size() % 2 == 0);
  kernels().normals(stream, out.data(), out.size() / 2);
}

void draw_examples(const SyntheticModel& model, const RandomStream::Blocks& stream,
                   std::span<const std::uint32_t> rows, std::span<float> features,
                   std::span<std::int32_t> labels) {
  COVEY_ASSERT(features.size() == rows.size() * kSyntheticFeatures);
  COVEY_ASSERT(labels.size() == rows.size());
  kernels().examples(model, stream, {rows.data(), rows.size(), features.data(), labels.data()});
}

}  // namespace covey::models
