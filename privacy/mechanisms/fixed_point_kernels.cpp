#include "mechanisms/fixed_point_kernels.hpp"

#include <cstring>
#include <vector>

#include "masking/instruction_set.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#define COVEY_X86_KERNELS 1
#ifdef __clang__
#define COVEY_AVX512 "avx512f"
#else
#define COVEY_AVX512 "avx512f,prefer-vector-width=512"  // g++ 12 prefers half of it
#endif
#endif

namespace covey::privacy {
namespace {

constexpr std::size_t kCounters = kRoundingBlock / 4;

template <int Lanes>
struct Vector {
  typedef std::uint32_t Type __attribute__((vector_size(4 * Lanes)));
};
template <>
struct Vector<1> {
  using Type = std::uint32_t;
};

template <typename T>
[[gnu::always_inline]] inline void rotate_left(T& x, unsigned bits) {
  x = (x << bits) | (x >> (32 - bits));
}

// One round mixes (x0, x1) and (x2, x3), or (x0, x3) and (x2, x1) in odd rounds; every fourth is
// followed by a part of the key (Salmon et al. 2011, section 4.2 and its table 1).
template <typename T>
[[gnu::always_inline]] inline void threefry_rounds(T& x0, T& x1, T& x2, T& x3,
                                                   const std::array<std::uint32_t, 4>& key) {
  constexpr int kRounds = 13;
  constexpr unsigned kRotations[8][2] = {{10, 26}, {11, 21}, {13, 27}, {23, 5},
                                         {6, 20},  {17, 11}, {25, 10}, {18, 20}};
  const std::uint32_t schedule[5] = {key[0], key[1], key[2], key[3],
                                     0x1BD11BDA ^ key[0] ^ key[1] ^ key[2] ^ key[3]};
  x0 += schedule[0];
  x1 += schedule[1];
  x2 += schedule[2];
  x3 += schedule[3];
#pragma GCC unroll 13
  for (int r = 0; r < kRounds; ++r) {
    T& a = r % 2 == 0 ? x1 : x3;
    T& b = r % 2 == 0 ? x3 : x1;
    x0 += a;
    rotate_left(a, kRotations[r % 8][0]);
    a ^= x0;
    x2 += b;
    rotate_left(b, kRotations[r % 8][1]);
    b ^= x2;
    if (r % 4 == 3) {
      const unsigned s = static_cast<unsigned>(r / 4 + 1);
      x0 += schedule[s % 5];
      x1 += schedule[(s + 1) % 5];
      x2 += schedule[(s + 2) % 5];
      x3 += schedule[(s + 3) % 5] + s;
    }
  }
}

// words[16 k + j] = word k at counter (first + j, rounding.counter).
template <int Lanes>
[[gnu::always_inline]] inline void draw_block(const Rounding& rounding, std::uint32_t first,
                                              std::uint32_t* words) {
  using Words = typename Vector<Lanes>::Type;
  for (std::size_t j = 0; j < kCounters; j += Lanes) {
    std::uint32_t counters[Lanes];
    for (std::size_t i = 0; i < Lanes; ++i) counters[i] = first + static_cast<std::uint32_t>(j + i);
    Words x0;
    std::memcpy(&x0, counters, sizeof x0);
    // Not constants: g++ 12 cannot fold the rotation of a constant vector.
    Words x1 = Words{} + rounding.counter[0];
    Words x2 = Words{} + rounding.counter[1];
    Words x3 = Words{} + rounding.counter[2];
    threefry_rounds(x0, x1, x2, x3, rounding.key);
    std::memcpy(words + j, &x0, sizeof x0);
    std::memcpy(words + kCounters + j, &x1, sizeof x1);
    std::memcpy(words + 2 * kCounters + j, &x2, sizeof x2);
    std::memcpy(words + 3 * kCounters + j, &x3, sizeof x3);
  }
}

template <int Lanes>
[[gnu::always_inline]] inline std::uint64_t round_body(const Rounding& rounding,
                                                       const float* __restrict values,
                                                       std::size_t first, std::size_t blocks,
                                                       std::int64_t* __restrict out) {
  const double factor = rounding.factor;
  const double clip = rounding.clip;
  const double inverse_quantum = rounding.inverse_quantum;
  const double offset = rounding.offset;
  const double spread = rounding.spread;
  const double centre = rounding.centre;
  std::uint64_t clipped = 0;
  for (std::size_t block = 0; block < blocks; ++block) {
    alignas(64) std::uint32_t words[kRoundingBlock];
    alignas(64) std::int32_t points[kRoundingBlock];
    draw_block<Lanes>(rounding, static_cast<std::uint32_t>((first + block) * kCounters), words);
    std::int32_t outside = 0;
    for (std::size_t i = 0; i < kRoundingBlock; ++i) {
      const double value = factor * static_cast<double>(values[i]);
      outside += value > clip || value < -clip ? 1 : 0;
      double point = inverse_quantum * value;
      point = point > offset ? offset : point;
      point = point < -offset ? -offset : point;
      // floor(point + u), u = (k + 1/2) 2^-24 with 24 random bits k: a lattice point stays, and any
      // other value goes up with its fraction as probability to within 2^-25, to neither side on
      // average. offset + u needs 49 bits and is exact; the sum of all is below 2 offset + 1.
      const double u =
          static_cast<double>(static_cast<std::int32_t>(words[i] >> 8)) * spread + centre;
      points[i] = static_cast<std::int32_t>(point + (offset + u));
    }
    clipped += static_cast<std::uint64_t>(outside);
    for (std::size_t i = 0; i < kRoundingBlock; ++i) out[i] = points[i];
    values += kRoundingBlock;
    out += kRoundingBlock;
  }
  return clipped;
}

std::uint64_t round_baseline(const Rounding& rounding, const float* values, std::size_t first,
                             std::size_t blocks, std::int64_t* out) {
  return round_body<4>(rounding, values, first, blocks, out);
}

#ifdef COVEY_X86_KERNELS
[[gnu::target("avx2")]] std::uint64_t round_avx2(const Rounding& rounding, const float* values,
                                                 std::size_t first, std::size_t blocks,
                                                 std::int64_t* out) {
  return round_body<8>(rounding, values, first, blocks, out);
}
[[gnu::target(COVEY_AVX512)]] std::uint64_t round_avx512(const Rounding& rounding,
                                                         const float* values, std::size_t first,
                                                         std::size_t blocks, std::int64_t* out) {
  return round_body<16>(rounding, values, first, blocks, out);
}
#endif

std::vector<RoundingKernel> detect() {
  std::vector<RoundingKernel> kernels;
#ifdef COVEY_X86_KERNELS
  const masking::InstructionSet allowed = masking::allowed_instruction_set();
  if (allowed.avx512) kernels.push_back({"avx512", round_avx512});
  if (allowed.avx2) kernels.push_back({"avx2", round_avx2});
#endif
  kernels.push_back({"baseline", round_baseline});
  return kernels;
}

}  // namespace

std::span<const RoundingKernel> rounding_kernels() {
  static const std::vector<RoundingKernel> kernels = detect();
  return kernels;
}

std::array<std::uint32_t, 4> threefry(const std::array<std::uint32_t, 4>& counter,
                                      const std::array<std::uint32_t, 4>& key) {
  auto x = counter;
  threefry_rounds(x[0], x[1], x[2], x[3], key);
  return x;
}

}  // namespace covey::privacy
