#include <covey/hadamard.hpp>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#define COVEY_X86_KERNELS 1
#ifdef __clang__
#define COVEY_AVX512 "avx512f,avx512dq"
#else
#define COVEY_AVX512 "avx512f,avx512dq,prefer-vector-width=512"  // g++ 12 prefers half of it
#endif
#endif

namespace covey {
namespace {

// A block that stays in a 32 KiB first-level cache while its strides are worked through.
constexpr std::size_t kBlockBytes = 16384;

template <typename T, int Lanes>
struct Vector {
  typedef T Type __attribute__((vector_size(sizeof(T) * Lanes)));
};

// Stride 2^level inside a vector: lane i becomes x[i] + x[i ^ stride], or x[i ^ stride] - x[i]
// where i has the bit. Multiplying by +-1 is exact.
template <typename T, int Lanes, int Stride, std::size_t... I>
[[gnu::always_inline]] inline void lane_stage(typename Vector<T, Lanes>::Type& x,
                                              std::index_sequence<I...>) {
  using V = typename Vector<T, Lanes>::Type;
  const V signs = {((I & Stride) != 0 ? T{-1} : T{1})...};
  x = __builtin_shufflevector(x, x, static_cast<int>(I ^ Stride)...) + x * signs;
}

template <typename T, int Lanes>
[[gnu::always_inline]] inline void lane_stages(typename Vector<T, Lanes>::Type& x) {
  constexpr auto kLaneIndex = std::make_index_sequence<Lanes>{};
  if constexpr (Lanes > 1) lane_stage<T, Lanes, 1>(x, kLaneIndex);
  if constexpr (Lanes > 2) lane_stage<T, Lanes, 2>(x, kLaneIndex);
  if constexpr (Lanes > 4) lane_stage<T, Lanes, 4>(x, kLaneIndex);
  if constexpr (Lanes > 8) lane_stage<T, Lanes, 8>(x, kLaneIndex);
}

// Strides h and 2 h in one pass over the memory.
template <typename T, int Lanes>
[[gnu::always_inline]] inline void two_stages(T* values, std::size_t size, std::size_t h) {
  using V = typename Vector<T, Lanes>::Type;
  for (std::size_t start = 0; start < size; start += 4 * h) {
    for (std::size_t i = start; i < start + h; i += Lanes) {
      V a, b, c, d;
      std::memcpy(&a, values + i, sizeof a);
      std::memcpy(&b, values + i + h, sizeof b);
      std::memcpy(&c, values + i + 2 * h, sizeof c);
      std::memcpy(&d, values + i + 3 * h, sizeof d);
      const V ab = a + b;
      const V a_b = a - b;
      const V cd = c + d;
      const V c_d = c - d;
      a = ab + cd;
      b = a_b + c_d;
      c = ab - cd;
      d = a_b - c_d;
      std::memcpy(values + i, &a, sizeof a);
      std::memcpy(values + i + h, &b, sizeof b);
      std::memcpy(values + i + 2 * h, &c, sizeof c);
      std::memcpy(values + i + 3 * h, &d, sizeof d);
    }
  }
}

template <typename T, int Lanes>
[[gnu::always_inline]] inline void one_stage(T* values, std::size_t size, std::size_t h) {
  using V = typename Vector<T, Lanes>::Type;
  for (std::size_t start = 0; start < size; start += 2 * h) {
    for (std::size_t i = start; i < start + h; i += Lanes) {
      V a, b;
      std::memcpy(&a, values + i, sizeof a);
      std::memcpy(&b, values + i + h, sizeof b);
      const V sum = a + b;
      const V difference = a - b;
      std::memcpy(values + i, &sum, sizeof sum);
      std::memcpy(values + i + h, &difference, sizeof difference);
    }
  }
}

// Strides first, 2 first, ... below `size`.
template <typename T, int Lanes>
[[gnu::always_inline]] inline void stages(T* values, std::size_t size, std::size_t first) {
  std::size_t h = first;
  for (; 4 * h <= size; h *= 4) two_stages<T, Lanes>(values, size, h);
  if (2 * h <= size) one_stage<T, Lanes>(values, size, h);
}

template <typename T, int Lanes>
[[gnu::always_inline]] inline void transform_body(T* values, std::size_t size) {
  using V = typename Vector<T, Lanes>::Type;
  if (size < Lanes) {
    for (std::size_t h = 1; h < size; h *= 2) {
      for (std::size_t i = 0; i < size; ++i) {
        if ((i & h) != 0) continue;
        const T a = values[i];
        values[i] = a + values[i + h];
        values[i + h] = a - values[i + h];
      }
    }
    return;
  }
  const std::size_t block = size * sizeof(T) <= kBlockBytes ? size : kBlockBytes / sizeof(T);
  for (std::size_t start = 0; start < size; start += block) {
    for (std::size_t i = start; i < start + block; i += Lanes) {
      V x;
      std::memcpy(&x, values + i, sizeof x);
      lane_stages<T, Lanes>(x);
      std::memcpy(values + i, &x, sizeof x);
    }
    stages<T, Lanes>(values + start, block, Lanes);
  }
  stages<T, Lanes>(values, size, block);
}

template <typename T>
[[gnu::always_inline]] inline void signs_body(T* __restrict values, std::size_t size,
                                              const std::uint32_t* __restrict signs, T scale) {
  std::size_t i = 0;
  for (; i + 32 <= size; i += 32) {
    const std::uint32_t word = signs[i / 32];
    for (std::uint32_t j = 0; j < 32; ++j) {
      values[i + j] *= (word & (std::uint32_t{1} << j)) != 0 ? -scale : scale;
    }
  }
  for (; i < size; ++i) values[i] *= ((signs[i / 32] >> (i % 32)) & 1) != 0 ? -scale : scale;
}

// The bodies once per instruction set. ATTRIBUTE may be empty.
#define COVEY_HADAMARD_KERNEL(isa, ATTRIBUTE, bytes)                                              \
  ATTRIBUTE void transform_float_##isa(float* values, std::size_t size) {                         \
    transform_body<float, bytes / 4>(values, size);                                               \
  }                                                                                               \
  ATTRIBUTE void transform_double_##isa(double* values, std::size_t size) {                       \
    transform_body<double, bytes / 8>(values, size);                                              \
  }                                                                                               \
  ATTRIBUTE void signs_float_##isa(float* values, std::size_t size, const std::uint32_t* signs,   \
                                   float scale) {                                                 \
    signs_body(values, size, signs, scale);                                                       \
  }                                                                                               \
  ATTRIBUTE void signs_double_##isa(double* values, std::size_t size, const std::uint32_t* signs, \
                                    double scale) {                                               \
    signs_body(values, size, signs, scale);                                                       \
  }                                                                                               \
  constexpr HadamardKernel kernel_##isa{#isa, transform_float_##isa, transform_double_##isa,      \
                                        signs_float_##isa, signs_double_##isa};

COVEY_HADAMARD_KERNEL(baseline, , 16)
#ifdef COVEY_X86_KERNELS
COVEY_HADAMARD_KERNEL(avx2, [[gnu::target("avx2")]], 32)
COVEY_HADAMARD_KERNEL(avx512, [[gnu::target(COVEY_AVX512)]], 64)
#endif

std::vector<HadamardKernel> detect() {
  std::vector<HadamardKernel> kernels;
#ifdef COVEY_X86_KERNELS
  const char* value = std::getenv("COVEY_ISA");
  const std::string_view most = value == nullptr ? "" : value;
  const bool avx2 = most != "sse2" && __builtin_cpu_supports("avx2") != 0;
  if (avx2 && most != "avx2" && __builtin_cpu_supports("avx512f") != 0 &&
      __builtin_cpu_supports("avx512dq") != 0) {
    kernels.push_back(kernel_avx512);
  }
  if (avx2) kernels.push_back(kernel_avx2);
#endif
  kernels.push_back(kernel_baseline);
  return kernels;
}

}  // namespace

std::span<const HadamardKernel> hadamard_kernels() {
  static const std::vector<HadamardKernel> kernels = detect();
  return kernels;
}

}  // namespace covey
