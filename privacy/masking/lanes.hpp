#pragma once

#include <cstddef>
#include <cstdint>

/// The arithmetic of packed vectors, compiled once per instruction set from lanes_kernel.hpp and
/// chosen at run time. Plain structs and functions only, as in keystream.hpp.
namespace covey::privacy::masking {

struct LaneKernels {
  /// `values`: 512 per block, `words`: 8 * m per block. Layouts as in packed_vector.hpp.
  void (*pack)(std::uint32_t m, std::size_t blocks, const std::int64_t* values,
               std::uint64_t* words);
  void (*unpack)(std::uint32_t m, std::size_t blocks, const std::uint64_t* words,
                 std::int64_t* values);
  /// sum += words, or -= ; `words` of any alignment.
  void (*add)(std::uint32_t m, std::size_t blocks, const void* words, std::uint64_t* sum);
  void (*subtract)(std::uint32_t m, std::size_t blocks, const void* words, std::uint64_t* sum);
};

// Null where the compiler cannot make them; the caller checks that the processor can run them.
const LaneKernels* lanes_baseline();
const LaneKernels* lanes_avx2();
const LaneKernels* lanes_avx512();

/// The widest of them that the processor runs and COVEY_ISA allows.
const LaneKernels& selected_lanes();

}  // namespace covey::privacy::masking
