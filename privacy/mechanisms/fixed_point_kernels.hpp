#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace covey::privacy {

/// How the coordinates of one contribution become lattice points: up or down at random, to neither side on
/// average, or (spread = 0, centre = 1/2) to the nearest.
struct Rounding {
  double factor = 1;           ///< min(weight, W) / W
  double clip = 1;             ///< C
  double inverse_quantum = 1;  ///< 1 / quantum
  double offset = 0;  ///< 2^(b-1) - 1: added to every lattice point, and the largest of them
  std::array<std::uint32_t, 4> key{};
  std::array<std::uint32_t, 3> counter{};  ///< the upper words: another counter, other draws
  /// What is added before the fraction is cut off: centre + k * spread for 24 random bits k.
  double spread = 0x1p-24;
  double centre = 0x1p-25;
};

/// Coordinates that are rounded together. The draw for coordinate 64 B + 16 k + j is word k of
/// Threefry-4x32 at counter (16 B + j, rounding.counter).
inline constexpr std::size_t kRoundingBlock = 64;

/// One instruction set's code. Every set gives the same bits: only correctly rounded operations,
/// and no product that enters a sum unless it is exact, so nothing changes where they are
/// contracted.
struct RoundingKernel {
  const char* instruction_set;
  /// Rounds `blocks` blocks of 64 coordinates, the first of which is block `first` of the vector,
  /// and returns how many were outside [-C, C].
  std::uint64_t (*round)(const Rounding& rounding, const float* values, std::size_t first,
                         std::size_t blocks, std::int64_t* out);
};

/// What this processor can run and COVEY_ISA allows, fastest first; the last one runs anywhere.
std::span<const RoundingKernel> rounding_kernels();

/// Threefry-4x32 with 13 rounds (Salmon, Moraes, Dror, Shaw 2011; Random123's fast variant): 32-bit
/// additions, rotations and exclusive ors only, which every instruction set has in vectors. Passes
/// BigCrush; not for secrets.
std::array<std::uint32_t, 4> threefry(const std::array<std::uint32_t, 4>& counter,
                                      const std::array<std::uint32_t, 4>& key);

}  // namespace covey::privacy
